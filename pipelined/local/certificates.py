"""The certificate of the local Kafka's SASL_SSL listener, made by Java's keytool."""

from __future__ import annotations

import secrets
import subprocess
from dataclasses import dataclass
from pathlib import Path

from pipelined.errors import UnavailableError
from pipelined.local.java import Java

__all__ = ["Certificate", "make_certificate"]


@dataclass(frozen=True)
class Certificate:
    """A key store for the broker and the certificate (PEM) its clients are to trust."""

    keystore: Path
    password: str
    ca: Path


def make_certificate(folder: Path, java: Java) -> Certificate:
    """The certificate for 127.0.0.1 and localhost in ``folder``, made there once (about 1 s)."""
    keystore, secret, ca = folder / "broker.p12", folder / "broker.secret", folder / "ca.pem"
    if not ca.exists():
        for stale in (keystore, secret):
            stale.unlink(missing_ok=True)
        secret.touch(mode=0o600)
        secret.write_text(secrets.token_hex(16))
        store = ["-alias", "broker", "-keystore", str(keystore), "-storepass:file", str(secret), "-noprompt"]
        key = "-keyalg EC -groupname secp256r1 -storetype PKCS12 -validity 3650 -dname CN=localhost"
        extensions = "-ext san=dns:localhost,ip:127.0.0.1 -ext bc:critical=ca:true"
        _keytool(java, ["-genkeypair", *key.split(), *extensions.split(), *store])
        keystore.chmod(0o600)
        partial = ca.with_suffix(".new")
        _keytool(java, ["-exportcert", "-rfc", "-file", str(partial), *store])
        partial.replace(ca)  # last: its presence says that all three are whole
    return Certificate(keystore, secret.read_text(), ca)


def _keytool(java: Java, arguments: list[str]) -> None:
    command = [
        str(java.keytool),
        "-J-XX:TieredStopAtLevel=1",
        "-J-XX:+UseSerialGC",
        "-J-XX:-UsePerfData",
        *arguments,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        reason = (done.stdout + done.stderr).strip()
        raise UnavailableError(f"keytool could not make the certificate of the local Kafka: {reason}")
