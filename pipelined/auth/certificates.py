"""The certificate of an application as msal takes it."""

from __future__ import annotations

import re
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from pipelined.errors import AuthError

__all__ = ["certificate_credential"]

_KEY = re.compile(r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?-----END \1-----", re.DOTALL)


def certificate_credential(path: Path, password: str, section: str) -> dict[str, str]:
    """What msal takes of a PEM file: private key, thumbprint, and the chain, our own first.

    With the chain (x5c) the login service can judge by the certificate's subject and issuer, so that a
    renewed one works at once. AuthError says what of the file cannot be used; nothing of it is shown.
    """

    def unusable(why: str) -> AuthError:
        return AuthError("login_certificate", f"{section}.certificate_file: {path} {why}")

    try:
        pem = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise unusable(f"cannot be read: {getattr(error, 'strerror', None) or 'it is no text'}") from None
    if (found := _KEY.search(pem)) is None:
        raise unusable("holds no private key (PEM); a .pfx file must be converted")
    try:
        key = serialization.load_pem_private_key(found[0].encode(), password.encode() or None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        needed = "that password" if password else "no password"
        raise unusable(f"has a private key that cannot be read with {needed}") from None
    if not isinstance(key, RSAPrivateKey):
        raise unusable("has a private key that is not RSA, which the login service does not take")
    try:
        chain = x509.load_pem_x509_certificates(pem.encode())
    except ValueError:
        raise unusable("holds no certificate, or a broken one") from None
    public = key.public_key().public_numbers()
    own = [cert for cert in chain if _of(cert) == public]
    if not own:
        raise unusable("holds no certificate that belongs to its private key")
    ordered = [own[0], *(cert for cert in chain if cert is not own[0])]
    plain = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return {
        "private_key": plain.decode(),
        "thumbprint": own[0].fingerprint(hashes.SHA1()).hex(),  # noqa: S303 - a name, as msal wants it
        "public_certificate": "".join(_pem(cert) for cert in ordered),
    }


def _of(cert: x509.Certificate) -> object:
    numbers = getattr(cert.public_key(), "public_numbers", None)
    return numbers() if numbers else None


def _pem(cert: x509.Certificate) -> str:
    return cert.public_bytes(serialization.Encoding.PEM).decode()
