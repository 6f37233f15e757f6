"""Records in journald's own protocol, received by a socket that stands for it."""

from __future__ import annotations

import array
import logging
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipelined.config.tree import Logs
from pipelined.logs import journal
from pipelined.logs.context import context
from pipelined.logs.handler import DescriptorHandler
from pipelined.logs.setup import dropped, setup

LOG = logging.getLogger("pipelined.test")
PLANTED = "hunter2SECRET"


class Journald:
    """The socket of journald, read when asked."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(5)

    def record(self) -> dict[str, str]:
        """The next record."""
        data, control, _, _ = self.socket.recvmsg(1 << 20, socket.CMSG_SPACE(4))
        for _, _, passed in control:
            (file,) = array.array("i", passed[:4])
            data = os.pread(file, 1 << 24, 0)
            with pytest.raises(PermissionError):
                os.write(file, b"sealed")
            os.close(file)
        return unpacked(data)


def unpacked(data: bytes) -> dict[str, str]:
    found = {}
    while data:
        line, _, data = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (size,) = struct.unpack("<Q", data[:8])
            value, data = data[8 : 8 + size], data[9 + size :]
        assert name.decode() not in found
        found[name.decode()] = value.decode()
    return found


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(journal, "SOCKET", tmp_path / "socket")
    return tmp_path / "socket"


@pytest.fixture
def journald(path: Path) -> Iterator[Journald]:
    end = Journald(path)
    yield end
    end.socket.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Callable[[], str]]]:
    """Set up logging to journald; what is returned reads what went to the standard error stream instead."""
    root = logging.getLogger()
    before = root.level, root.handlers[:]
    file = tmp_path / "stderr"
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def begin(repeats: int = 20) -> Callable[[], str]:
        setup(
            Logs(format="journal", repeats=repeats),
            worker="download",
            index=2,
            instance="xact.h1.download.2",
            descriptor=descriptor,
        )
        return file.read_text

    yield begin
    for each in root.handlers[:]:
        if isinstance(each, DescriptorHandler):
            root.removeHandler(each)
            each.close()
    root.level = before[0]
    logging.captureWarnings(False)
    os.close(descriptor)


def test_a_record_has_its_fields(journald: Journald, start: Callable[..., object]) -> None:
    start()
    extra = {"code": "stuck", "trace_id": "t-1", "offset": 17, "category": "transient", "9 odd-name": [1]}
    LOG.warning(
        "%s/%d@%d has been in hand for more than %g s; it is put off", "raw", 3, 17, 60.0, extra=extra
    )
    found = journald.record()
    assert found.pop("MESSAGE").startswith(
        "raw/3@17 has been in hand for more than 60 s; it is put off code="
    )
    assert found.pop("CODE_FILE") == __file__
    assert int(found.pop("CODE_LINE")) > 1
    assert found == {
        "PRIORITY": "4",
        "LEVEL": "WARNING",
        "SYSLOG_IDENTIFIER": "pipelined",
        "LOGGER": "pipelined.test",
        "WORKER": "download",
        "INDEX": "2",
        "INSTANCE": "xact.h1.download.2",
        "LOG_EVENT": "record.stuck",
        "ERROR_CODE": "stuck",
        "TRACE_ID": "t-1",
        "OFFSET": "17",
        "CATEGORY": "transient",
        "STAGE": "download",
        "ODD_NAME": "[1]",
        "CODE_FUNC": "test_a_record_has_its_fields",
    }


def test_no_field_of_a_call_hides_one_of_ours_and_none_passes_for_one_of_journald(
    journald: Journald, start: Callable[..., object]
) -> None:
    start()
    LOG.error("Died", extra={"priority": 0, "worker": "upload", "_pid": 1, "instance": "x"})
    found = journald.record()
    assert (found["PRIORITY"], found["WORKER"], found["INSTANCE"]) == ("3", "download", "xact.h1.download.2")
    assert (found["EXTRA_PRIORITY"], found["EXTRA_WORKER"], found["EXTRA_INSTANCE"]) == ("0", "upload", "x")
    assert found["PID"] == "1"
    assert not [name for name in found if name.startswith("_")]


def test_an_exception_has_a_field_of_its_own_and_can_be_read_below_the_message(
    journald: Journald, start: Callable[..., object]
) -> None:
    start()
    try:
        raise ValueError(f"password={PLANTED}")
    except ValueError:
        LOG.exception("Failed")
    found = journald.record()
    assert "Traceback" in found["EXCEPTION"]
    assert found["MESSAGE"].splitlines()[0] == "Failed"
    assert "ValueError: password=***" in found["MESSAGE"]


def test_no_secret_is_in_any_field(journald: Journald, start: Callable[..., object]) -> None:
    start()
    url = f"https://a.example/x.pdf?sig={PLANTED}"
    with context(url=url, sasl_password=PLANTED):
        try:
            raise ValueError(url)
        except ValueError as error:
            LOG.exception("Fetching %s", url, extra={"error": error, "all": [url]}, stack_info=True)
    found = journald.record()
    assert found["SASL_PASSWORD"] == "***"
    assert PLANTED not in str(found)


def test_a_record_too_large_for_a_datagram_comes_as_a_sealed_file(
    journald: Journald, start: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "_BUFFER", 50_000)
    start()
    fields = {f"field_{number}": "x" * 15_000 for number in range(20)}
    LOG.info("Large", extra=fields)
    found = journald.record()
    assert found["LOGGER"] == "pipelined.test"
    assert [found[name.upper()] for name in fields] == list(fields.values())


def test_a_stalled_journald_stalls_nobody_and_what_is_lost_is_counted_and_said(
    journald: Journald, start: Callable[..., object]
) -> None:
    start(repeats=0)
    begun = time.monotonic()
    for number in range(3000):
        LOG.info("Line", extra={"number": number})
    assert time.monotonic() - begun < 5
    lost = dropped()
    assert lost > 100
    kept = [journald.record()["NUMBER"] for _ in range(3000 - lost)]
    assert kept == [str(number) for number in range(3000 - lost)]
    LOG.info("After")
    assert journald.record()["MESSAGE"] == "After"
    told = journald.record()
    assert (told["LINES"], told["LOG_EVENT"], told["PRIORITY"]) == (str(lost), "log.dropped", "4")
    assert dropped() == lost


def test_without_journald_lines_with_priorities_go_where_they_went(
    path: Path, start: Callable[..., Callable[[], str]]
) -> None:
    read = start()
    LOG.error("Nobody there")
    assert read().startswith("<3>ERROR [download-2 ")
    late = Journald(path)
    LOG.error("Somebody came")
    assert late.record()["MESSAGE"] == "Somebody came"
    late.socket.close()
    path.unlink()
    LOG.error("Gone again")
    assert "Gone again" in read()
    assert dropped() == 0


def test_a_journald_that_was_restarted_is_found_again(
    path: Path, journald: Journald, start: Callable[..., Callable[[], str]]
) -> None:
    read = start()
    LOG.info("To the first")
    journald.socket.close()
    path.unlink()
    second = Journald(path)
    LOG.info("To the second")
    assert second.record()["MESSAGE"] == "To the second"
    second.socket.close()
    assert read() == ""


def test_a_process_that_ends_waits_until_journald_has_read_but_not_for_ever(
    journald: Journald, start: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    start()
    (handler,) = (each for each in logging.getLogger().handlers if isinstance(each, DescriptorHandler))
    LOG.info("Last words")
    begun = time.monotonic()
    handler.flush()
    assert 0.1 < time.monotonic() - begun < 10, "nobody reads"
    monkeypatch.setattr(journal, "_LAST_WORDS_S", 60.0)
    reader = threading.Timer(0.05, journald.record)
    reader.start()
    begun = time.monotonic()
    handler.flush()
    assert time.monotonic() - begun < 30, "it was read, and nothing more is waited for"
    reader.join()
