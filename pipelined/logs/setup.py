"""Setting up the log of a process: one handler on the root logger, to the standard error stream."""

from __future__ import annotations

import logging
import os
import sys
import threading
from types import TracebackType

from pipelined.config.tree import Logs
from pipelined.logs.formats import JournalFormat, JsonFormat, TextFormat
from pipelined.logs.handler import DescriptorHandler

__all__ = ["dropped", "setup"]

_STDERR = 2


def setup(settings: Logs, *, worker: str, index: int, descriptor: int = _STDERR) -> None:
    """Log as configured, to ``descriptor``, in the name of this worker. Every process calls it once, a
    child after its fork again: what was set up before is taken down.

    Uncaught exceptions and warnings go to the log as well, since they may carry what must be masked.
    """
    root = logging.getLogger()
    for old in root.handlers[:]:
        if isinstance(old, DescriptorHandler):
            root.removeHandler(old)
            old.close()
    handler = DescriptorHandler(descriptor)
    handler.setFormatter(_formatter(settings.format, worker, index, descriptor))
    root.addHandler(handler)
    root.setLevel(settings.level)
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread


def dropped() -> int:
    """How many lines this process could not write since its :func:`setup`."""
    return sum(h.dropped for h in logging.getLogger().handlers if isinstance(h, DescriptorHandler))


def _formatter(name: str, worker: str, index: int, descriptor: int) -> logging.Formatter:
    terminal = os.isatty(descriptor)
    if name == "auto":
        name = "text" if terminal else "journal" if _is_journal(descriptor) else "json"
    if name == "json":
        return JsonFormat(worker, index)
    if name == "journal":
        return JournalFormat(worker, index)
    return TextFormat(worker, index, colour=terminal and not os.environ.get("NO_COLOR"))


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
