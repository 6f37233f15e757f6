"""Several hosts on one cluster: they share the work, and what one of them leaves behind, others do."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from cable import Cable

from flow import RUNNING, Flow, event, trace_ids
from pipelined.ledger import Balance
from pipelined.local.fileserver import file_path
from waiting import until

pytestmark = [pytest.mark.timeout(240), pytest.mark.xdist_group("own-kafka")]

CHUNK = 40
IN_TURN = {"event-writer", "result-processor"}  # one host commits to a table, the others stand by
PARTITIONS = {"retry-scheduler": 2}  # one for each tier
KAFKA_TYPES = frozenset(RUNNING) - {"table-maintenance", "endpoint"}


@pytest.fixture
def host(flow: Flow) -> Iterator[Callable[..., Flow]]:
    """Makes more hosts of the test's installation; ``flow`` itself is the host named "here"."""
    with contextlib.ExitStack() as stack:

        def make(name: str, **settings: object) -> Flow:
            return stack.enter_context(flow.beside(name, settings))

        yield make


@contextlib.contextmanager
def feeding(flow: Flow, seed: int) -> Iterator[Future[int]]:
    """Load events in the background, a chunk every 0.15 s; the result is how many."""
    end = threading.Event()

    def feed() -> int:
        day = flow.day(100_000, seed).lines()
        loaded = 0
        for number in itertools.count():
            if end.wait(0.15):
                return loaded
            url = flow.files_url + file_path("ok", 5_000, number, "GENERIC.pdf")
            loaded += flow.load([*itertools.islice(day, CHUNK), event(next(trace_ids(1)), [url])])
        raise AssertionError

    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(feed)
        try:
            yield loading
        finally:
            end.set()


def owners(flow: Flow) -> dict[str, Counter[str]]:
    """For each worker type how many partitions each host has."""
    found: dict[str, Counter[str]] = {worker: Counter() for worker in KAFKA_TYPES}
    answer = flow.ctl("members", "--json")
    assert answer.returncode == 0, answer.stderr
    for member in json.loads(answer.stdout):
        if member["turn"] is None:
            found[member["worker_type"]][member["host"]] += len(member["partitions"])
    return found


def share(flow: Flow, hosts: Sequence[str], patience: float = 30) -> float:
    """Wait until exactly these hosts share all partitions of every type; seconds that took."""
    began = time.monotonic()

    def shared() -> bool:
        return all(
            set(of_type) <= set(hosts)
            and of_type.total() == PARTITIONS.get(worker, 3)
            and len(+of_type) == (1 if worker in IN_TURN else min(len(hosts), of_type.total()))
            for worker, of_type in owners(flow).items()
        )

    until(shared, f"{hosts} share the work: {owners(flow)}", patience)
    return time.monotonic() - began


def processes(flow: Flow, worker: str) -> list[int]:
    """The process of a type, by its number, that has each partition."""
    found = json.loads(flow.ctl("members", "--json").stdout)
    return sorted(
        member["index"] for member in found if member["worker_type"] == worker for _ in member["partitions"]
    )


def done(flow: Flow, loading: Future[int]) -> Balance:
    """Everything that was loaded is accounted for, and done: the generated day has its own few failures."""
    balance = flow.settle()
    assert balance.read == loading.result()
    assert balance.completed > 100
    assert balance.failed < balance.completed / 10
    return balance


def send(flow: Flow, number: signal.Signals) -> None:
    """A signal to every process of a host."""
    for pid in flow.processes():
        os.kill(pid, number)


def test_hosts_that_join_and_leave_under_load_share_the_work(flow: Flow, host: Callable[..., Flow]) -> None:
    flow.start()
    with feeding(flow, 11) as loading:
        flow.until_worker("upload", lambda worker: worker["records_out"] > 50, "is at work")
        second = host("second").start()
        share(flow, ["here", "second"])
        second.until_worker("upload", lambda worker: worker["records_out"] > 50, "is at work")
        third = host("third").start()
        share(flow, ["here", "second", "third"])
        third.until_worker("download", lambda worker: worker["records_out"] > 20, "is at work")
        assert owners(flow)["result-processor"] == {"here": 3}, "the first one commits to the tables"
        assert flow.ctl("stop", "--leave").returncode == 0
        moved = share(flow, ["second", "third"])
        print(f"the work of a host that left had moved {moved:.1f} s after its end, the looks included")
    done(flow, loading)
    assert not any("Concurrent transaction" in each.log() for each in (flow, second, third)), "one writer"
    assert second.stop() == 0
    assert third.stop() == 0


def test_a_type_stopped_by_an_operator_gives_its_partitions_to_the_others_long_before_the_session_ends(
    flow: Flow, host: Callable[..., Flow]
) -> None:
    flow.configure({"kafka.session_timeout_s": 60.0, "kafka.transaction_timeout_s": 20.0})
    flow.start()
    second = host("second").start()
    share(flow, ["here", "second"])
    for worker in ("download", "result-processor"):
        assert second.ctl("stop", worker).returncode == 0
        began = time.monotonic()
        until(lambda worker=worker: owners(flow)[worker] == {"here": 3}, f"{worker} has moved", 20)
        print(f"{worker}: moved {time.monotonic() - began:.1f} s after its end, this look included")
    flow.load(flow.day(100, seed=5).lines())
    flow.settle()

    # A restart is no leave: the partitions wait for it, all of 60 s if need be.
    before = owners(flow)["upload"]
    assert second.stop() == 0
    assert owners(flow)["upload"] == before
    second.start()
    assert owners(flow)["upload"] == before


def test_a_host_that_dies_whole_is_replaced_and_its_cached_files_are_fetched_again(
    flow: Flow, host: Callable[..., Flow]
) -> None:
    flow.start()
    second = host("second").start()
    share(flow, ["here", "second"])
    for each in (flow, second):
        assert each.ctl("stop", "upload").returncode == 0
    with feeding(flow, 12) as loading:
        # What it has fetched lies in its cache, and nowhere else; and it is who commits to the tables.
        flow.until_worker("download", lambda worker: worker["records_out"] > 40, "has fetched files")
        died = time.monotonic()
        flow.end()
        assert second.ctl("start", "upload").returncode == 0
        share(second, ["second"])
        print(f"the work of a dead host had moved {time.monotonic() - died:.1f} s after its death")
    done(second, loading)
    assert second.workers()["upload"]["failures"]["transient"] > 40, "what lay in the cache of the dead"


def test_the_members_of_a_dead_host_are_removed_by_hand_and_those_of_a_running_one_are_not(
    flow: Flow, host: Callable[..., Flow]
) -> None:
    flow.configure({"kafka.session_timeout_s": 60.0, "kafka.transaction_timeout_s": 20.0})
    flow.start()
    second = host("second").start()
    share(flow, ["here", "second"])
    second.end()
    assert owners(flow)["download"].keys() == {"here", "second"}
    refused = flow.ctl("members", "--remove", "here", "--yes")
    assert (refused.returncode, "stop --leave" in refused.stderr) == (64, True)
    unknown = flow.ctl("members", "--remove", "elsewhere", "--yes")
    assert (unknown.returncode, "hosts with members: here, second" in unknown.stderr) == (64, True)
    unsure = flow.ctl("members", "--remove", "second")
    assert unsure.returncode == 130
    assert owners(flow)["download"].keys() == {"here", "second"}, "it was asked, and nobody said yes"
    assert flow.ctl("members", "--remove", "second", "--yes").returncode == 0
    print(f"moved {share(flow, ['here'], 20):.1f} s after the removal")
    flow.load(flow.day(100, seed=6).lines())
    flow.settle()


def test_fewer_processes_after_a_restart_leave_no_partition_waiting_for_the_others(flow: Flow) -> None:
    flow.configure(
        {
            "kafka.session_timeout_s": 60.0,
            "kafka.transaction_timeout_s": 20.0,
            "workers.download.processes": 3,
        }
    )
    flow.start()
    until(lambda: processes(flow, "download") == [0, 1, 2], "three share the partitions")
    assert flow.stop() == 0
    flow.configure({"workers.download.processes": 1})
    flow.start()
    until(lambda: processes(flow, "download") == [0, 0, 0], "one has them all", 20)
    flow.load(flow.day(100, seed=7).lines())
    flow.settle()
    assert flow.stop() == 0


def test_a_host_that_stands_still_for_longer_than_its_session_is_a_zombie_and_does_no_harm(
    flow: Flow, host: Callable[..., Flow]
) -> None:
    flow.start()
    with feeding(flow, 13) as loading:
        second = host("second").start()
        share(flow, ["here", "second"])
        second.until_worker("download", lambda worker: worker["records_out"] > 40, "is at work")
        send(second, signal.SIGSTOP)
        share(flow, ["here"])
        send(second, signal.SIGCONT)
        share(flow, ["here", "second"])
        before = {worker["type"]: worker["records_in"] for worker in second.status()["workers"]}
        second.until_worker(
            "download", lambda worker: worker["records_in"] > before["download"] + 20, "works again"
        )
    done(flow, loading)
    log = second.log()
    assert "partitions lost" in log or "took over" in log or "starts anew" in log, log[-5000:]
    assert second.stop() == 0


def test_a_host_cut_off_from_the_brokers_loses_its_work_to_the_others_and_comes_back(
    flow: Flow, host: Callable[..., Flow], tmp_path: Path
) -> None:
    ports = [int(url.rpartition(":")[2]) for url in (flow.config.kafka.bootstrap, flow.files_url)]
    flow.start()
    with Cable(tmp_path, ports) as cable, feeding(flow, 14) as loading:
        second = host("second")
        second.wrapper = cable.enter
        second.start()
        share(flow, ["here", "second"])
        second.until_worker("download", lambda worker: worker["records_out"] > 40, "is at work")
        cable.cut()
        share(flow, ["here"])
        until(lambda: any(w["state"] == "RUNNING" for w in second.status()["workers"]), "it lives on")
        cable.mend()
        share(flow, ["here", "second"])
        before = second.workers()["download"]["records_in"]
        second.until_worker("download", lambda worker: worker["records_in"] > before + 20, "works again")
    done(flow, loading)
