"""Ctrl-C in the terminal of ``pipelined run``: drained and gone, or gone soon."""

from __future__ import annotations

import contextlib
import os
import pty
import sys
import time
from collections.abc import Callable, Iterator

from flow import Flow, event, pipelined_command, trace_ids
from pipelined.local.fileserver import file_path

# The terminal becomes the controlling one of the session: what a shell does for its foreground job.
_IN_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


@contextlib.contextmanager
def run_in_terminal(flow: Flow) -> Iterator[Callable[[], object]]:
    """Runs the daemon in the foreground of a terminal; the function presses Ctrl-C there."""
    keyboard, terminal = pty.openpty()
    run = pipelined_command("--config", flow.config_file, "run")
    try:
        flow.daemon = flow.popen([sys.executable, "-c", _IN_TERMINAL, *run], flow.log_file, stdin=terminal)
        os.close(terminal)
        flow.until_state("running")
        yield lambda: os.write(keyboard, b"\x03")
    finally:
        os.close(keyboard)


def load_attachments(flow: Flow, fault: str, count: int) -> None:
    """Load events with one attachment each, all with this fault; wait until all are being fetched."""
    flow.load(
        event(trace, [flow.files_url + file_path(fault, 20_000, number, "GENERIC.pdf")])
        for number, trace in enumerate(trace_ids(count))
    )
    flow.until_worker("download", lambda worker: worker["in_flight"] == count, f"has {count} in hand")


def test_ctrl_c_finishes_what_is_in_hand_and_ends_with_0(flow: Flow) -> None:
    with run_in_terminal(flow) as press_ctrl_c:
        load_attachments(flow, "slow", 10)
        press_ctrl_c()
        assert flow.daemon is not None
        assert flow.daemon.wait(30) == 0, flow.tail()
    assert flow.processes() == {}

    flow.start()
    balance = flow.settle()
    assert (balance.expected, balance.completed) == (10, 10)
    assert flow.workers()["download"]["records_in"] == 0, "what was finished was committed, too"


def test_a_second_ctrl_c_ends_it_within_seconds_and_nothing_is_lost(flow: Flow) -> None:
    flow.configure({"download.low_speed_s": 30.0})
    with run_in_terminal(flow) as press_ctrl_c:
        load_attachments(flow, "stall-1", 3)
        press_ctrl_c()
        flow.until_worker("download", lambda worker: worker["state"] == "STOPPING", "drains")
        time.sleep(0.6)  # a repetition within half a second is taken for the same key press
        pressed = time.monotonic()
        press_ctrl_c()
        assert flow.daemon is not None
        assert flow.daemon.wait(10) == 130, flow.tail()
        assert time.monotonic() - pressed < 5, "its drain would have taken 25 s"
    assert flow.processes() == {}

    flow.start()
    assert flow.settle().completed == 3
