from __future__ import annotations

import fcntl
import mmap
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from pipelined.stats import registry as metrics
from pipelined.stats.slots import Child, SharedStats, WorkerState


def forked(work: object) -> int:
    """A child that does the work and ends, without the test's own ends."""
    pid = os.fork()
    if pid == 0:
        try:
            assert callable(work)
            work()
        finally:
            os._exit(0)
    return pid


def wait_for(condition: object, seconds: float = 10) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.001)


@pytest.fixture
def stats() -> SharedStats:
    return SharedStats({"download": 2, "upload": 1})


@pytest.fixture
def descriptors(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Duplicates of the memfds made during the test."""
    kept: list[int] = []
    real = os.memfd_create

    def create(name: str, flags: int) -> int:
        fd = real(name, flags)
        kept.append(os.dup(fd))
        return fd

    monkeypatch.setattr(os, "memfd_create", create)
    yield kept
    for fd in kept:
        os.close(fd)


def test_a_reader_never_sees_a_counter_go_back_while_its_writer_is_killed_and_replaced(
    stats: SharedStats,
) -> None:
    child = stats.slot("download", 1).child
    seen, seen_done, generations = 0, 0, 0

    def write() -> None:
        mine = stats.slot("download", 1).child
        mine.begin(os.getpid())
        while True:
            mine.add(metrics.RECORDS_IN)
            mine.add(metrics.RECORDS_DONE, 2, "dead")
            mine.observe(metrics.COMMIT_SECONDS, 0.5)

    for generation in range(1, 6):
        before = seen
        writer = forked(write)
        try:
            deadline = time.monotonic() + 10
            while seen < before + 2000 or child.generation < generation:
                assert time.monotonic() < deadline
                now, done = child.counter(metrics.RECORDS_IN), child.counter(metrics.RECORDS_DONE, "dead")
                assert now >= seen
                assert done >= seen_done
                assert child.generation >= generations
                seen, seen_done, generations = now, done, child.generation
        finally:
            os.kill(writer, signal.SIGKILL)
            os.waitpid(writer, 0)
        assert child.generation == generation
        assert child.pid == writer
    total, buckets = child.histogram(metrics.COMMIT_SECONDS)
    assert abs(total / 0.5 - sum(buckets)) <= 5, "at most one observation for each kill is half written"
    assert abs(child.counter(metrics.RECORDS_IN) - sum(buckets)) <= 5


def test_what_a_child_writes_the_parent_reads_and_nothing_of_it_lands_in_another_slot(
    stats: SharedStats,
) -> None:
    def write() -> None:
        mine = stats.slot("download", 0).child
        mine.begin(os.getpid())
        mine.set(metrics.LAG, 12.5)
        mine.publish(9464)
        mine.ready()

    writer = forked(write)
    os.waitpid(writer, 0)
    child = stats.slot("download", 0).child
    assert (child.pid, child.published, child.is_ready, child.gauge(metrics.LAG)) == (
        writer,
        9464,
        True,
        12.5,
    )
    for other in (stats.slot("download", 1), stats.slot("upload", 0)):
        assert (other.child.pid, other.child.generation, other.child.gauge(metrics.LAG)) == (0, 0, 0)
        assert other.parent.pid == 0


def test_a_new_process_begins_with_gauges_at_zero_and_counters_go_on(stats: SharedStats) -> None:
    child = stats.slot("upload", 0).child
    child.begin(100)
    child.ready()
    gauges = [metric for metric in metrics.METRICS if metric.kind is metrics.Kind.GAUGE]
    for gauge in gauges:
        child.set(gauge, 3.5)
    child.add(metrics.RECORDS_IN, 7)
    child.observe(metrics.BATCH_RECORDS, 700, 2)
    before = child.started_ns
    child.begin(200)
    assert [child.gauge(gauge) for gauge in gauges] == [0.0] * len(gauges)
    assert child.counter(metrics.RECORDS_IN) == 7
    assert child.histogram(metrics.BATCH_RECORDS)[0] == 1400
    assert (child.pid, child.generation, child.is_ready) == (200, 2, False)
    assert child.heartbeat_ns >= child.started_ns >= before


def test_a_process_that_has_signed_a_slot_has_given_a_sign_in_it(stats: SharedStats) -> None:
    class Watched:
        """The words of a page; at each write it is noted whether the process is named without a sign."""

        def __init__(self, words: Any) -> None:
            self.words = words
            self.silent: list[int] = []

        def __getitem__(self, index: int) -> int:
            return int(self.words[index])

        def __setitem__(self, index: int, value: int) -> None:
            self.words[index] = value
            if child.pid == 7 and child.heartbeat_ns == 0:
                self.silent.append(index)

    child = stats.slots[0].child
    watched = Watched(child._words)
    child._words = watched
    child.begin(7)
    assert (child.pid, watched.silent) == (7, [])


def test_a_beat_moves_the_heartbeat_on(stats: SharedStats) -> None:
    child = stats.slot("upload", 0).child
    child.begin(1)
    before = child.heartbeat_ns
    wait_for(lambda: time.monotonic_ns() > before)
    child.beat()
    assert before < child.heartbeat_ns <= time.monotonic_ns()


def test_an_observation_falls_into_the_bucket_that_is_its_bound_or_above() -> None:
    child = Child(memoryview(bytearray(4096)))
    for value in (0.0, 1.0, 1.5, 10.0, 50001.0):
        child.observe(metrics.BATCH_RECORDS, value)
    total, buckets = child.histogram(metrics.BATCH_RECORDS)
    assert total == 50013.5
    assert buckets == [2, 2, 0, 0, 0, 0, 0, 0, 0, 1]


def test_a_value_that_was_not_declared_is_refused() -> None:
    child = Child(memoryview(bytearray(4096)))
    with pytest.raises(ValueError, match="index"):
        child.add(metrics.RECORDS_DONE, 1, "vanished")


def test_the_memory_is_sealed_so_that_nobody_can_resize_it(descriptors: list[int]) -> None:
    stats = SharedStats({"download": 1})
    (fd,) = descriptors
    size = os.fstat(fd).st_size
    for wanted in (0, 4096, size + 4096):
        with pytest.raises(PermissionError):
            os.ftruncate(fd, wanted)
    with pytest.raises(PermissionError):
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    assert os.fstat(fd).st_size == size == 3 * mmap.PAGESIZE
    stats.slot("download", 0).child.add(metrics.RECORDS_IN)
    words = memoryview(os.pread(fd, size, 0)).cast("Q")
    assert words[1] == metrics.schema_hash()
    assert words[2] == 1
    assert sum(words[512 + 16 : 1024]) == 1, "the counter stands in the child's page of the same memory"


def test_the_memory_is_not_passed_on_to_a_program_that_is_executed(descriptors: list[int]) -> None:
    closed: list[int] = []
    real = os.close

    def close(fd: int) -> None:
        closed.append(fd)
        real(fd)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "close", close)
        SharedStats({"download": 1})
    assert len(closed) == 1, "the descriptor is closed once the memory is mapped"


def test_the_parents_page_keeps_what_the_supervisor_knows(stats: SharedStats) -> None:
    parent = stats.slot("download", 0).parent
    assert parent.state is WorkerState.STOPPED
    for code in (0, 1, 78, 255, -9, -15):
        parent.write(state=WorkerState.BACKOFF, pid=7, restarts=3, last_exit=code, since=12.25, next_try=13.5)
        assert parent.last_exit == code
    assert (parent.state, parent.pid, parent.restarts) == (WorkerState.BACKOFF, 7, 3)
    assert (parent.since, parent.next_try) == (12.25, 13.5)


def test_slots_are_found_by_type_and_index(stats: SharedStats) -> None:
    assert [(s.worker, s.index) for s in stats.slots] == [("download", 0), ("download", 1), ("upload", 0)]
    assert stats.slot("download", 1) is stats.slots[1]
    for worker, index in (("download", 2), ("nothing", 0)):
        with pytest.raises(KeyError):
            stats.slot(worker, index)


def test_a_line_of_words_is_whole_or_nothing_whatever_its_writer_is_doing(stats: SharedStats) -> None:
    child = stats.slot("upload", 0).child
    child.begin(os.getpid())
    texts = ["quiet", "cannot log in: " + "x" * 300, "ä" * 200]

    def write() -> None:
        while True:
            for text in texts:
                child.say(text)

    pid = forked(write)
    try:
        seen = set()

        def all_seen() -> bool:
            seen.add(child.says)
            return seen >= set(texts)

        wait_for(all_seen)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert seen <= {*texts, ""}
    child.begin(os.getpid())
    assert child.says == "", "what a dead worker said is nobody's"
    child.say("back")
    assert child.says == "back"


def test_words_that_are_too_long_are_cut_between_letters(stats: SharedStats) -> None:
    child = stats.slot("upload", 0).child
    child.say("a" + "ä" * 1000)
    assert child.says == "a" + "ä" * (len(child.says) - 1)
    assert 200 < len(child.says) < 1000


def test_the_last_error_outlives_the_process_that_had_it(
    stats: SharedStats, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = stats.slot("upload", 0).child
    assert child.last_error == (0.0, "")
    child.failed("store_down: the disk is full")
    monkeypatch.setattr(time, "time", lambda: 1790000000.1239)
    child.failed("auth: " + "ä" * 2000)
    child.say("something else")
    child.begin(os.getpid())
    when, text = child.last_error
    assert when == 1790000000.124, "to the millisecond"
    assert text.startswith("auth: ää")
    assert len(text.encode()) < 760, "a line that is too long is cut, and never in the middle of a character"
    assert (child.says, child.counter(metrics.RECORDS_IN)) == ("", 0)


def test_a_process_killed_while_it_noted_an_error_leaves_none_and_the_next_one_can(
    stats: SharedStats,
) -> None:
    child = stats.slot("upload", 0).child
    child.failed("the first")
    child._error._number[0] += 1  # as one that is killed between its two numbers leaves it
    assert child.last_error == (0.0, "")
    child.begin(os.getpid())
    child.failed("the second")
    assert child.last_error[1] == "the second"
