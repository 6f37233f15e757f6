"""How the supervisor ends, and what it leaves behind: signals, drains, kill -9, descriptors, threads."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from supervised import Daemon, daemons, is_alive

from waiting import until

FLOW: dict[str, dict[str, Any]] = {"source": {}, "stage": {"processes": 2}, "sink": {}}
HEAVY = ("pyarrow", "deltalake", "obstore", "pycurl", "msgspec", "confluent_kafka", "prometheus_client")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    with daemons(tmp_path) as make:
        yield make


def signal_when_it_counts(run: Daemon, number: signal.Signals) -> None:
    """After the time in which a signal is taken for the same one again."""
    time.sleep(0.55)
    run.signal(number)


def test_a_drain_beyond_its_deadline_is_cut_off_and_told_by_exit_code_124(
    daemon: Callable[..., Daemon],
) -> None:
    run = daemon({"source": {"drains": 60, "drain_s": 0.2}, "sink": {}}).start()
    assert run.stop() == 124
    assert [event["worker"] for event in run.events(what="end")] == ["sink"], "the sink drains all the same"
    assert "did not drain within 0.2 s; killed by SIGKILL" in run.log()


def test_a_worker_that_fails_while_it_drains_is_told_by_exit_code_1(daemon: Callable[..., Daemon]) -> None:
    assert daemon({"source": {"exit": 70}, "sink": {}}).start().stop() == 1


def test_a_second_signal_kills_after_two_seconds_what_has_not_drained(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"source": {"drains": 60, "drain_s": 60}, "sink": {}}).start()
    run.signal(signal.SIGTERM)
    run.wait_for("source", "stop")
    signal_when_it_counts(run, signal.SIGTERM)
    second = time.monotonic()
    assert run.end() == 128 + signal.SIGTERM
    assert 1.9 < time.monotonic() - second < 8


def test_a_third_signal_kills_now(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"source": {"drains": 60, "drain_s": 60}, "sink": {}}).start()
    run.signal(signal.SIGINT)
    run.wait_for("source", "stop")
    signal_when_it_counts(run, signal.SIGINT)
    signal_when_it_counts(run, signal.SIGINT)
    third = time.monotonic()
    assert run.end() == 128 + signal.SIGINT
    assert time.monotonic() - third < 1.4
    assert not any(map(is_alive, run.pids()))


def test_ctrl_c_to_the_whole_group_is_one_clean_stop(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"source": {"drains": 0.3}, "sink": {"drains": 0.3}}).start()
    os.killpg(run.pid, signal.SIGINT)
    run.signal(signal.SIGINT)  # and once more, as a parent passes it on
    assert run.end() == 0
    assert [event["worker"] for event in run.events(what="end")] == ["source", "sink"]


def test_a_kill_of_parent_and_workers_at_once_is_one_clean_stop(daemon: Callable[..., Daemon]) -> None:
    run = daemon(FLOW | {"source": {"drains": 0.3}}).start()
    # As systemd's KillMode=control-group does, or an operator with `pkill`: the workers may be told first.
    for pid in sorted(run.pids(), reverse=True):
        os.kill(pid, signal.SIGTERM)
    run.signal(signal.SIGTERM)
    assert run.end() == 0
    assert not any(map(is_alive, run.pids()))
    assert len(run.events(what="start")) - len(run.events(what="end")) == 0, "each one drained"


def test_a_second_signal_while_types_still_start_kills_those(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"source": {}, "sink": {"waits": 60}}).start(until_ready=False)
    run.wait_for("sink", "start")
    run.signal(signal.SIGTERM)
    signal_when_it_counts(run, signal.SIGTERM)
    second = time.monotonic()
    assert run.end() == 128 + signal.SIGTERM
    assert time.monotonic() - second < 8
    assert run.events("source") == []
    assert not any(map(is_alive, run.pids()))


def test_a_worker_ignores_ctrl_c_and_its_own_group_is_not_the_terminals(
    daemon: Callable[..., Daemon],
) -> None:
    run = daemon({"sink": {}}).start()
    pid = run.worker("sink")["pid"]
    assert os.getpgid(pid) == pid
    os.kill(pid, signal.SIGINT)
    os.kill(pid, signal.SIGHUP)
    assert run.stop() == 0
    assert len(run.events("sink", "end")) == 1


def test_a_stop_while_types_still_start_ends_those_and_starts_no_more(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"source": {}, "stage": {"waits": 0.5}, "sink": {}}).start(until_ready=False)
    run.wait_for("stage", "start")
    assert run.stop() == 0
    assert run.events("source") == []
    assert [event["worker"] for event in run.events(what="end")] == ["stage", "sink"]


def test_a_stop_while_a_worker_backs_off_does_not_wait_for_it(daemon: Callable[..., Daemon]) -> None:
    run = daemon(
        {"source": {}, "sink": {"lives": 0.05, "exit": 3}},
        supervisor={"backoff_first_s": 60.0, "backoff_max_s": 60.0},
    ).start()
    run.until_state("sink", "BACKOFF")
    assert run.stop() == 0
    assert len(run.events("sink", "start")) == 1


def test_a_crash_during_the_stop_is_not_restarted_and_is_told(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"source": {"drains": 1.0}, "sink": {}}, supervisor={"backoff_first_s": 0.0}).start()
    run.signal(signal.SIGTERM)
    run.wait_for("source", "stop")
    os.kill(run.worker("sink")["pid"], signal.SIGKILL)
    sink = run.until_state("sink", "EXITED")
    assert sink["last_exit"] == "killed by SIGKILL"
    assert run.status()["state"] == "stopping"
    assert run.end() == 1
    assert len(run.events("sink", "start")) == 1


def test_a_worker_is_told_from_the_others_by_its_command_line_and_its_name(
    daemon: Callable[..., Daemon],
) -> None:
    run = daemon({"download": {"processes": 2}, "upload": {}}).start()
    for worker in run.status()["workers"]:
        process = Path(f"/proc/{worker['pid']}")
        told = (process / "cmdline").read_bytes().rstrip(b"\0").decode()
        assert told == f"pipelined: {worker['type']}/{worker['index']}"
        assert (process / "comm").read_text().strip() == f"{worker['type']}:{worker['index']}"
    words = Path(f"/proc/{run.pid}/cmdline").read_bytes().split(b"\0")[:-1]
    assert [*map(os.fsdecode, words)] == run.command, "that of the parent is as it was called"


def test_a_killed_supervisor_leaves_no_worker(daemon: Callable[..., Daemon]) -> None:
    run = daemon(FLOW | {"hung": {"hangs": True}, "without-parent-death-signal": {"survives": True}}).start()
    assert len(run.pids()) == 6
    run.signal(signal.SIGKILL)
    run.end()
    until(lambda: not any(map(is_alive, run.pids())), "no worker is left", patience=2)


def test_a_killed_worker_takes_what_it_started_with_it(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"sink": {"forks": True, "once": True}}).start()
    worker = run.events("sink", "start")[0]["pid"]
    children = Path(f"/proc/{worker}/task/{worker}/children").read_text().split()
    assert len(children) == 1
    os.kill(worker, signal.SIGKILL)
    until(lambda: not is_alive(int(children[0])), "the worker's own child is gone", patience=5)


def test_a_signal_right_after_the_fork_is_not_lost(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"sink": {"processes": 4}}).start()
    for _ in range(15):
        # The type stops as soon as it is forked: the signal comes before the child's own handlers stand.
        run.ask(cmd="stop", type="sink")
        run.until_state("sink", "STOPPED")
        run.ask(cmd="start", type="sink")
    run.ask(cmd="stop", type="sink")
    stopped = {"STOPPED"}
    until(lambda: {worker["state"] for worker in run.status()["workers"]} == stopped)
    assert {worker["last_exit"] for worker in run.status()["workers"]} == {"exit 0: done"}


def test_quit_shows_where_the_parent_is_and_it_goes_on(daemon: Callable[..., Daemon]) -> None:
    run = daemon(FLOW).start()
    pids = run.pids()
    for times in (1, 2):
        run.signal(signal.SIGQUIT)
        told = "SIGQUIT: the supervisor wrote its stacks, and goes on"
        until(lambda times=times, told=told: run.log().count(told) == times)
        assert run.log().count("most recent call first") == times, (
            "each of its one thread, and of nobody else"
        )
        assert len(re.findall(r'loop\.py", line \d+ in run\n', run.log())) == times
    assert {worker["state"] for worker in run.status()["workers"]} == {"RUNNING"}
    assert run.pids() == pids
    assert count("task", run.pid) == 1
    assert run.stop() == 0


def test_quit_shows_where_a_parent_hangs(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"sink": {}}, blocks=True).start()
    run.signal(signal.SIGQUIT)
    until(lambda: "in block_the_loop\n" in run.log(), "it is not for the loop to see to that")
    assert "goes on" not in run.log()


def test_quit_shows_where_a_worker_hangs_in_each_thread_and_does_not_end_it(
    daemon: Callable[..., Daemon],
) -> None:
    run = daemon({"source": {"hangs": True, "hang_s": 600, "drain_s": 0.2}, "sink": {}}).start()
    pid = run.worker("source")["pid"]
    for times in (1, 2):
        os.kill(pid, signal.SIGQUIT)
        for function in ("hang_in_this_function", "wait_in_another_thread"):
            until(lambda times=times, line=f"in {function}\n": run.log().count(line) == times)
    assert run.worker("source")["pid"] == pid
    assert run.stop() == 124, "told to stop it is killed in the end"


def test_a_signal_that_means_nothing_ends_nobody(daemon: Callable[..., Daemon]) -> None:
    run = daemon(FLOW).start()
    pids = run.pids()
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        run.signal(number)
        until(lambda number=number: f"{number.name} means nothing to this daemon, it goes on" in run.log())
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE):
        for pid in pids:
            os.kill(pid, number)
    run.signal(signal.SIGPIPE)
    for times, pid in enumerate(pids, 1):
        os.kill(pid, signal.SIGQUIT)
        until(lambda times=times: run.log().count(" in entry\n") == times, "they took all of them")
    assert {worker["state"] for worker in run.status()["workers"]} == {"RUNNING"}
    assert run.pids() == pids
    assert run.stop() == 0


def test_quit_and_the_like_while_types_still_start_or_stop_end_nobody(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"source": {"drains": 0.5}, "stage": {"waits": 0.5}, "sink": {}}).start(until_ready=False)
    run.wait_for("stage", "start")
    for number in (signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
        run.signal(number)
    run.wait_for("daemon", "ready")
    run.signal(signal.SIGTERM)
    run.wait_for("source", "stop")
    for number in (signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
        run.signal(number)
    assert run.end() == 0
    assert [event["worker"] for event in run.events(what="end")] == ["source", "stage", "sink"]


def count(what: str, pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/{what}").iterdir()))


def test_the_supervisor_has_one_thread_with_every_heavy_module_loaded(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"source": {}, "sink": {}}, modules=HEAVY).start()
    run.status()
    assert count("task", run.pid) == 1
    os.kill(run.worker("sink")["pid"], signal.SIGKILL)
    run.wait_for("sink", "ready", 2)
    assert count("task", run.pid) == 1


def descriptors(pid: int) -> list[str]:
    return sorted(str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir())


def test_two_hundred_restarts_leave_no_descriptor_behind_in_parent_or_child(
    daemon: Callable[..., Daemon],
) -> None:
    run = daemon(
        {"source": {}, "sink": {}, "flapping": {"dies": 1}},
        supervisor={"backoff_first_s": 0.0, "max_restarts": 99, "restart_window_s": 600.0},
    ).start()
    run.until_state("flapping", "FATAL")
    before = count("fd", run.pid)
    run.ask(cmd="start", type="flapping")
    run.until_state("flapping", "FATAL")
    assert len(run.events("flapping", "start")) == 200
    until(lambda: count("fd", run.pid) <= before)
    os.kill(run.worker("sink")["pid"], signal.SIGKILL)
    run.wait_for("sink", "ready", 2)
    pid = run.until_state("sink", "RUNNING")["pid"]
    # 0, 1, 2, the test's own file of events, the shared counters, the lock, its own death pipe's read end.
    kinds = descriptors(pid)
    assert len([kind for kind in kinds if kind.startswith("pipe:")]) == 1, kinds
    assert not [kind for kind in kinds if kind.startswith(("socket:", "anon_inode:"))], kinds
    assert len(kinds) == 7, kinds


def test_a_dead_worker_is_forked_again_within_20_ms(daemon: Callable[..., Daemon]) -> None:
    run = daemon(
        {"sink": {}}, modules=HEAVY, supervisor={"backoff_first_s": 0.0, "max_restarts": 100}
    ).start()
    times = []
    for count in range(2, 12):
        pid = run.until_state("sink", "RUNNING")["pid"]
        killed = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        times.append(run.wait_for("sink", "start", count)["t"] - killed)
    # The best of them: the machine may be busy with other tests.
    assert min(times) < 0.02, times
