"""The counters of a daemon in the hands of the next one: what goes on, what does not, what is refused."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.exposition import generate_latest

from pipelined.stats import registry as metrics
from pipelined.stats import slots
from pipelined.stats.rendering import registry_of
from pipelined.stats.slots import Child, SharedStats, Slot, WorkerState
from pipelined.stats.status import document

WORKERS = {"download": 2, "upload": 1}
ROOM = 3
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class Keeper:
    """Keeps what it is given, as systemd does: one descriptor, of which each daemon gets its own."""

    def __init__(self) -> None:
        self.fds: list[int] = []

    def keep(self, fd: int) -> None:
        self.fds.append(os.dup(fd))

    def daemon(self, workers: dict[str, int] | None = None, room: int = ROOM) -> SharedStats:
        before = os.dup(self.fds[-1]) if self.fds else None
        return SharedStats(workers or WORKERS, room, before=before, keep=self.keep)


@pytest.fixture
def keeper() -> Iterator[Keeper]:
    made = Keeper()
    yield made
    for fd in made.fds:
        os.close(fd)


def works(slot: Slot) -> None:
    """Fill every word that a worker and its parent have for it."""
    child, parent = slot.child, slot.parent
    parent.occupy()
    for _ in range(2):
        child.begin(4711)
    child.ready()
    child.publish(9464)
    child.hold([0, 77, 511])
    child.say("at work")
    child.failed("auth: the store refuses our login")
    child.add(metrics.RECORDS_IN, 12)
    child.add(metrics.FAILURES, 3, "auth")
    child.observe(metrics.COMMIT_SECONDS, 0.3, 5)
    for metric in metrics.METRICS:
        if metric.kind is metrics.Kind.GAUGE:
            child.set(metric, 7.5)
    parent.write(state=WorkerState.FATAL, pid=4711, restarts=4, last_exit=-9, since=2.0, next_try=3.0)
    parent.pause(True)
    parent.leave(True)
    parent.log_at(10, asked=True)
    parent.measure((1.0, 2.0, 3.0))


def values(stats: SharedStats) -> dict[str, float]:
    lines = generate_latest(registry_of(stats)).decode().splitlines()
    return {
        name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")
    }


def test_counters_histograms_last_errors_and_totals_go_on(keeper: Keeper) -> None:
    first = keeper.daemon()
    works(first.slot("download", 0))
    first.turns.turned(30_000_000, 1_000_000)
    first.turns.forked(4_000_000)
    before = values(first)
    second = keeper.daemon()
    assert second.unfit == ""
    assert len(keeper.fds) == 1, "there is nothing new to keep"
    slot = second.slot("download", 0)
    assert slot.child.counter(metrics.RECORDS_IN) == 12
    assert slot.child.histogram(metrics.COMMIT_SECONDS) == (
        1.5,
        slot.child.histogram(metrics.COMMIT_SECONDS)[1],
    )
    assert sum(slot.child.histogram(metrics.COMMIT_SECONDS)[1]) == 5
    assert slot.child.last_error[1] == "auth: the store refuses our login"
    after = values(second)
    counters = [name for name in before if "_total" in name or "_bucket" in name or "_sum" in name]
    assert len(counters) > 100
    assert {name: after[name] for name in counters} == {name: before[name] for name in counters}
    assert after['pipelined_worker_restarts_total{index="0",worker="download"}'] == 4
    assert after['pipelined_worker_starts_total{index="0",worker="download"}'] == 2
    assert after["pipelined_supervisor_slow_turns_total"] == after["pipelined_supervisor_forks_total"] == 1


def test_totals_go_on_over_any_number_of_daemons(keeper: Keeper) -> None:
    for number in range(1, 4):
        slot = keeper.daemon().slot("upload", 0)
        slot.child.begin(number)
        slot.parent.write(
            state=WorkerState.RUNNING, pid=number, restarts=2, last_exit=0, since=1.0, next_try=0.0
        )
        assert slot.parent.all_restarts == 2 * number
        assert slot.child.starts == number
        assert (slot.parent.restarts, slot.child.generation) == (2, 1), "those of this daemon alone"


def test_the_total_of_a_place_that_is_given_up_and_taken_again_does_not_fall_back() -> None:
    stats = SharedStats(WORKERS, ROOM)
    works(stats.slot("upload", 0))
    parent = stats.slot("upload", 0).parent
    parent.vacate()
    parent.occupy()
    parent.write(state=WorkerState.STARTING, pid=1, restarts=0, last_exit=0, since=1.0, next_try=0.0)
    assert (parent.restarts, parent.all_restarts) == (0, 4)


def test_a_daemon_killed_while_it_takes_over_costs_the_next_one_nothing(
    keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = keeper.daemon()
    for slot in first.slots:
        works(slot)
    before = values(first)
    real = Child.forget
    for killed_at in range(3):
        left = killed_at

        def forget(child: Child) -> None:
            nonlocal left
            if not left:
                raise InterruptedError
            left -= 1
            real(child)

        monkeypatch.setattr(Child, "forget", forget)
        with pytest.raises(InterruptedError):
            keeper.daemon()
    monkeypatch.setattr(Child, "forget", real)
    after = values(keeper.daemon())
    totals = [name for name in before if "_total" in name or "_bucket" in name or "_sum" in name]
    assert {name: after[name] for name in totals} == {name: before[name] for name in totals}


def test_nothing_else_of_the_daemon_before_is_left(keeper: Keeper) -> None:
    first = keeper.daemon()
    for worker, index in (("download", 0), ("download", 1), ("upload", 0), ("upload", 2)):
        works(first.slot(worker, index))
    first.turns.turned(30_000_000, 1_000_000)
    second = keeper.daemon()
    fresh = SharedStats(WORKERS, ROOM)
    assert [(s.worker, s.index) for s in second.slots] == [(s.worker, s.index) for s in fresh.slots]
    told, new = (document(stats, pid=1) for stats in (second, fresh))
    of_all = {"records_in", "failures", "last_error", "last_error_at"}
    for one, other in zip(told["workers"], new["workers"], strict=True):
        assert {k: v for k, v in one.items() if k not in of_all} == {
            k: v for k, v in other.items() if k not in of_all
        }
    assert told["state"] == new["state"]
    assert (told["loop"]["longest_ms"], told["loop"]["longest_cpu_ms"]) == (0, 0)
    for worker, index in (("download", 0), ("upload", 2)):
        child, parent = second.slot(worker, index).child, second.slot(worker, index).parent
        assert (child.pid, child.generation, child.started_ns, child.heartbeat_ns) == (0, 0, 0, 0)
        assert (child.is_ready, child.published, child.held, child.says) == (False, 0, [], "")
        gauges = [metric for metric in metrics.METRICS if metric.kind is metrics.Kind.GAUGE]
        assert {child.gauge(metric) for metric in gauges} == {0.0}
        assert (parent.state, parent.pid, parent.last_exit) == (WorkerState.STOPPED, 0, 0)
        assert (parent.since, parent.next_try, parent.measured) == (0.0, 0.0, None)
        assert (parent.paused, parent.leaving, parent.log_level, parent.log_level_asked) == (
            False,
            False,
            0,
            False,
        )
    assert not second.slot("upload", 2).parent.occupied


def test_what_a_killed_writer_left_half_done_is_no_line_and_the_next_can_write(keeper: Keeper) -> None:
    child = keeper.daemon().slot("upload", 0).child
    child.say("going well")
    child.failed("the first")
    for line in (child._text, child._error):  # killed between its two numbers, with half of the text
        line._number[0] += 1
        line._bytes[:4] = b"17\xc3 "
    child = keeper.daemon().slot("upload", 0).child
    assert (child.says, child.last_error) == ("", (0.0, ""))
    child.say("back")
    child.failed("the second")
    assert (child.says, child.last_error[1]) == ("back", "the second")


def test_places_that_nobody_used_are_not_written_to_and_so_take_no_memory(
    keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    works(keeper.daemon().slot("upload", 2))
    wiped: list[Child] = []

    def forget(child: Child) -> None:
        wiped.append(child)

    monkeypatch.setattr(Child, "forget", forget)
    stats = keeper.daemon()
    used = [("download", 0), ("download", 1), ("upload", 0), ("upload", 2)]
    assert wiped == [stats.slot(worker, index).child for worker, index in used]


def refused(keeper: Keeper, workers: dict[str, int] | None = None, room: int = ROOM) -> str:
    """Why a daemon does not go on with what is kept; it works on memory of its own, and has that kept."""
    kept = os.fstat(keeper.fds[-1])
    stats = keeper.daemon(workers, room)
    assert stats.unfit
    assert os.fstat(keeper.fds[-1]).st_ino != kept.st_ino, "the new one is kept instead"
    assert stats.slots[0].child.counter(metrics.RECORDS_IN) == 0
    stats.slots[0].child.add(metrics.RECORDS_IN)
    assert (
        SharedStats(workers or WORKERS, room, before=os.dup(keeper.fds[-1]))
        .slots[0]
        .child.counter(metrics.RECORDS_IN)
        == 1
    ), "which the next one can go on with"
    return stats.unfit


def test_other_metrics_begin_anew(keeper: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    works(keeper.daemon().slot("download", 0))
    monkeypatch.setattr(metrics, "schema_hash", lambda: 12345)
    assert refused(keeper) == "it is of other metrics or other workers"


def test_another_meaning_of_the_pages_begins_anew(keeper: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper.daemon()
    monkeypatch.setattr(slots, "_LAYOUT", slots._LAYOUT + 1)
    assert refused(keeper) == "it is of other metrics or other workers"


@pytest.mark.parametrize(
    ("workers", "room", "why"),
    [
        ({"upload": 2, "download": 1}, ROOM, "other workers"),
        ({"download": 2, "upload": 1, "event-writer": 1}, ROOM, "are needed for the workers"),
        (WORKERS, ROOM + 1, "are needed for the workers"),
        ({"download": 3, "upload": 3}, 1, ""),
    ],
)
def test_other_places_begin_anew(keeper: Keeper, workers: dict[str, int], room: int, why: str) -> None:
    keeper.daemon()
    if why:
        assert why in refused(keeper, workers, room)
    else:
        assert keeper.daemon(workers, room).unfit == "", "the same room, however many there are to begin with"


def copy(keeper: Keeper, seals: int, *, read_only: bool = False) -> None:
    """Put an unfaithful copy of what is kept in its place."""
    size = os.fstat(keeper.fds[0]).st_size
    made = os.memfd_create("copy", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.pwrite(made, os.pread(keeper.fds[0], size, 0), 0)
    fcntl.fcntl(made, fcntl.F_ADD_SEALS, seals)
    if read_only:
        reopened = os.open(f"/proc/self/fd/{made}", os.O_RDONLY | os.O_CLOEXEC)
        os.close(made)
        made = reopened
    keeper.fds.append(made)


@pytest.mark.parametrize("seals", [0, SEALS & ~fcntl.F_SEAL_SHRINK, SEALS & ~fcntl.F_SEAL_SEAL, SEALS | 0x10])
def test_memory_that_is_not_sealed_as_ours_begins_anew(keeper: Keeper, seals: int) -> None:
    keeper.daemon()
    copy(keeper, seals)
    assert refused(keeper) == "it is not sealed as ours are"


def test_memory_that_cannot_be_written_begins_anew(keeper: Keeper) -> None:
    keeper.daemon()
    copy(keeper, SEALS, read_only=True)
    assert refused(keeper) == "it is not sealed as ours are"


def test_a_faithful_copy_is_gone_on_with(keeper: Keeper) -> None:
    keeper.daemon().slot("download", 0).child.add(metrics.RECORDS_IN, 5)
    copy(keeper, SEALS)
    assert keeper.daemon().slot("download", 0).child.counter(metrics.RECORDS_IN) == 5


def test_garbage_of_the_right_size_is_left_alone(keeper: Keeper) -> None:
    keeper.daemon()
    size = os.fstat(keeper.fds[0]).st_size
    made = os.memfd_create("garbage", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    garbage = os.urandom(size)
    os.pwrite(made, garbage, 0)
    fcntl.fcntl(made, fcntl.F_ADD_SEALS, SEALS)
    keeper.fds.append(made)
    assert refused(keeper) == "it is of other metrics or other workers"
    assert os.pread(made, size, 0) == garbage


def test_what_is_no_memory_file_at_all_begins_anew(keeper: Keeper, tmp_path: Path) -> None:
    keeper.daemon()
    (tmp_path / "file").write_bytes(os.pread(keeper.fds[0], 1 << 20, 0))
    reader, writer = os.pipe()
    os.close(writer)
    for fd in (os.open(tmp_path / "file", os.O_RDWR | os.O_CLOEXEC), reader):
        keeper.fds.append(fd)
        assert refused(keeper).startswith("it is no memory file")


def test_no_descriptor_is_left_open(keeper: Keeper) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    keeper.daemon()
    copy(keeper, 0)
    for index, mapped in ((0, 1), (1, 2)):  # one to go on with; one that is refused, with the new one kept
        before = descriptors()
        stats = SharedStats(WORKERS, ROOM, before=os.dup(keeper.fds[index]), keep=keeper.keep)
        assert descriptors() - before == mapped, "that of the mapping, and that of the keeper"
        del stats


def test_a_daemon_began_when_it_did_whatever_it_goes_on_with(keeper: Keeper) -> None:
    first = keeper.daemon()
    first.started -= 1000
    begun = time.time()
    assert keeper.daemon().started >= begun - 1
