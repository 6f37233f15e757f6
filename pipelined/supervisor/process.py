"""One forked process: its birth with signals blocked, its pidfd, its group, its end."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from pipelined.errors import ExitCode
from pipelined.supervisor.child import BLOCKED

__all__ = ["Process"]

_PAGE = os.sysconf("SC_PAGE_SIZE")


class Process:
    """A child of ours that has not been reaped yet, in a process group of its own."""

    def __init__(self, pid: int, pidfd: int, life: int) -> None:
        self.pid = pid
        #: Readable once the process has ended. It names this very process, whatever happens to its pid.
        self.pidfd = pidfd
        self._life = life

    @classmethod
    def fork(cls, body: Callable[[int], NoReturn]) -> Process:
        """Fork; the child runs ``body`` with the read end of its death pipe and never comes back.

        The signals of ``child.BLOCKED`` are blocked in the child until it unblocks them. Raises OSError
        where the system has no process or file descriptor left.
        """
        for stream in (sys.stdout, sys.stderr):
            # What is still buffered would be written by both.
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        death_pipe, life = os.pipe()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)
        try:
            pid = os.fork()
            if pid == 0:
                try:
                    os.close(life)
                    body(death_pipe)
                finally:
                    os._exit(ExitCode.SOFTWARE)
            try:
                # Here too: a kill of the group must not come before the child has made it.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.setpgid(pid, pid)
                pidfd = os.pidfd_open(pid)
            except OSError:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                raise
        except OSError:
            os.close(life)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            os.close(death_pipe)
        return cls(pid, pidfd, life)

    def memory_mb(self) -> float:
        """Its resident memory; 0 where it has ended."""
        try:
            pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        except (OSError, IndexError):
            return 0.0
        return int(pages) * _PAGE / 1e6

    def terminate(self) -> None:
        """Ask it to drain and to end."""
        self._send(signal.SIGTERM)

    def abort(self) -> None:
        """Have it write the stacks of its threads to stderr and die, also if it was stopped."""
        self._send(signal.SIGABRT)
        self._send(signal.SIGCONT)

    def kill(self) -> None:
        """Kill it with all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._send(signal.SIGKILL)

    def reap(self) -> int:
        """Wait for its end, kill what is left of its group, give everything back.

        Returns its exit code, or minus the signal that ended it.
        """
        os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOWAIT)
        # Before it is reaped: until then nobody else can have its number.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        ended = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
        self.close()
        assert ended is not None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

    def close(self) -> None:
        """Let go of the descriptors; also what a sibling just forked does first."""
        os.close(self.pidfd)
        os.close(self._life)

    def _send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)
