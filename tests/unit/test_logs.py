"""Logs: their formats, what they never show, and that they never stall a worker."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import pty
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipelined.config.tree import Logs
from pipelined.logs import handler, journal
from pipelined.logs.setup import dropped, setup

LOG = logging.getLogger("pipelined.test")
PLANTED = "hunter2SECRET"
SIGNED = f"https://a.s3.amazonaws.com/k/F.PDF?X-Amz-Signature={PLANTED}"
TWO = "Two %s %s"  # for calls with too few arguments
FORMATS = ["json", "text", "journal"]


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(journal, "SOCKET", tmp_path / "no journald here")
    root = logging.getLogger()
    before = root.level, root.handlers[:], sys.excepthook, threading.excepthook
    yield
    for each in root.handlers[:]:
        if isinstance(each, handler.DescriptorHandler):
            root.removeHandler(each)
            each.close()
    root.level, _, sys.excepthook, threading.excepthook = before
    logging.captureWarnings(False)


@pytest.fixture
def log_to(tmp_path: Path) -> Iterator[Callable[..., Callable[[], str]]]:
    """Set up logging to a file; what is returned reads what was logged."""
    opened: list[int] = []

    def start(name: str = "json", level: str = "INFO", worker: str = "download") -> Callable[[], str]:
        file = tmp_path / f"{len(opened)}.log"
        opened.append(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND))
        setup(Logs(level=level, format=name), worker=worker, index=2, descriptor=opened[-1])
        root = logging.getLogger()
        for other in root.handlers[:]:  # pytest's own, which do not bear records that cannot be formatted
            if not isinstance(other, handler.DescriptorHandler):
                root.removeHandler(other)
        return lambda: file.read_text(encoding="utf-8")

    yield start
    for descriptor in opened:
        os.close(descriptor)


def fail(text: str) -> None:
    raise ValueError(text)


def test_a_json_line_has_every_field(log_to: Callable[..., Callable[[], str]]) -> None:
    read = log_to("json")
    before = time.time()
    LOG.warning("Took %d records", 3, extra={"topic": "xact.events.raw", "offset": 17, "tiers": (1.5, None)})
    entry = json.loads(read())
    logged = time.mktime(time.strptime(entry["time"][:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone
    assert entry.pop("time").endswith("Z")
    assert abs(logged - before) < 5
    assert entry == {
        "level": "WARNING",
        "logger": "pipelined.test",
        "message": "Took 3 records",
        "worker": "download",
        "index": 2,
        "pid": os.getpid(),
        "topic": "xact.events.raw",
        "offset": 17,
        "tiers": [1.5, None],
    }


def test_an_exception_keeps_its_traceback_and_its_cause(log_to: Callable[..., Callable[[], str]]) -> None:
    read = log_to("json")
    try:
        try:
            fail("first")
        except ValueError as error:
            raise RuntimeError("second") from error
    except RuntimeError:
        LOG.exception("Failed")
    entry = json.loads(read())
    for part in ("ValueError: first", "RuntimeError: second", "in fail", "direct cause"):
        assert part in entry["exception"]


@pytest.mark.parametrize("name", FORMATS)
def test_a_log_call_never_fails(name: str, log_to: Callable[..., Callable[[], str]]) -> None:
    class Unprintable:
        def __str__(self) -> str:
            raise ValueError("no")

    read = log_to(name)
    LOG.info(TWO, "one")
    LOG.info("Odd", extra={"n": float("nan"), "b": b"\xff", "s": "\ud800", "d": {(1, 2): {1}}})
    LOG.info("Unprintable", extra={"x": Unprintable()})
    lines = read().splitlines()
    assert len(lines) == 3
    assert "one" in lines[0]
    assert "nan" in lines[1]
    assert "could not be formatted" in lines[2]


def test_a_field_named_like_one_of_ours_is_not_lost(log_to: Callable[..., Callable[[], str]]) -> None:
    read = log_to("json")
    LOG.info("Died", extra={"worker": "upload", "pid": 1})
    entry = json.loads(read())
    assert (entry["worker"], entry["extra_worker"], entry["extra_pid"]) == ("download", "upload", 1)


def test_a_text_line_is_readable_and_has_its_fields(log_to: Callable[..., Callable[[], str]]) -> None:
    read = log_to("text")
    LOG.error("Broker gone", extra={"error": "timed out", "offset": 3})
    line = read()
    assert f'ERROR   [download-2 {os.getpid()}] Broker gone error="timed out" offset=3\n' in line
    assert "\x1b" not in line


def test_a_text_line_says_nothing_twice_and_nothing_that_is_empty(
    log_to: Callable[..., Callable[[], str]],
) -> None:
    read = log_to("text")
    more = {
        "child": "upload/0",
        "state": "BACKOFF",
        "reason": "killed by SIGKILL",
        "table": "",
        "group": None,
    }
    LOG.info("worker %s is %s: %s", "upload/0", "BACKOFF", "killed by SIGKILL", extra=more | {"tier": [1]})
    assert read().endswith("] worker upload/0 is BACKOFF: killed by SIGKILL tier=[1]\n")
    LOG.info("the downloads of 3", extra={"stream": "downloads", "group": "download", "offset": 3})
    assert read().endswith("] the downloads of 3 group=download offset=3\n"), "words as a whole, and numbers"


@pytest.mark.parametrize("name", ["text", "journal"])
def test_no_message_begins_a_line_of_its_own(name: str, log_to: Callable[..., Callable[[], str]]) -> None:
    read = log_to(name)
    LOG.info("a\n<0>forged\x1b[2J", extra={"file": "x\n<0>y"})
    assert len(read().splitlines()) == 1
    assert "\\n<0>forged\\x1b" in read()


def test_every_journal_line_has_its_priority(log_to: Callable[..., Callable[[], str]]) -> None:
    read = log_to("journal", "DEBUG")
    LOG.debug("d")
    LOG.info("i")
    LOG.warning("w")
    LOG.critical("c")
    try:
        fail("broken")
    except ValueError:
        LOG.exception("e")
    lines = read().splitlines()
    assert [line[:3] for line in lines[:4]] == ["<7>", "<6>", "<4>", "<2>"]
    assert len(lines) > 6
    assert {line[:3] for line in lines[4:]} == {"<3>"}


def test_the_level_is_the_configured_one(log_to: Callable[..., Callable[[], str]]) -> None:
    read = log_to("json", "WARNING")
    LOG.info("no")
    LOG.warning("yes")
    assert [json.loads(line)["message"] for line in read().splitlines()] == ["yes"]


def test_a_second_setup_takes_the_place_of_the_first(log_to: Callable[..., Callable[[], str]]) -> None:
    first = log_to("json", worker="supervisor")
    second = log_to("json", worker="upload")
    LOG.info("once")
    assert first() == ""
    assert json.loads(second())["worker"] == "upload"


@pytest.mark.parametrize("name", FORMATS)
def test_no_planted_secret_is_in_any_line(name: str, log_to: Callable[..., Callable[[], str]]) -> None:
    read = log_to(name)
    LOG.info("Fetching " + SIGNED)
    LOG.info("Fetching %s", SIGNED)
    LOG.info(TWO, SIGNED)
    LOG.info("Extra", extra={"url": SIGNED, "sasl_password": PLANTED, "headers": {"Authorization": PLANTED}})
    LOG.info("Bytes", extra={"body": SIGNED.encode(), "all": [(SIGNED,)], "error": ValueError(SIGNED)})
    LOG.info("Stack", stack_info=True)
    try:
        try:
            fail(f"Bearer {PLANTED}")
        except ValueError as error:
            raise RuntimeError(f"password={PLANTED}") from error
    except RuntimeError as error:
        LOG.exception("SharedAccessKey=%s", PLANTED)
        sys.excepthook(type(error), error, error.__traceback__)
    thread = threading.Thread(target=fail, args=(SIGNED,))
    thread.start()
    thread.join()
    text = read()
    assert "hunter2" not in text
    assert "Uncaught exception" in text
    assert "Uncaught exception in a thread" in text
    assert text.count("***") > 10


def test_a_very_long_text_is_cut(log_to: Callable[..., Callable[[], str]]) -> None:
    read = log_to("json")
    LOG.info("x" * 1_000_000)
    assert len(read()) < 20_000
    assert "1000000 characters in all" in read()


def test_auto_is_text_with_colour_on_a_terminal_unless_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    controller, terminal = pty.openpty()
    try:
        for no_color, colour in (("", True), ("1", False)):
            monkeypatch.setenv("NO_COLOR", no_color)
            setup(Logs(), worker="download", index=0, descriptor=terminal)
            LOG.error("Broken")
            line = os.read(controller, 4096).decode()
            assert "Broken" in line
            assert ("\x1b[31m" in line) is colour
    finally:
        os.close(controller)
        os.close(terminal)


def test_auto_is_for_journald_only_where_journald_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = socket.socketpair()
    with reader, writer:
        status = os.fstat(writer.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        setup(Logs(), worker="download", index=0, descriptor=writer.fileno())
        LOG.info("to journald")
        assert reader.recv(4096).startswith(b"<6>")
        monkeypatch.setenv("JOURNAL_STREAM", "1:2")
        setup(Logs(), worker="download", index=0, descriptor=writer.fileno())
        LOG.info("elsewhere")
        assert json.loads(reader.recv(4096))["message"] == "elsewhere"


def drained(descriptor: int) -> bytes:
    """What is in the pipe or socket now."""
    os.set_blocking(descriptor, False)
    found = b""
    try:
        while piece := os.read(descriptor, 65536):
            found += piece
    except BlockingIOError:
        pass
    return found


@pytest.fixture(params=["pipe", "shared pipe", "socket"])
def stalled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    """A reader that reads nothing until asked, and the end to log to."""
    if request.param == "socket":
        one, other = socket.socketpair()
        reader, writer = one.detach(), other.detach()
    else:
        reader, writer = os.pipe()
    if request.param == "shared pipe":
        monkeypatch.setattr(handler, "_opened_again", lambda descriptor: None)
    yield reader, writer
    os.close(reader)
    os.close(writer)


def test_a_stalled_reader_stalls_nobody_and_what_is_lost_is_counted(stalled: tuple[int, int]) -> None:
    reader, writer = stalled
    setup(Logs(format="json", repeats=0), worker="download", index=0, descriptor=writer)
    started = time.monotonic()
    for number in range(3000):
        LOG.info("Line", extra={"number": number, "filler": "x" * 200})
    assert time.monotonic() - started < 5
    lost = dropped()
    assert lost > 100
    assert not fcntl.fcntl(writer, fcntl.F_GETFL) & os.O_NONBLOCK, "the flags are shared with other processes"

    text = drained(reader).decode()
    LOG.info("After")
    lines = [json.loads(line) for line in (text + drained(reader).decode()).splitlines()]
    numbers = [line["number"] for line in lines if line["message"] == "Line"]
    assert numbers == list(range(3000 - lost))
    assert [line["message"] for line in lines[-2:]] == ["After", lines[-1]["message"]]
    assert lines[-1]["lines"] == lost
    assert dropped() == lost


def test_a_line_that_went_out_in_part_is_finished_before_the_next(stalled: tuple[int, int]) -> None:
    reader, writer = stalled
    setup(Logs(format="json", repeats=0), worker="download", index=0, descriptor=writer)
    fields = {f"field{number}": "x" * 15_000 for number in range(40)}
    LOG.info("Large", extra=fields)
    text = b""
    deadline = time.monotonic() + 20
    while b"Last" not in text and time.monotonic() < deadline:
        text += drained(reader)
        LOG.info("Last")
        text += drained(reader)
    first, *others = [json.loads(line) for line in text.decode().splitlines()]
    assert first["message"] == "Large"
    assert set(fields) <= set(first)
    assert others[0]["message"] in ("Last", "Log lines were dropped: their reader did not take them")


def test_a_reader_that_is_gone_is_no_error() -> None:
    reader, writer = os.pipe()
    setup(Logs(format="json"), worker="download", index=0, descriptor=writer)
    os.close(reader)
    LOG.info("Nobody reads this")
    assert dropped() == 1
    os.close(writer)


def test_a_forked_child_logs_in_its_own_name_and_the_parent_goes_on(
    log_to: Callable[..., Callable[[], str]], tmp_path: Path
) -> None:
    read = log_to("json", worker="supervisor")
    child = os.fork()
    if child == 0:
        target = os.open(tmp_path / "child.log", os.O_WRONLY | os.O_CREAT)
        setup(Logs(format="json"), worker="upload", index=1, descriptor=target)
        LOG.info("in the child")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    LOG.info("in the parent")
    entry = json.loads((tmp_path / "child.log").read_text())
    assert (entry["worker"], entry["index"], entry["pid"]) == ("upload", 1, child)
    assert [json.loads(line)["message"] for line in read().splitlines()] == ["in the parent"]
