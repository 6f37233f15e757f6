"""A moment on the command line: a time, or how long ago it was."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import click

from pipelined.cli.durations import length

__all__ = ["moment"]


def moment(text: str) -> float:
    """``10m``, ``1h30m``, ``3d`` (so long ago), or an ISO 8601 time, in UTC unless it says otherwise.

    The type of a click option; the value is in epoch seconds. Raises click's error where it is no moment.
    """
    if (ago := length(text)) is not None:
        return time.time() - ago
    try:
        when = datetime.fromisoformat(text.strip())
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is neither like 10m, 2h or 3d nor like 2026-11-24T09:30"
        ) from None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
