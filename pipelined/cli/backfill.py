"""``pipelinectl backfill``: a range of the Eventhouse's table, beside the live poll."""

from __future__ import annotations

import datetime as dt
import re
import signal
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from pipelined.config import Config
from pipelined.crashpoints import enter
from pipelined.errors import AuthError, ConfigError, DependencyError, ExitCode, UnavailableError, UsageError
from pipelined.messages.codec import iso, parse_time

if TYPE_CHECKING:
    # The clients of tables and of the Eventhouse are slow to import, and needed by no other command.
    from pipelined.sources.eventhouse.range import Range
    from pipelined.workers.backfill import Filled

__all__ = ["backfill"]

_RATE = re.compile(r"([0-9][0-9,_]*)(?:/s)?")
_NEEDED = ("url", "database", "table")
#: A reason to wait is told again after so long.
_SAID_S = 10.0
_LINE_S = 2.0


def _rate(_context: click.Context, _option: click.Parameter, value: str | None) -> float:
    found = _RATE.fullmatch(value.strip()) if value is not None else None
    rate = int(re.sub("[,_]", "", found.group(1))) if found else 0
    if value is not None and not rate:
        raise click.BadParameter(f"{value!r} is not a number of rows a second, such as 2000/s")
    return float(rate)


@click.command()
@click.option("--from", "start", metavar="TIME", help="Rows ingested at this time or later …")
@click.option(
    "--to", "end", metavar="TIME", help="… and before this one. Times are UTC unless they say otherwise."
)
@click.option("--from-cursor", metavar="CURSOR", help="Instead: rows behind this database cursor …")
@click.option("--to-cursor", metavar="CURSOR", help="… until this one.")
@click.option("--rate", callback=_rate, metavar="N/s", help="At most so many rows a second.")
@click.option(
    "--table-known/--no-table-known",
    default=True,
    help="Leave out what stands in the table xact_events (the default), or do not look there.",
)
@click.option("--restart", is_flag=True, help="Begin at the range's first row, whatever was done before.")
@click.pass_obj
def backfill(
    obj: Callable[[], Config],
    start: str | None,
    end: str | None,
    from_cursor: str | None,
    to_cursor: str | None,
    rate: float,
    table_known: bool,
    restart: bool,
) -> int:
    """Put a range of the Eventhouse's table onto events.raw, beside the live poll.

    The range is one of ingestion times. It waits for nothing but its turn: a page is sent only while no
    stage of the daemon is further behind than a few thousand records. Rows that the pipeline took before
    are left out: the event-ingester knows those of the last hours (ingest.dedup_horizon_hours), the table
    those before.

    Ctrl-C ends it, and the same command goes on behind the last row that is safely in Kafka, also after
    kill -9. A second one of the same range ends the first one.

    \b
    Example:
      pipelinectl backfill --from 2026-01-05 --to 2026-01-06
      pipelinectl backfill --from 2026-01-05T14:00:00Z --to 2026-01-05T16:00:00Z --rate 2000/s
    """  # noqa: D301 - click takes the character \\b for a paragraph to keep
    from pipelined.workers.backfill import Backfill

    stopped: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda caught, _frame: stopped.append(caught))
    config = obj()
    if missing := [f"eventhouse.{name}" for name in _NEEDED if not getattr(config.eventhouse, name)]:
        raise ConfigError([f"{name} is needed: it says where the rows are" for name in missing])
    span = _range(start, end, from_cursor, to_cursor)
    enter("backfill")
    display = _Display()
    run = Backfill(config, span, display, lambda: bool(stopped), rate=rate, table_known=table_known)
    try:
        filled = run.run(restart=restart)
    except (AuthError, DependencyError) as error:
        raise UnavailableError(f"{error}; the same command goes on from where it ended") from error
    finally:
        display.clear()
    display.end(filled)
    return int(ExitCode.OK if filled.complete else ExitCode.INTERRUPTED)


def _range(start: str | None, end: str | None, from_cursor: str | None, to_cursor: str | None) -> Range:
    from pipelined.sources.eventhouse.range import Range

    if start and end and from_cursor is None and to_cursor is None:
        span = Range.times(start, end)
        now = iso(dt.datetime.now(dt.UTC))
        if parse_time(span.end) > parse_time(now):
            raise UsageError(f"--to {end} lies in the future (it is {now}): what comes then, the poll takes")
        return span
    if from_cursor is not None and to_cursor and not start and not end:
        return Range(from_cursor, to_cursor, by_cursor=True)
    raise UsageError("give --from and --to, or --from-cursor and --to-cursor")


class _Display:
    """A progress bar on a terminal, a line every two seconds elsewhere; on standard error."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._began = time.monotonic()
        self._said = 0.0
        self._why = ""
        self._why_said = 0.0

    def progress(self, filled: Filled) -> None:
        """How far it is, and how long it takes."""
        now = time.monotonic()
        if not self._terminal and now - self._said < _LINE_S:
            return
        self._said = now
        done, rate = filled.first + filled.rows, filled.rows / max(0.001, now - self._began)
        of, share = "", None
        if filled.total is not None:
            of = f" of about {filled.total:,}"
            share = min(1.0, done / filled.total) if filled.total else 1.0
        line = f"{done:,}{of} rows, {filled.known:,} known, {rate:,.0f}/s"
        if filled.total is not None and filled.rows:
            line += f", {_time(max(0, filled.total - done) / max(rate, 0.001))} left"
        if not self._terminal:
            click.echo(line, err=True)
            return
        bar = "" if share is None else f"[{'#' * round(share * 30):<30}] {share:4.0%} "
        click.echo(f"\r\033[K{bar}{line} ", nl=False, err=True)

    def waits(self, why: str) -> None:
        """Why nothing is sent for now; not again and again."""
        now = time.monotonic()
        kind = re.sub("[0-9]+", "", why)
        if kind == self._why and now - self._why_said < _SAID_S:
            return
        self._why, self._why_said = kind, now
        self.clear()
        click.echo(f"waiting: {why}", err=True)

    def clear(self) -> None:
        """Leave no half line behind."""
        if self._terminal:
            click.echo("\r\033[K", nl=False, err=True)

    def end(self, filled: Filled) -> None:
        """What became of it."""
        if filled.complete and filled.first and not filled.rows:
            click.echo(f"done already: {filled.first:,} rows; --restart goes through them again")
            return
        if filled.first:
            click.echo(f"went on behind row {filled.first:,}; --restart begins at the first", err=True)
        sent, seconds = filled.rows - filled.known, time.monotonic() - self._began
        click.echo(
            f"{filled.rows:,} rows read: {sent:,} are on events.raw, {filled.known:,} were in the table "
            f"already; {seconds:.1f} s"
        )
        if not filled.complete:
            click.echo("interrupted; the same command goes on from here", err=True)


def _time(seconds: float) -> str:
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes:02} min" if hours else f"{minutes} min {left:02} s" if minutes else f"{left} s"
    )
