"""The status again and again: on a terminal in place, as ``top`` does it; else a block for each look."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import termios
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

import click

from pipelined.cli.durations import short
from pipelined.cli.options import ended_by_ctrl_c
from pipelined.cli.table import WIDE, lines, wrapped
from pipelined.errors import ExitCode, UnavailableError

__all__ = ["as_json", "as_text"]

Look = Callable[[], dict[str, Any]]

_ENTER = "\x1b[?1049h\x1b[?25l"
_LEAVE = "\x1b[?25h\x1b[?1049l"
_HOME, _REST_OF_LINE, _REST_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"
#: After a change of the terminal's size, or a Ctrl-Z, it is drawn anew at once.
_REDRAW = (signal.SIGWINCH, signal.SIGCONT)
#: Nobody reads faster, and the daemon has other things to do.
_LEAST_S = 0.1


def as_json(look: Look, every: float, *, colour: bool) -> int:
    """One JSON object a line for each look, until Ctrl-C; that nobody answers is told on stderr."""
    del colour
    with ended_by_ctrl_c():
        while True:
            began = time.monotonic()
            try:
                click.echo(json.dumps(look(), ensure_ascii=False))
            except UnavailableError as error:
                click.echo(f"error: {error}", err=True)
            time.sleep(_rest(every, began))
    return int(ExitCode.OK)


def as_text(look: Look, every: float, *, colour: bool) -> int:
    """The sentence and the table for each look, until Ctrl-C; also across a restart of the daemon."""
    view = _View(look)
    with ended_by_ctrl_c():
        if not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb":
            while True:
                began = time.monotonic()
                click.echo("\n".join([*view.lines(WIDE, colour=False), ""]))
                time.sleep(_rest(every, began))
        with _Screen():
            while True:
                began = time.monotonic()
                size = shutil.get_terminal_size()
                head = f"every {every:g} s, Ctrl-C ends it - {time.strftime('%H:%M:%S')}"
                _draw([head, *view.lines(size.columns, colour=colour)], size.columns, size.lines)
                signal.sigtimedwait(_REDRAW, _rest(every, began))
    return int(ExitCode.OK)


class _View:
    """What to show now: the status, or since when there is none."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self._gone_since: float | None = None

    def lines(self, width: int, *, colour: bool) -> list[str]:
        try:
            document = self._look()
        except UnavailableError as error:
            if self._gone_since is None:
                self._gone_since = time.monotonic()
            gone = short(time.monotonic() - self._gone_since)
            told = f"no answer for {gone}: {error}"
            return [*wrapped(told, width), "it is shown here as soon as it is back"]
        self._gone_since = None
        return lines(document, width, colour=colour)


def _rest(every: float, began: float) -> float:
    return max(_LEAST_S, every - (time.monotonic() - began))


def _draw(shown: list[str], width: int, height: int) -> None:
    """Write over what stands there, in one write: nothing is cleared before, so that nothing flickers."""
    if len(shown) > height:
        shown = [*shown[: height - 1], f"({len(shown) - height + 1} more lines; make the window higher)"]
    text = "\r\n".join(_cut(line, width) + _REST_OF_LINE for line in shown)
    _write(_HOME + text + _REST_OF_SCREEN)


def _cut(line: str, width: int) -> str:
    """A line that fits; one with colours, of the table or cut as if it had none."""
    plain = click.unstyle(line)
    return line if len(plain) <= width else plain[: width - 1] + "…"


class _Screen:
    """The alternate screen, no cursor, no echo; all as it was before, whatever ends or stops us."""

    def __init__(self) -> None:
        self._before = termios.tcgetattr(sys.stdin.fileno()) if sys.stdin.isatty() else None

    def __enter__(self) -> None:
        sys.stdout.flush()
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, _REDRAW)
        handlers = {signal.SIGTERM: self._end, signal.SIGHUP: self._end, signal.SIGTSTP: self._suspend}
        self._handlers = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        self._take()

    def __exit__(self, *_: object) -> None:
        self._give_back()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def _take(self) -> None:
        _write(_ENTER)
        if self._before is not None:  # what is typed does not show: a ^C, for one
            quiet = [*self._before]
            quiet[3] &= ~termios.ECHO
            termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, quiet)

    def _give_back(self) -> None:
        _write(_LEAVE)
        if self._before is not None:
            termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, self._before)

    def _end(self, number: int, _frame: FrameType | None) -> NoReturn:
        raise click.exceptions.Exit(128 + number)

    def _suspend(self, number: int, _frame: FrameType | None) -> None:
        """Ctrl-Z: the shell gets its screen; we go on where it says so."""
        self._give_back()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        signal.signal(number, self._suspend)
        self._take()


def _write(text: str) -> None:
    """At once and without a buffer: a signal may come while we write, and write as well."""
    rest = text.encode(errors="replace")
    while rest:
        rest = rest[os.write(sys.stdout.fileno(), rest) :]
