"""Lengths of time, as an operator types and reads them: ``30s``, ``2m``, ``1h30m``."""

from __future__ import annotations

import math
import re

import click

__all__ = ["duration", "length", "short"]

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = r"(\d+(?:\.\d*)?|\.\d+)(ms|s|m|h|d)"


def length(text: str) -> float | None:
    """The seconds of ``30s``, ``2m``, ``1h30m``, ``500ms`` or ``3d``; None where it is nothing like that."""
    given = text.strip().lower()
    if not re.fullmatch(f"(?:{_PART})+", given):
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in re.findall(_PART, given))


def duration(text: str) -> float:
    """A length of time in seconds: a :func:`length`, or a number of seconds.

    The ``type`` of an option; click's own error where it is no length of time.
    """
    if (seconds := length(text)) is not None:
        return seconds
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < math.inf:
        raise click.BadParameter(f"{text!r} is no length of time; write it as 30s, 2m or 1h30m")
    return value


def short(seconds: float) -> str:
    """A length of time by its two largest units: ``12s``, ``3m12s``, ``5h04m``, ``3d07h``."""
    whole = max(0, int(seconds))
    for unit, below, size in (("d", "h", 86400), ("h", "m", 3600), ("m", "s", 60)):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // int(_UNITS[below]):02d}{below}"
    return f"{whole}s"
