"""Azurite, Microsoft's own emulator of Azure Blob Storage, with an account of the test's own."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import hashlib
import hmac
import os
import re
import secrets
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import npmparts
import realparts
from waiting import until

__all__ = ["ALL_RIGHTS", "Azurite", "azurite"]

FILES = Path(__file__).with_name("azurite")
#: read, write, delete, list, add, create
ALL_RIGHTS = "rwdlac"
_ACCOUNT = "tests"
_VERSION = "2022-11-02"
_LISTENS = re.compile(r"listens on (http://\S+)")


class Azurite:
    """One that runs, at ``url``, which has the account."""

    def __init__(self, address: str, key: bytes) -> None:
        self.url = f"{address}/{_ACCOUNT}"
        self._key = key

    def environment(self, rights: str = "") -> dict[str, str]:
        """What leads a client there: with the account's key, or with these rights only."""
        key = base64.b64encode(self._key).decode()
        login = (
            {"AZURE_STORAGE_SAS_KEY": self._signed(rights)} if rights else {"AZURE_STORAGE_ACCOUNT_KEY": key}
        )
        return login | {
            "AZURE_STORAGE_ACCOUNT_NAME": _ACCOUNT,
            "AZURE_STORAGE_ENDPOINT": self.url,
            "AZURE_STORAGE_ALLOW_HTTP": "true",
            "AZURE_ALLOW_HTTP": "true",
        }

    def make_container(self, name: str) -> None:
        """A new one, empty."""
        url = f"{self.url}/{name}?restype=container&{self._signed(ALL_RIGHTS)}"
        with urllib.request.urlopen(urllib.request.Request(url, method="PUT"), timeout=20) as answer:
            assert answer.status == 201

    def blobs(self, container: str) -> list[str]:
        """The names of all blobs there."""
        url = f"{self.url}/{container}?restype=container&comp=list&{self._signed(ALL_RIGHTS)}"
        with urllib.request.urlopen(url, timeout=20) as answer:
            return re.findall("<Name>([^<]*)</Name>", answer.read().decode())

    def _signed(self, rights: str) -> str:
        """A shared access signature of the account, for an hour."""
        end = (dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        text = "\n".join([_ACCOUNT, rights, "b", "sco", "", end, "", "", _VERSION, "", ""])
        signature = base64.b64encode(hmac.new(self._key, text.encode(), hashlib.sha256).digest()).decode()
        fields = {"sv": _VERSION, "ss": "b", "srt": "sco", "sp": rights, "se": end, "sig": signature}
        return urllib.parse.urlencode(fields)


@contextlib.contextmanager
def azurite(folder: Path) -> Iterator[Azurite]:
    """Started on a port that it takes itself, its data in memory; ended at the end."""
    installed, missing = npmparts.installed(FILES)
    realparts.require("Azurite", missing)
    key, log = secrets.token_bytes(32), folder / "azurite.log"
    command = [
        *("node", str(installed / "node_modules/azurite/dist/src/blob/main.js")),
        *("--blobHost", "127.0.0.1", "--blobPort", "0"),
        *("--inMemoryPersistence", "--silent", "--disableTelemetry"),
    ]
    environment = os.environ | {"AZURITE_ACCOUNTS": f"{_ACCOUNT}:{base64.b64encode(key).decode()}"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=folder, env=environment
        )
    try:

        def address() -> str | None:
            assert process.poll() is None, log.read_text()
            found = _LISTENS.search(log.read_text())
            return found[1] if found else None

        started = until(address, "Azurite listens")
        assert started is not None
        yield Azurite(started, key)
    finally:
        process.kill()
        process.wait()
