"""Setting up the log of a process: one handler on the root logger, to the standard error stream."""

from __future__ import annotations

import logging
import os
import sys
import threading
from pathlib import Path
from types import TracebackType

from pipelined.config.tree import Logs
from pipelined.logs import journal
from pipelined.logs.formats import JournalFormat, JsonFormat, TextFormat
from pipelined.logs.handler import PATIENCE_MS, DescriptorHandler
from pipelined.logs.journal import Journal, JournalHandler
from pipelined.logs.repeats import Repeats
from pipelined.logs.rotation import RotatedFile, is_behind

__all__ = ["dropped", "setup", "tick"]

_STDERR = 2


def setup(
    settings: Logs,
    *,
    worker: str,
    index: int,
    instance: str = "",
    descriptor: int = _STDERR,
    patience_ms: int = PATIENCE_MS,
    file: Path | None = None,
) -> None:
    """Log as configured, to ``descriptor``, in the name of this worker. Every process calls it once, a
    child after its fork again: what was set up before is taken down.

    ``instance`` names the process among those of all hosts. ``patience_ms`` is how long one line may wait
    for a reader that is slow, before this reader counts as stalled. Uncaught exceptions and warnings go to
    the log as well, since they may carry what must be masked.

    ``file`` is for the parent: where it is what ``descriptor`` writes to, :func:`tick` keeps it small; the
    processes that are forked from here follow by theirs.
    """
    root = logging.getLogger()
    rotated = RotatedFile(file, settings) if file is not None and is_behind(file, descriptor) else None
    for old in _handlers():
        root.removeHandler(old)
        old.conclude()
        old.close()
        rotated = rotated or old.file
    handler = _handler(settings, (worker, index, instance), descriptor, patience_ms)
    handler.file = rotated
    root.addHandler(handler)
    root.setLevel(settings.level)
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread


def dropped() -> int:
    """How many lines this process could not write since its :func:`setup`."""
    return sum(handler.dropped for handler in _handlers())


def tick() -> None:
    """Now and then: what was only counted is told, and the log goes on in the next file where one is full."""
    for handler in _handlers():
        handler.tick()
        if handler.file is not None:
            handler.file.look()


def _handlers() -> list[DescriptorHandler]:
    return [each for each in logging.getLogger().handlers if isinstance(each, DescriptorHandler)]


def _handler(
    settings: Logs, who: tuple[str, int, str], descriptor: int, patience_ms: int
) -> DescriptorHandler:
    name, terminal, repeats = settings.format, os.isatty(descriptor), Repeats(settings.repeats)
    if name == "auto":
        name = "text" if terminal else "journal" if _is_journal(descriptor) else "json"
    if name == "journal":
        return JournalHandler(descriptor, JournalFormat(*who), repeats, Journal(journal.SOCKET, patience_ms))
    handler = DescriptorHandler(descriptor, repeats, patience_ms)
    colour = terminal and not os.environ.get("NO_COLOR")
    handler.setFormatter(JsonFormat(*who) if name == "json" else TextFormat(*who, colour=colour))
    return handler


def _is_journal(descriptor: int) -> bool:
    """Whether systemd connected this very descriptor to journald (it says so in JOURNAL_STREAM)."""
    status = os.fstat(descriptor)
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    logging.getLogger("pipelined").critical("Uncaught exception", exc_info=(kind, error, trace))


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not issubclass(args.exc_type, SystemExit):
        name = args.thread.name if args.thread else "?"
        logging.getLogger("pipelined").critical(
            "Uncaught exception in a thread",
            exc_info=(args.exc_type, args.exc_value, args.exc_traceback),
            extra={"thread_name": name},
        )
