"""Tokens that something else renews in a file."""

from __future__ import annotations

import datetime as dt
import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from pipelined.auth.grant import REFUSED_S, expiry_of, is_token
from pipelined.errors import AuthError

__all__ = ["TokenFile"]

#: A file changed so shortly ago may change once more without another time stamp.
_SETTLED_S = 2.0


class TokenFile:
    """See :class:`pipelined.auth.provider.TokenProvider`.

    The file is one token, or a JSON object of tokens by host, where that of the first of ``hosts`` that
    is there counts. It is read again as soon as it has changed.
    """

    def __init__(self, path: str, hosts: Sequence[str], section: str) -> None:
        self._path = Path(path)
        self._hosts = [_host(host) for host in hosts if host]
        self._section = section
        self._lock = threading.Lock()
        self._seen: tuple[int, ...] | None = None
        self._token = ""
        self._expires_at: float | None = None
        self._refused, self._refused_until = "", 0.0

    @property
    def expires_at(self) -> float | None:
        """When the token in hand ends, where it says so."""
        return self._expires_at

    def token(self) -> str:
        """The token as the file has it now; raises AuthError where it has none, or the refused one still."""
        with self._lock:
            self._look()
            if self._token == self._refused and time.monotonic() < self._refused_until:
                raise AuthError(
                    "token_refused",
                    f"{self._section}: the service refused the token in {self._path}{self._ended()}; put a "
                    "new one there, for this service and an identity with the rights on it",
                )
            return self._token

    def refresh(self, refused: str = "") -> None:
        """Do not use the token in hand again, but another one as soon as it is in the file."""
        with self._lock:
            if self._token and refused in ("", self._token):
                self._refused, self._refused_until = self._token, time.monotonic() + REFUSED_S

    def close(self) -> None:
        """Nothing is held open."""

    def _ended(self) -> str:
        if self._expires_at is None or self._expires_at > time.time():
            return ""
        return (
            f", which expired at {dt.datetime.fromtimestamp(self._expires_at, dt.UTC):%Y-%m-%d %H:%M:%S} UTC"
        )

    def _look(self) -> None:
        try:
            stat = self._path.stat()
            seen = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
            if seen == self._seen:
                return
            self._seen, self._token, self._expires_at = None, "", None
            text = self._path.read_text(encoding="utf-8-sig").strip()
        except OSError as error:
            self._seen, self._token, self._expires_at = None, "", None
            raise AuthError(
                "token_file",
                f"{self._section}.token_file: {self._path} cannot be read: {error.strerror or error}",
            ) from None
        except UnicodeDecodeError:
            raise AuthError(
                "token_file", f"{self._section}.token_file: {self._path} is not UTF-8 text"
            ) from None
        self._token = self._chosen(text)
        self._expires_at = expiry_of(self._token)
        if abs(time.time() - max(stat.st_mtime, stat.st_ctime)) > _SETTLED_S:
            self._seen = seen

    def _chosen(self, text: str) -> str:
        token: object = text
        if text.startswith("{"):
            try:
                tokens = {_host(key): value for key, value in json.loads(text).items()}
            except ValueError:
                raise AuthError(
                    "token_file", f"{self._section}.token_file: {self._path} is no valid JSON"
                ) from None
            token = next((tokens[host] for host in self._hosts if host in tokens), None)
            if token is None:
                raise AuthError(
                    "token_file",
                    f"{self._section}.token_file: {self._path} has no token for {' or '.join(self._hosts)}",
                )
        if not isinstance(token, str) or not is_token(token):
            raise AuthError(
                "token_file",
                f"{self._section}.token_file: {self._path} holds no token: expected one line of it, or a "
                "JSON object of tokens by host",
            )
        return token


def _host(text: str) -> str:
    """The host of a key, which may be written as a URL."""
    return (
        text.strip().lower().partition("://")[2].partition("/")[0] if "://" in text else text.strip().lower()
    )
