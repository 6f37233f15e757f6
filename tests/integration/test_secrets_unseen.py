"""Secrets are planted wherever one can be; then everything fails, and all that is said is searched."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

import pipelined
from entra import Answer, Entra, certificate, pem, serving
from flow import pipelinectl_command
from pipelined.config.leaves import leaves

ROOT = Path(pipelined.__file__).parents[1]
#: The keys that hold a secret, and what is planted in each.
KEYS = {leaf.path: hashlib.sha256(leaf.path.encode()).hexdigest() for leaf in leaves() if leaf.spec.secret}


class Echo(BaseHTTPRequestHandler):
    """A store, and an Eventhouse, that refuses everything and says why in the words it was asked with."""

    protocol_version = "HTTP/1.1"
    status = 401

    def do_POST(self) -> None:
        said = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode(errors="replace")
        text = f"refused: {self.headers.get('Authorization')} {said}"
        error = {"code": "Forbidden", "message": text, "@message": text, "@permanent": True}
        data = json.dumps({"error": error}).encode()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_PUT = do_HEAD = do_POST  # noqa: N815 - as http.server wants it

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def echo() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


class Planted:
    """An installation whose every secret is a known text."""

    def __init__(self, folder: Path, entra: Entra) -> None:
        self.folder = folder
        self.entra = entra
        self.secrets = dict(KEYS)
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("PIPELINED_", "AZURE_"))
        }
        self.environment |= {
            "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
            "PATH": f"{folder}:{os.environ['PATH']}",
        }
        for number, (path, secret) in enumerate(KEYS.items()):
            self.environment[f"SECRET_{number}"] = secret
            (folder / path).write_text(secret)
        self.file("token", jwt("plain"))
        self.file("token.broken", json.dumps({"kvqzxjwkplmtrbgn": "wjxqzvfkybdchmpt"}) + "}")
        key = rsa.generate_private_key(65537, 2048)
        password = KEYS["tables.auth.certificate_password"]
        self.file("app.pem", pem(key, password) + certificate(key))
        self.secrets["private key"] = pem(key, password).splitlines()[2]
        # az says more than it should, and then something that is no token.
        (folder / "az").write_text(f'#!/bin/sh\necho \'{{"accessToken": "{jwt("az")}"\'\nexit 1\n')
        (folder / "az").chmod(0o755)
        self.secrets["az"] = jwt("az")

    def file(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)
        if name.startswith("token"):
            for part in text.replace('"', " ").split():
                if len(part) > 8:
                    self.secrets[f"{name} {part}"] = part

    def configured(self, **settings: str) -> Path:
        """The configuration file: half of the secrets by variable, half by file."""
        given = {
            "upload.url": "az://container/files",
            "tables.url": "az://container/tables",
            "eventhouse.database": "db",
            "eventhub.bootstrap": "namespace.servicebus.windows.net:9093",
            "eventhub.topic": "hub",
            "kafka.security_protocol": "SASL_SSL",
            "kafka.sasl_username": "user",
        }
        for section in ("eventhouse", "eventhub", "upload", "tables"):
            given |= {
                f"{section}.auth.method": "client_secret",
                f"{section}.auth.tenant_id": "contoso.example",
                f"{section}.auth.client_id": "11111111-2222-3333-4444-555555555555",
                f"{section}.auth.authority": self.entra.url,
                f"{section}.auth.certificate_file": str(self.folder / "app.pem"),
                f"{section}.auth.token_file": str(self.folder / "token"),
            }
        given["eventhub.auth.method"] = "none"  # the connection string is its login
        for number, path in enumerate(KEYS):
            given[path] = f"env:SECRET_{number}" if number % 2 else f"file:{self.folder / path}"
        file = self.folder / "pipelined.toml"
        file.write_text(
            "".join(f"{key} = {json.dumps(value)}\n" for key, value in (given | settings).items())
        )
        return file

    def run(self, command: list[str]) -> str:
        """All that a command says."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=120, check=False
        )
        return f"{done.stdout}\n{done.stderr}"

    def seen(self, text: str) -> set[str]:
        """Which secrets are in a text, or a part of one, as they are or encoded."""
        return {name for name, secret in self.secrets.items() if any(part in text for part in _parts(secret))}

    def where(self, text: str) -> str:
        """The lines that show one."""
        return "\n".join(line[:600] for line in text.splitlines() if self.seen(line))


@cache
def _parts(secret: str) -> list[str]:
    telling = secret.partition(".")[2] or secret  # all tokens begin alike
    encoded = base64.b64encode(secret.encode()).decode().rstrip("=")
    return [encoded, *(telling[at : at + 12] for at in range(len(telling) - 11))]


def jwt(name: str) -> str:
    """A token as Entra makes them."""
    parts = [json.dumps(part).encode() for part in ({"alg": "RS256", "typ": "JWT"}, {"name": name * 5})]
    return ".".join(
        [*(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts), "c2lnbmF0dXJl"]
    )


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Planted]:
    with serving(tmp_path, monkeypatch) as entra:
        made = Planted(tmp_path, entra)
        made.secrets["minted"] = jwt("minted")
        yield made


#: What the login service says, given all that it was told.
ANSWERS: dict[str, Callable[[dict[str, str]], Answer]] = {
    "refused": lambda form: Answer(
        401, {"error": "invalid_client", "error_description": f"AADSTS7000215: wrong: {form}"}
    ),
    "a page": lambda form: Answer(200, text=f"<html>you said {form}</html>"),
    "down": lambda form: Answer(503, text=f"{form}"),
    "granted": lambda _form: Answer(body={"access_token": jwt("minted"), "expires_in": 3600}),
    "half granted": lambda _form: Answer(body={"access_token": f"{jwt('minted')} x", "expires_in": "?"}),
}


@pytest.mark.parametrize(
    ("said", "form"),
    [*((said, "json") for said in ANSWERS), *(("granted", form) for form in ("text", "journal"))],
)
def test_no_error_of_a_login_or_a_service_shows_a_secret(
    planted: Planted, echo: str, said: str, form: str
) -> None:
    planted.entra.answer = ANSWERS[said]
    file = planted.configured()
    planted.environment |= {
        "AZURE_FEDERATED_TOKEN_FILE": str(planted.folder / "token"),
        "AZURE_POD_IDENTITY_AUTHORITY_HOST": echo,
        "AZURE_STORAGE_ACCOUNT_NAME": "account",
        "AZURE_STORAGE_ENDPOINT": echo,
        "AZURE_ALLOW_HTTP": "true",
    }
    script = Path(__file__).with_name("planted.py")
    text = planted.run([sys.executable, str(script), str(file), echo, form])
    assert planted.seen(text) == set(), planted.where(text)
    assert text.count("failed") > 10, text
    assert "Uncaught" not in text
    assert planted.entra.asked, "the login service was asked"
    told = {"refused": "login_refused", "a page": "login_down", "down": "login_down"}
    if said == "granted":
        assert "refused our credentials" in text
        assert "logged in (upload.auth)" in text
    else:
        assert told.get(said, "login_") in text or "login" in text


@pytest.mark.parametrize("command", [["show"], ["show", "--json"], ["check"]])
def test_no_command_about_the_configuration_shows_a_secret(planted: Planted, command: list[str]) -> None:
    text = planted.run(pipelinectl_command("--config", planted.configured(), "config", *command))
    assert planted.seen(text) == set(), planted.where(text)
    assert "SECRET_1" in text if command[0] == "show" else "ok: " in text


@pytest.mark.parametrize("key", KEYS)
def test_a_secret_that_was_given_as_itself_is_refused_and_not_repeated(planted: Planted, key: str) -> None:
    file = planted.configured(**{key: KEYS[key]})
    for command in (["config", "check"], ["config", "show"]):
        text = planted.run(pipelinectl_command("--config", file, *command))
        assert planted.seen(text) == set()
        assert f"{key} " in text
        assert "by reference" in text


def test_a_secret_is_found_where_it_is_shown(planted: Planted) -> None:
    """The search itself: were a secret there, plain or encoded, it would be seen."""
    for name, secret in planted.secrets.items():
        assert name in planted.seen(f"x{secret}x")
        assert name in planted.seen(base64.b64encode(secret.encode()).decode())
    assert len(KEYS) == len(set(KEYS.values())) >= 10
