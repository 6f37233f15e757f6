"""A file of JSON lines onto ``events.raw``, each line once, on the real Kafka."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kafka_tools import declared, read, small, values
from pipelined.config.tree import Config
from pipelined.errors import ExitCode, UsageError
from pipelined.messages.codec import encode
from pipelined.sources import file as module
from pipelined.sources.file import Loaded, load_file
from pipelined.stages.contract import Stream
from records import TRACE, event

RAW = Stream.RAW


@pytest.fixture
def config(kafka_bootstrap: str, domain: str) -> Iterator[Config]:
    with declared(small(kafka_bootstrap, domain, 1)) as made:
        yield made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "export.jsonl"


def lines(count: int, start: int = 0) -> list[bytes]:
    return [b'{"traceId":"n%d"}' % number for number in range(start, start + count)]


def write(path: Path, given: list[bytes], end: bytes = b"\n") -> None:
    path.write_bytes(b"".join(line + end for line in given))


class Reported:
    """What a load reports of lines that are no event."""

    def __init__(self) -> None:
        self.lines: dict[int, str] = {}

    def __call__(self, line: int, text: str) -> None:
        self.lines[line] = text


def test_each_line_becomes_a_message_with_its_bytes_its_key_and_where_it_came_from(
    config: Config, path: Path
) -> None:
    first = encode(event(traceId=TRACE.upper()))
    write(path, [first, b'{ "traceId": 7, "x": "\xc3\xa9" }  '])
    assert load_file(config, str(path)) == Loaded(lines=2, events=2)
    one, two = read(config, RAW)
    assert (one.value, one.key) == (first, TRACE.encode())
    assert [one.header(name) for name in ("trace_id", "source", "line")] == [TRACE, "local", "1"]
    assert (two.value, two.key) == (b'{ "traceId": 7, "x": "\xc3\xa9" }  ', b"7")


def test_a_line_that_is_no_event_is_reported_with_its_number_and_sent_with_its_bytes(
    config: Config, path: Path
) -> None:
    bad = [b"not json", b"[1]", b"{}", b'{"traceId":null}', b'{"traceId":"\xff"}', b'{"traceId":']
    write(path, [*lines(1), *bad, *lines(1, 1)])
    reported = Reported()
    loaded = load_file(config, str(path), report=reported)
    assert (loaded.lines, loaded.events, loaded.unreadable) == (8, 2, 6)
    assert list(reported.lines) == [2, 3, 4, 5, 6, 7]
    assert "not a JSON object" in reported.lines[2]
    assert reported.lines[4] == "no traceId"
    messages = read(config, RAW)
    assert [message.value for message in messages] == [*lines(1), *bad, *lines(1, 1)]
    assert messages[1].key is None
    assert messages[1].header("line") == "2"


def test_blank_lines_marks_and_carriage_returns_are_no_part_of_an_event(config: Config, path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n\r\n".join(lines(3)) + b"\r\n   \r\n" + lines(1, 3)[0])
    loaded = load_file(config, str(path))
    assert (loaded.lines, loaded.events, loaded.blank, loaded.unreadable) == (7, 4, 3, 0)
    messages = read(config, RAW)
    assert [message.value for message in messages] == lines(4)
    assert [message.header("line") for message in messages] == ["1", "3", "5", "7"]


@pytest.mark.parametrize(("content", "blank"), [(b"", 0), (b"\n\n", 2), (b"\xef\xbb\xbf", 1)])
def test_a_file_without_any_event_is_loaded_and_done(
    config: Config, path: Path, content: bytes, blank: int
) -> None:
    path.write_bytes(content)
    for expected in (blank, 0):
        loaded = load_file(config, str(path))
        assert (loaded.events, loaded.unreadable, loaded.complete) == (0, 0, True)
        assert loaded.blank == expected
    assert values(config, RAW) == []


def test_the_same_file_a_second_time_adds_nothing_and_what_was_appended_is_added(
    config: Config, path: Path
) -> None:
    write(path, lines(10))
    load_file(config, str(path))
    again = load_file(config, str(path))
    assert (again.first, again.lines, again.events) == (10, 0, 0)
    with path.open("ab") as stream:
        stream.write(b"\n".join(lines(5, 10)))
    more = load_file(config, str(path))
    assert (more.first, more.lines, more.events) == (10, 5, 5)
    messages = read(config, RAW)
    assert [message.value for message in messages] == lines(15)
    assert messages[-1].header("line") == "15"


def test_restart_begins_at_the_first_line_again(config: Config, path: Path) -> None:
    write(path, lines(3))
    load_file(config, str(path))
    assert load_file(config, str(path), restart=True) == Loaded(lines=3, events=3)
    assert values(config, RAW) == lines(3) * 2
    assert load_file(config, str(path)).events == 0


def test_an_interrupted_load_goes_on_behind_its_last_transaction(
    config: Config, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BATCH", 100)
    write(path, [*lines(150), b"", *lines(150, 150)])
    progress: list[tuple[int, int]] = []

    def told(position: int, loaded: Loaded) -> None:
        progress.append((position, loaded.lines))

    loaded = load_file(config, str(path), progress=told, should_stop=lambda: bool(progress))
    assert (loaded.complete, loaded.lines) == (False, 100)
    assert progress == [(sum(len(line) + 1 for line in lines(100)), 100)]
    assert values(config, RAW) == lines(100)
    rest = load_file(config, str(path), progress=told)
    assert (rest.complete, rest.first, rest.lines, rest.events, rest.blank) == (True, 100, 201, 200, 1)
    assert progress[-1][0] == path.stat().st_size
    messages = read(config, RAW)
    assert [message.value for message in messages] == lines(300)
    assert messages[-1].header("line") == "301"


def test_a_load_that_is_told_to_stop_before_it_began_does_nothing(config: Config, path: Path) -> None:
    write(path, lines(3))
    assert load_file(config, str(path), should_stop=lambda: True) == Loaded(complete=False)
    assert values(config, RAW) == []


def test_a_file_that_is_not_the_one_that_was_begun_is_refused(config: Config, path: Path) -> None:
    write(path, lines(10))
    load_file(config, str(path))
    for other in (lines(20, 50), lines(5)):
        write(path, other)
        with pytest.raises(UsageError, match="--restart"):
            load_file(config, str(path))
    assert values(config, RAW) == lines(10)
    load_file(config, str(path), restart=True)
    assert values(config, RAW) == lines(10) + lines(5)


def test_two_files_have_positions_of_their_own(config: Config, path: Path) -> None:
    other = path.with_name("other.jsonl")
    write(path, lines(2))
    write(other, lines(3, 10))
    for _ in range(2):
        load_file(config, str(path))
        load_file(config, str(other))
    assert values(config, RAW) == lines(2) + lines(3, 10)


def test_a_line_that_is_too_long_stops_with_its_number_and_the_lines_before_it_are_loaded(
    config: Config, path: Path
) -> None:
    kafka = dataclasses.replace(config.kafka, max_message_bytes=65536)
    config = dataclasses.replace(config, kafka=kafka)
    largest = b'{"traceId":"largest","x":"' + b"x" * (65536 - 28) + b'"}'
    assert len(largest) == 65536
    write(path, [*lines(2), largest, largest + b" ", *lines(2, 2)], end=b"\r\n")
    for _ in range(2):
        with pytest.raises(UsageError, match="line 4 is larger"):
            load_file(config, str(path))
        assert values(config, RAW) == [*lines(2), largest]
    wider = dataclasses.replace(config, kafka=dataclasses.replace(kafka, max_message_bytes=70000))
    assert load_file(wider, str(path)).events == 3
    assert values(config, RAW) == [*lines(2), largest, largest + b" ", *lines(2, 2)]


def test_a_file_that_cannot_be_read_is_said(config: Config, tmp_path: Path) -> None:
    for unreadable in (tmp_path / "missing.jsonl", tmp_path):
        with pytest.raises(UsageError, match="cannot be read"):
            load_file(config, str(unreadable))


def command(config: Config, *arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    settings = {
        "domain": config.domain,
        "kafka.bootstrap": config.kafka.bootstrap,
        "topics.replication_factor": "1",
        "topics.min_insync_replicas": "1",
    }
    options = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    code = "from pipelined.cli.pipelinectl import main; main()"
    whole = [sys.executable, "-c", code, *options, *arguments]
    return subprocess.run(whole, input=given, capture_output=True, timeout=60, check=False)


def test_the_command_takes_standard_input_and_counts(config: Config) -> None:
    for _ in range(2):  # standard input has no position
        done = command(config, "load", "-", given=b"\n".join([*lines(2), b"bad", b""]))
        assert done.returncode == ExitCode.OK, done.stderr
        assert b"2 events and 1 lines that are no event" in done.stdout
        assert b"line 3: not a JSON object" in done.stderr
    assert values(config, RAW) == [*lines(2), b"bad"] * 2


def test_the_command_ends_with_usage_for_a_file_that_changed(config: Config, path: Path) -> None:
    write(path, lines(2))
    assert command(config, "load", str(path)).returncode == ExitCode.OK
    write(path, lines(2, 5))
    refused = command(config, "load", str(path))
    assert refused.returncode == ExitCode.USAGE
    assert refused.stderr.startswith(b"error: ")
    assert b"--restart" in refused.stderr
