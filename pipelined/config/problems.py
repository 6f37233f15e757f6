"""A problem of a configuration, and the shapes of what is often judged: hosts, addresses, paths."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

__all__ = ["Problem", "is_address", "is_host", "relative"]

_HOST = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*")


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and the keys it is about. ``text`` begins with the key to change."""

    keys: tuple[str, ...]
    text: str


def is_address(text: str) -> bool:
    """Whether this is host:port (an IPv6 address in brackets)."""
    host, _, port = text.rpartition(":")
    return is_host(host, brackets=True) and port.isascii() and port.isdigit() and 0 < int(port) < 65536


def is_host(text: str, *, brackets: bool = False) -> bool:
    """Whether this is a host name or an address; with ``brackets``, IPv6 must stand in them."""
    if _HOST.fullmatch(text):
        return True
    if brackets and not (text.startswith("[") and text.endswith("]")):
        return False
    try:
        ipaddress.IPv6Address(text.strip("[]") if brackets else text)
    except ValueError:
        return False
    return True


def relative(key: str, path: str) -> Problem:
    """The problem of a path that is not absolute."""
    return Problem((key,), f'{key}: "{path}" is not allowed: expected an absolute path')
