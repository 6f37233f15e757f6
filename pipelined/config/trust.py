"""Where a secret may be sent to: over https to a host that is known, or to this very machine."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from urllib.parse import urlsplit

__all__ = ["is_loopback", "may_carry_token"]

#: What parsers of URLs disagree about, or drop without a word.
_ODD = re.compile(r"[^\x21-\x7e]|\\")


def is_loopback(host: str) -> bool:
    """Whether a host, without brackets, is this machine: localhost, 127.0.0.0/8 or ::1."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def may_carry_token(url: str, suffixes: Iterable[str]) -> bool:
    """Whether a token, or a secret, may go to this http or https URL.

    It may where the host is this machine, and over https where the host is one of ``suffixes``
    ("kusto.windows.net") or lies below one. Never with a user's name in the URL.
    """
    if _ODD.search(url):
        return False
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return False
    if not host or "@" in parts.netloc or parts.scheme not in ("http", "https"):
        return False
    if is_loopback(host):
        return True
    known = any(host == suffix or host.endswith("." + suffix) for suffix in suffixes)
    return known and parts.scheme == "https"
