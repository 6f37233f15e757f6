"""The life of a worker process between the fork and its end: what surrounds the worker's own code."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import fcntl
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from pipelined.config.tree import Config
from pipelined.errors import ExitCode, PipelinedError
from pipelined.logs.following import Following
from pipelined.stats.slots import SharedStats
from pipelined.supervisor.signals import harmless
from pipelined.supervisor.title import entitle

__all__ = ["BLOCKED", "Entry", "die_with_parent", "live", "settle"]

log = logging.getLogger("pipelined.supervisor")

#: What a worker type is to the supervisor: called with the configuration, its type, index, the shared
#: counters, and a function that tells whether it shall stop taking work, finish what is in hand and return.
#: It looks at that at least every 0.2 s. It returns its exit code: 0 after a clean drain.
Entry = Callable[[Config, str, int, SharedStats, Callable[[], bool]], int]

#: Blocked around the fork: a signal in between waits until the child's own handlers stand.
BLOCKED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_libc = ctypes.CDLL(None, use_errno=True)
#: Looked up before the fork: a child would have to copy the memory that it takes.
_prctl = _libc.prctl


def live(
    entry: Entry,
    config: Config,
    worker: str,
    index: int,
    stats: SharedStats,
    *,
    parent: int,
    death_pipe: int,
) -> NoReturn:
    """Run one worker in this process, just forked with the signals of ``BLOCKED`` blocked, and end it.

    ``parent`` is the supervisor's pid, ``death_pipe`` the read end of a pipe of which it alone holds the
    other end. The exit code is what the worker returned, that of its PipelinedError, or 70 for any other
    exception. Nothing that a library does at exit can change it.
    """
    code = int(ExitCode.SOFTWARE)
    try:
        settle(worker, index, parent, death_pipe)
        stopping = False

        def stop(*_: object) -> None:
            nonlocal stopping
            stopping = True

        slot = stats.slot(worker, index)
        look_after_log = Following(lambda: slot.parent.log_level)

        def told_to_stop() -> bool:
            look_after_log()
            return stopping

        signal.signal(signal.SIGTERM, stop)
        slot.child.begin(os.getpid())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, BLOCKED)
        code = entry(config, worker, index, stats, told_to_stop)
    except BaseException as error:
        # Not only Exception: a panic of a Rust extension is a BaseException, and no bug of a worker may
        # unwind into the supervisor's frames below.
        code = _exit_code(error)
        what = str(error) if isinstance(error, PipelinedError) else f"{type(error).__name__}: {error}"
        stats.slot(worker, index).child.failed(what)
        log.critical(
            "worker %s/%d ends with exit code %d: %s",
            worker,
            index,
            code,
            error,
            # An error of ours says itself what happened and what to do; only the others need their stacks.
            exc_info=not isinstance(error, PipelinedError),
            extra={"child": f"{worker}/{index}"},
        )
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        logging.shutdown()
        os._exit(code)


def _exit_code(error: BaseException) -> int:
    if isinstance(error, SystemExit) and isinstance(error.code, int | None):
        return error.code or 0
    return int(error.exit_code if isinstance(error, PipelinedError) else ExitCode.SOFTWARE)


def settle(worker: str, index: int, parent: int, death_pipe: int) -> None:
    """Begin a life as a child of the supervisor: its own group, named, deaf to the terminal, no orphan."""
    os.setpgid(0, 0)
    _die_with(parent, death_pipe)
    for ignored in (signal.SIGINT, signal.SIGHUP):
        # Ctrl-C and a closed terminal are the supervisor's business, which then sends SIGTERM.
        signal.signal(ignored, signal.SIG_IGN)
    faulthandler.enable(2, all_threads=True)
    harmless()
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    _prctl(_PR_SET_NAME, f"{worker[:12]}:{index}".encode(), 0, 0, 0)
    entitle(f"pipelined: {worker}/{index}")


def _die_with(parent: int, death_pipe: int) -> None:
    """Have the kernel kill this process as soon as the supervisor is gone, however that came about.

    At once, not after a drain: what is in hand is in an open transaction, so that nothing is lost, and
    the next daemon finds no worker of the last one that still holds its identity. Both ways are the
    kernel's own and need no loop of ours to be alive. The pipe is the second net: the parent-death
    signal is forgotten when a process changes its credentials.
    """
    fcntl.fcntl(death_pipe, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(death_pipe, fcntl.F_SETSIG, int(signal.SIGKILL))
    fcntl.fcntl(death_pipe, fcntl.F_SETFL, os.O_ASYNC)
    die_with_parent(parent)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process, just forked by ``parent``, when that ends."""
    if _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it ended before the kernel was told
        os.kill(os.getpid(), signal.SIGKILL)
