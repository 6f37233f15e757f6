"""``pipelinectl load``: events from a file."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click

from pipelined.config import Config
from pipelined.crashpoints import enter
from pipelined.errors import ExitCode
from pipelined.sources.file import Loaded, load_file

__all__ = ["load"]

_REPORTED = 20


@click.command()
@click.argument("file", type=click.Path(allow_dash=True))
@click.option("--restart", is_flag=True, help="Begin at the first line, whatever was loaded before.")
@click.pass_obj
def load(obj: Callable[[], Config], file: str, restart: bool) -> int:
    """Put the events of FILE, one JSON object a line, onto events.raw.

    FILE may be - for standard input. Each line is loaded once: after an interruption the same command
    goes on behind the last line that is safely in Kafka. A line that is no event is reported with its
    number, goes the same way, and ends in events.dlq with its bytes.

    \b
    Example:
      pipelinectl load export-2026-01-05.jsonl
      zcat export.jsonl.gz | pipelinectl load -
    """  # noqa: D301 - click takes the character \\b for a paragraph to keep
    stopped: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda caught, _frame: stopped.append(caught))
    config = obj()
    enter("load")
    display = _Display(file)
    loaded = load_file(
        config,
        file,
        restart=restart,
        progress=display.progress,
        report=display.report,
        should_stop=lambda: bool(stopped),
    )
    display.end(loaded)
    return int(ExitCode.OK if loaded.complete else ExitCode.INTERRUPTED)


class _Display:
    """A progress bar on a terminal, a line every two seconds elsewhere; on standard error."""

    def __init__(self, file: str) -> None:
        self._size = 0 if file == "-" or not Path(file).is_file() else Path(file).stat().st_size
        self._terminal = sys.stderr.isatty()
        self._began = time.monotonic()
        self._said = self._began
        self._reported = 0

    def progress(self, position: int, loaded: Loaded) -> None:
        now = time.monotonic()
        rate = loaded.lines / max(0.001, now - self._began)
        if self._terminal:
            share = position / self._size if self._size else 0.0
            bar = f"[{'#' * round(share * 30):<30}] {share:4.0%} " if self._size else ""
            click.echo(f"\r{bar}{loaded.lines:,} lines, {rate:,.0f}/s ", nl=False, err=True)
        elif now - self._said >= 2:
            self._said = now
            click.echo(f"{loaded.lines:,} lines, {rate:,.0f}/s", err=True)

    def report(self, line: int, text: str) -> None:
        self._reported += 1
        if self._reported <= _REPORTED:
            start = "\r\033[K" if self._terminal else ""
            click.echo(f"{start}line {line}: {text}; it goes to events.dlq", err=True)
        elif self._reported == _REPORTED + 1:
            click.echo("more such lines are counted, not listed", err=True)

    def end(self, loaded: Loaded) -> None:
        if self._terminal:
            click.echo("\r\033[K", nl=False, err=True)
        if loaded.first:
            click.echo(f"went on behind line {loaded.first:,}; --restart begins at the first", err=True)
        seconds = time.monotonic() - self._began
        click.echo(
            f"{loaded.events:,} events and {loaded.unreadable:,} lines that are no event are on events.raw "
            f"({loaded.blank:,} blank lines left out), in {seconds:.1f} s"
        )
        if not loaded.complete:
            click.echo("interrupted; the same command goes on from here", err=True)
