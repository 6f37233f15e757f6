"""A moment on the command line: a time, or how long ago it was."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

import click

__all__ = ["moment"]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_AGO = re.compile(r"(\d+(?:\.\d+)?)([smhd])")


def moment(text: str) -> float:
    """``90s``, ``10m``, ``2h``, ``3d`` (ago), or an ISO 8601 time, in UTC unless it says otherwise.

    The type of a click option; the value is in epoch seconds. Raises click's error where it is no moment.
    """
    if ago := _AGO.fullmatch(text.strip()):
        return time.time() - float(ago[1]) * _UNITS[ago[2]]
    try:
        when = datetime.fromisoformat(text.strip())
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is neither like 10m, 2h or 3d nor like 2026-11-24T09:30"
        ) from None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
