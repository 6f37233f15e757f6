"""Which URLs may be fetched, judged by their text alone; the address is judged when it is connected to."""

from __future__ import annotations

import functools
import ipaddress
import re
from urllib.parse import quote

from pipelined.config.tree import Urls
from pipelined.errors import PermanentError

__all__ = ["UrlPolicy", "host_of", "wire_url"]

#: Scheme, authority, rest. Stricter than RFC 3986, so that no two parsers can read a URL differently.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)")
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]@]+)(?::([0-9]{0,5}))?")
_HOST = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
_DEFAULT_PORTS = {"https": 443, "http": 80}
_CACHE_LIMIT = 10_000


def _ascii_host(host: str) -> str:
    """A host name as DNS knows it: lower case, IDNA, without the root's dot. ValueError if it is none."""
    host = host.lower()
    if not host.isascii():
        host = host.encode("idna").decode("ascii")  # UnicodeError is a ValueError
    host = host.removesuffix(".")
    if host.startswith("["):
        return f"[{ipaddress.IPv6Address(host[1:-1])}]"
    if len(host) > 253 or not _HOST.fullmatch(host):
        raise ValueError(host)
    return host


@functools.lru_cache(maxsize=_CACHE_LIMIT)
def _host(scheme: str, authority: str) -> str:
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None:
        return ""
    default = _DEFAULT_PORTS[scheme.lower()]
    port = int(parts[2]) if parts[2] else default
    return _ascii_host(parts[1]) + (f":{port}" if port != default else "")


def host_of(url: str) -> str:
    """Who answers a URL the policy has allowed: its host, with the port where that is not the scheme's own.

    Another port is another server, which may well be up when this one is down.
    """
    match = _URL.match(url)
    return _host(match[1], match[2]) if match else ""


def wire_url(url: str) -> str:
    """An allowed URL as it goes over the wire: ASCII only, everything else percent-encoded or IDNA."""
    match = _URL.match(url)
    if url.isascii() or not match:
        return url
    authority = _AUTHORITY.fullmatch(match[2])
    host = match[2] if authority is None else match[2].replace(authority[1], _ascii_host(authority[1]), 1)
    return f"{match[1]}://{host}{quote(url[match.end() :], safe=_ASCII)}"


_ASCII = "".join(map(chr, range(0x21, 0x7F)))


class UrlPolicy:
    """The URL policy of the ``[urls]`` section. ``check`` raises what is wrong with a URL.

    The verdict on a scheme and authority is kept, so that a check in a hot path costs about a microsecond.
    """

    def __init__(self, urls: Urls) -> None:
        self._schemes = {"https", "http"} if urls.allow_http else {"https"}
        self._ports = frozenset(urls.allowed_ports)
        names = [name.strip().lower() for name in urls.allowed_hosts]
        self._exact = frozenset(_configured(name) for name in names if not name.startswith("*."))
        self._suffixes = tuple("." + _configured(name[2:]) for name in names if name.startswith("*."))
        self._verdicts: dict[str, tuple[str, str] | None] = {}

    def check(self, url: str) -> None:
        """Return if the URL may be fetched; else raise PermanentError with a code that begins with ``url_``.

        The text of the error shows no part of the URL behind its host, so no signature.
        """
        # isprintable: neither control characters nor any white space but the blank.
        if not url.isprintable() or " " in url or "\\" in url:
            raise PermanentError(
                "url_characters", "the URL contains white space, control characters or backslashes"
            )
        match = _URL.match(url)
        if match is None:
            raise PermanentError("url_malformed", "the URL is not of the form https://host/path")
        start = match[0]
        try:
            verdict = self._verdicts[start]
        except KeyError:
            if len(self._verdicts) >= _CACHE_LIMIT:
                self._verdicts.clear()
            verdict = self._verdicts[start] = self._judge(match[1].lower(), match[2])
        if verdict is not None:
            raise PermanentError(*verdict)

    def _judge(self, scheme: str, authority: str) -> tuple[str, str] | None:
        """Code and message of what is wrong with a scheme and authority; None if nothing is."""
        if scheme not in self._schemes:
            return "url_scheme", f"the scheme {scheme[:20]!r} is not allowed; https is"
        if "@" in authority:
            return "url_userinfo", "the URL carries user-info, which is not allowed"
        parts = _AUTHORITY.fullmatch(authority)
        if parts is None:
            return "url_malformed", f"the URL has no readable host: {authority[:100]!r}"
        try:
            host = _ascii_host(parts[1])
        except ValueError:
            return "url_host", f"{parts[1][:100]!r} is not a host name"
        if host not in self._exact and not host.endswith(self._suffixes):
            return "url_host", f"the host {host!r} is not on the list urls.allowed_hosts"
        port = int(parts[2]) if parts[2] else _DEFAULT_PORTS[scheme]
        if port not in self._ports:
            return "url_port", f"port {port} is not on the list urls.allowed_ports"
        return None


def _configured(name: str) -> str:
    """A host of the allow-list in the form URLs are compared in."""
    if ":" in name and not name.startswith("["):
        name = f"[{name}]"
    try:
        return _ascii_host(name)
    except ValueError:
        return name  # matches no URL: what cannot be a host never passes the check before it
