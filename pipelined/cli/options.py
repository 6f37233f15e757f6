"""Options that several commands have: each is declared once."""

from __future__ import annotations

import contextlib

import click

from pipelined.cli.durations import duration
from pipelined.cli.moments import moment

__all__ = ["amount", "as_json_lines", "ended_by_ctrl_c", "follow", "lines", "since", "timeout"]

_LINES = 50

timeout = click.option(
    "--timeout",
    type=duration,
    metavar="TIME",
    help="How long to wait until it is done, such as 30s or 2m; 0: not at all. Without it: as long as the "
    "configuration allows.",
)
since = click.option(
    "--since",
    type=moment,
    metavar="WHEN",
    help="Since a time (2026-11-24T09:30, UTC unless it says otherwise) or for so long (10m, 1h30m, 3d).",
)
lines = click.option(
    "--lines",
    type=click.IntRange(min=0),
    metavar="N",
    help=f"The last N. Without it: {_LINES}, or with --since all.",
)
follow = click.option("--follow", "-f", is_flag=True, help="Go on with what comes, until Ctrl-C.")
as_json_lines = click.option("--json", "as_json", is_flag=True, help="As one JSON object a line.")


def amount(lines: int | None, since: float | None) -> int | None:
    """How many of the last ones are asked for by --lines and --since; None: all of them."""
    if lines is not None:
        return lines
    return _LINES if since is None else None


def ended_by_ctrl_c(*, follows: bool = True) -> contextlib.suppress:
    """What goes on until Ctrl-C: that is its end, with exit code 0.

    Where it does not go on (``follows`` is False), it is interrupted as any other command.
    """
    return contextlib.suppress(*([KeyboardInterrupt] if follows else []))
