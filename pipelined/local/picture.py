"""The live picture of a run: one line that moves on a terminal, plain lines elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from types import TracebackType
from typing import Self

import click

from pipelined.ledger.follower import Progress
from pipelined.ledger.origins import TITLES

__all__ = ["Picture"]

_EVERY_TERMINAL_S = 0.2
_EVERY_LINE_S = 2.0


class Picture:
    """Shows how far the pipeline is; a context manager that leaves the last line standing."""

    def __init__(self, began: float) -> None:
        self._began = began
        self._terminal = sys.stdout.isatty()
        self._due = 0.0
        self._last = (0.0, 0, 0)
        self._rates = (0.0, 0.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._terminal:
            click.echo()

    def show(self, progress: Progress, *, last: bool = False) -> None:
        """Show the progress, if it is time to."""
        now = time.monotonic()
        if now < self._due and not last:
            return
        self._due = now + (_EVERY_TERMINAL_S if self._terminal else _EVERY_LINE_S)
        then, events, files = self._last
        if now - then >= 1.0:
            accounted = progress.ingested + progress.events_dlq
            if then:
                self._rates = (
                    (accounted - events) / (now - then),
                    (progress.completed - files) / (now - then),
                )
            self._last = (now, accounted, progress.completed)
        # What a source holds is asked for less often than what has come of it.
        sources = "".join(
            f"{TITLES[name][0]} {taken:,} of {max(held, taken):,} | "
            for name, held, taken in progress.sources
        )
        line = (
            f"[{now - self._began:5.1f} s] {sources}"
            f"events {progress.events_raw:,} in, {progress.event_rows:,} rows ({self._rates[0]:,.0f}/s) | "
            f"files {progress.completed:,} of {progress.attachments:,} ({self._rates[1]:,.0f}/s), "
            f"{progress.attachment_rows:,} rows | retrying {progress.retrying:,} | "
            f"DLQ {progress.events_dlq + progress.downloads_dlq:,}"
        )
        if self._terminal:
            # A line that wraps could not be written over.
            click.echo(f"\r\033[K{line[: shutil.get_terminal_size().columns - 1]}", nl=False)
        else:
            click.echo(line)
