"""Reloads, scaling, restarts and pauses of a running daemon: what changes, what not, what is put back."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from supervised import Daemon, daemons, is_alive

from waiting import until

FLOW: dict[str, dict[str, Any]] = {"event-ingester": {}, "download": {"processes": 2}, "upload": {}}


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    with daemons(tmp_path) as make:
        yield make


def configure(run: Daemon, **values: Any) -> None:
    (run.folder / "values").write_text(json.dumps({key.replace("__", "."): v for key, v in values.items()}))


def over(run: Daemon, **request: Any) -> dict[str, Any]:
    """Ask for an operation, and return it when it is over."""
    reply = run.ask(**request)
    assert reply["ok"], reply
    return ended(run, reply["operation"]["number"])


def ended(run: Daemon, number: int) -> dict[str, Any]:
    def end() -> dict[str, Any] | None:
        operation = run.ask(cmd="operation", number=number)["operation"]
        return None if operation["state"] in {"checking", "applying"} else operation

    found = until(end, "the operation is over")
    assert isinstance(found, dict)
    return found


def pids(run: Daemon) -> dict[str, int]:
    return {f"{worker['type']}/{worker['index']}": worker["pid"] for worker in run.status()["workers"]}


def test_only_the_types_that_a_change_touches_restart(daemon: Callable[..., Daemon]) -> None:
    run = daemon(FLOW).start()
    before = pids(run)
    configure(run, download__concurrency=60)
    operation = over(run, cmd="reload")
    assert operation["state"] == "done"
    assert operation["changes"] == ["download.concurrency: 50 → 60"]
    assert operation["workers"] == {"download/0": "renewed", "download/1": "renewed"}
    after = pids(run)
    assert {name for name in before if before[name] != after[name]} == {"download/0", "download/1"}
    assert [worker["restarts"] for worker in run.status()["workers"]] == [0, 0, 0, 0], "no crash"
    assert run.events(what="leave") == [], "they come back, and keep their partitions"


def test_workers_restart_one_after_the_other_against_the_flow_each_ready_before_the_next(
    daemon: Callable[..., Daemon],
) -> None:
    run = daemon({name: does | {"drains": 0.1, "waits": 0.1} for name, does in FLOW.items()}).start()
    first = len(run.events())
    configure(run, logs__format="text")
    assert over(run, cmd="reload")["state"] == "done"
    seen = [(e["worker"], e["index"], e["what"]) for e in run.events()[first:] if e["worker"] != "daemon"]
    order = [("upload", 0), ("download", 0), ("download", 1), ("event-ingester", 0)]
    assert seen == [(*who, what) for who in order for what in ("stop", "end", "start", "ready")]
    assert run.events("daemon", "accepted")[0]["format"] == "text"
    assert {event["format"] for event in run.events(what="start")[4:]} == {"text"}


def test_a_hang_up_reloads(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"upload": {}}).start()
    configure(run, logs__format="text")
    run.signal(signal.SIGHUP)
    run.wait_for("daemon", "accepted")
    assert run.events("upload", "start")[-1]["format"] == "text"
    assert "reload, asked by SIGHUP is done: upload/0 renewed" in run.log()


def test_a_reload_of_the_same_configuration_touches_nobody(daemon: Callable[..., Daemon]) -> None:
    run = daemon(FLOW).start()
    before = pids(run)
    operation = over(run, cmd="reload")
    assert (operation["state"], operation["changes"], operation["workers"]) == ("done", [], {})
    assert pids(run) == before


def test_a_wrong_configuration_is_refused_with_every_problem_and_changes_nothing(
    daemon: Callable[..., Daemon],
) -> None:
    run = daemon(FLOW).start()
    before = pids(run)
    configure(run, logs__format="text")
    (run.folder / "wrong").touch()
    operation = over(run, cmd="reload")
    assert (operation["state"], operation["problems"]) == ("refused", ["one thing is wrong", "and another"])
    assert pids(run) == before
    assert "is refused: one thing is wrong" in run.log()
    assert "is refused: and another" in run.log()
    os.kill(before["upload/0"], signal.SIGKILL)
    again = run.wait_for("upload", "start", 2)
    assert again["format"] == "auto", "who restarts gets what was accepted last"
    (run.folder / "wrong").unlink()
    assert over(run, cmd="reload")["state"] == "done"


@pytest.mark.parametrize(
    ("key", "value"), [("domain", "other"), ("kafka.host", "other"), ("supervisor.max_processes", 99)]
)
def test_what_only_a_new_daemon_can_take_over_is_refused_in_words(
    daemon: Callable[..., Daemon], key: str, value: object
) -> None:
    run = daemon({"upload": {}}).start()
    configure(run, **{key: value})
    operation = over(run, cmd="reload")
    assert operation["state"] == "refused"
    assert operation["problems"][0].startswith(f"{key} cannot change while the daemon runs")


def test_a_check_that_breaks_refuses_and_leaves_its_reason_in_the_log(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"upload": {}}).start()
    (run.folder / "broken").touch()
    operation = over(run, cmd="reload")
    assert operation["problems"] == ["its check failed; the log has the reason"]
    assert "RuntimeError: a bug of the check" in run.log()


def test_a_new_configuration_on_which_a_worker_does_not_come_up_is_put_back(
    daemon: Callable[..., Daemon],
) -> None:
    run = daemon(FLOW | {"download": {"processes": 2, "raises": "config", "at_format": "text"}}).start()
    configure(run, logs__format="text", workers__upload__processes=2)
    operation = over(run, cmd="reload")
    assert operation["state"] == "failed"
    assert operation["problems"] == ["download/0 does not come up: FATAL: exit 78: configuration"]
    assert operation["workers"] == {
        "upload/0": "put back",
        "upload/1": "put back",
        "download/0": "put back",
        "download/1": "left as it was",
        "event-ingester/0": "left as it was",
    }
    assert run.status()["state"] == "running"
    assert len(pids(run)) == 4, "the process that was added is gone"
    last = {(e["worker"], e["index"]): e["format"] for e in run.events(what="start")}
    assert {form for who, form in last.items() if who != ("upload", 1)} == {"auto"}
    assert run.events("daemon", "accepted") == []


def test_a_fatal_worker_under_trial_does_not_end_a_daemon_that_exits_on_fatal(
    daemon: Callable[..., Daemon],
) -> None:
    run = daemon(
        {"upload": {"raises": "config", "at_format": "text"}}, supervisor={"on_fatal": "exit"}
    ).start()
    configure(run, logs__format="text")
    assert over(run, cmd="reload")["state"] == "failed"
    assert run.until_state("upload", "RUNNING")
    assert run.stop() == 0


def test_a_worker_that_failed_before_does_not_keep_the_others_from_the_new_configuration(
    daemon: Callable[..., Daemon],
) -> None:
    run = daemon(FLOW | {"upload": {"raises": "config"}}).start()
    configure(run, logs__format="text")
    operation = over(run, cmd="reload")
    assert operation["state"] == "done"
    assert operation["workers"]["upload/0"] == "renewed, but FATAL: exit 78: configuration"
    assert run.events("event-ingester", "start")[-1]["format"] == "text"


def test_a_stopped_type_stays_stopped_and_has_the_new_configuration_when_it_is_started(
    daemon: Callable[..., Daemon],
) -> None:
    run = daemon(FLOW).start()
    run.ask(cmd="stop", type="upload")
    run.until_state("upload", "STOPPED")
    configure(run, logs__format="text", workers__upload__processes=2)
    assert over(run, cmd="reload")["state"] == "done"
    assert {w["state"] for w in run.status()["workers"] if w["type"] == "upload"} == {"STOPPED"}
    run.ask(cmd="start", type="upload")
    run.wait_for("upload", "ready", 3)
    assert [event["format"] for event in run.events("upload", "start")] == ["auto", "text", "text"]


def test_a_reload_while_one_is_under_way_is_refused(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"upload": {"drains": 0.5}}).start()
    configure(run, logs__format="text")
    first = run.ask(cmd="reload")["operation"]["number"]
    for request in ({"cmd": "reload"}, {"cmd": "restart", "type": "upload"}):
        refused = run.ask(**request)
        assert (refused["ok"], "a reload is under way" in refused["error"]) == (False, True)
    run.signal(signal.SIGHUP)
    until(lambda: "SIGHUP changes nothing: a reload is under way" in run.log())
    assert ended(run, first)["state"] == "done"


def test_a_reload_while_the_daemon_starts_is_refused(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"upload": {"waits": 1.0}}).start(until_ready=False)
    run.wait_for("upload", "start")
    assert "still starting" in run.ask(cmd="reload")["error"]
    assert run.stop() == 0


@pytest.mark.parametrize("when", ["checking", "applying"])
def test_a_stop_wins_over_a_reload(daemon: Callable[..., Daemon], when: str) -> None:
    run = daemon(FLOW | {"upload": {"drains": 0.5}}).start()
    configure(run, logs__format="text")
    if when == "checking":
        (run.folder / "slow").touch()
    run.ask(cmd="reload")
    until(lambda: run.ask(cmd="operation")["operation"]["state"] == when)
    assert run.stop() == 0
    assert "is abandoned: the daemon stops" in run.log()
    assert len(run.events(what="start")) == 4, "nobody was started again"
    assert not any(map(is_alive, run.pids()))


def test_who_checks_a_configuration_dies_with_the_daemon(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"upload": {}}).start()
    (run.folder / "slow").touch()
    run.ask(cmd="reload")
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children")

    def checking() -> int | None:
        pids = children.read_text().split()
        found = [pid for pid in pids if "trial" in Path(f"/proc/{pid}/comm").read_text()]
        return int(found[0]) if found else None

    pid = until(checking, "somebody checks")
    assert isinstance(pid, int)
    run.signal(signal.SIGKILL)
    run.end()
    until(lambda: not is_alive(pid), "nobody checks any more")


def test_scaling_up_and_down(daemon: Callable[..., Daemon]) -> None:
    run = daemon(FLOW).start()
    before = pids(run)
    operation = over(run, cmd="scale", type="download", processes=4)
    assert operation["workers"] == {"download/2": "added", "download/3": "added"}
    assert set(pids(run)) - set(before) == {"download/2", "download/3"}
    assert run.status()["state"] == "running"
    assert over(run, cmd="scale", type="download", processes=1)["state"] == "done"
    assert [event["index"] for event in run.events("download", "leave")] == [3, 2, 1]
    assert pids(run) == {name: pid for name, pid in before.items() if name != "download/1"}
    assert over(run, cmd="reload")["workers"] == {"download/1": "added"}, "the configuration decides again"
    assert run.stop() == 0


def test_a_type_that_had_no_process_can_be_scaled_up_and_back_to_none(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"eventhub-reader": {"processes": 0}, "upload": {}}).start()
    assert set(pids(run)) == {"upload/0"}
    assert over(run, cmd="scale", type="eventhub-reader", processes=1)["state"] == "done"
    assert set(pids(run)) == {"eventhub-reader/0", "upload/0"}
    assert over(run, cmd="scale", type="eventhub-reader", processes=0)["state"] == "done"
    refused = over(run, cmd="scale", type="upload", processes=0)
    assert refused["problems"] == ["nothing would run any more: every worker type has processes = 0"]


def test_more_processes_than_there_is_room_for_are_refused(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"upload": {}}, supervisor={"max_processes": 2}).start()
    operation = over(run, cmd="scale", type="upload", processes=3)
    assert (operation["state"], "only 2" in operation["problems"][0]) == ("refused", True)
    assert "cannot have -1" in run.ask(cmd="scale", type="upload", processes=-1)["error"]
    assert over(run, cmd="scale", type="upload", processes=2)["state"] == "done"


def test_a_process_that_is_too_many_goes_though_its_type_is_started_while_it_drains(
    daemon: Callable[..., Daemon],
) -> None:
    run = daemon({"upload": {"processes": 2, "drains": 0.5}}).start()
    number = run.ask(cmd="scale", type="upload", processes=1)["operation"]["number"]
    run.wait_for("upload", "stop")
    run.ask(cmd="start", type="upload")
    assert ended(run, number)["workers"] == {"upload/1": "removed"}
    assert set(pids(run)) == {"upload/0"}


def test_a_killed_worker_among_those_added_is_restarted_like_any_other(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"upload": {}}).start()
    over(run, cmd="scale", type="upload", processes=2)
    os.kill(pids(run)["upload/1"], signal.SIGKILL)
    run.wait_for("upload", "ready", 3)
    until(lambda: run.worker("upload", 1)["restarts"] == 1)


def test_one_type_is_restarted_process_by_process(daemon: Callable[..., Daemon]) -> None:
    run = daemon(FLOW).start()
    before = pids(run)
    operation = over(run, cmd="restart", type="download")
    assert operation["workers"] == {"download/0": "renewed", "download/1": "renewed"}
    after = pids(run)
    assert {name for name in before if before[name] != after[name]} == {"download/0", "download/1"}


def test_a_restart_of_a_type_also_takes_it_out_of_fatal_and_starts_it_when_it_was_stopped(
    daemon: Callable[..., Daemon],
) -> None:
    run = daemon({"download": {"raises": "config", "once": True}, "upload": {}}).start()
    run.ask(cmd="stop", type="upload")
    run.until_state("upload", "STOPPED")
    for name in ("download", "upload"):
        assert over(run, cmd="restart", type=name)["state"] == "done"
        assert run.worker(name)["state"] == "RUNNING"


def test_a_restart_stops_at_the_first_process_that_does_not_come_back(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"download": {"processes": 2}, "upload": {}}).start()
    second = pids(run)["download/1"]
    (run.folder / "now-wrong").touch()
    operation = over(run, cmd="restart", type="download")
    assert operation["state"] == "failed"
    assert operation["workers"]["download/1"] == "left as it was"
    assert pids(run)["download/1"] == second


def test_a_paused_type_is_told_and_stays_so_over_a_restart_until_it_is_resumed(
    daemon: Callable[..., Daemon],
) -> None:
    run = daemon(FLOW).start()
    run.ask(cmd="pause", type="download")
    worker = run.worker("download", 1)
    assert (worker["state"], worker["paused_by_operator"]) == ("RUNNING", True)
    assert worker["reason"] == "paused by an operator"
    os.kill(worker["pid"], signal.SIGKILL)
    until(lambda: run.worker("download", 1)["restarts"] == 1)
    until(lambda: run.worker("download", 1)["state"] == "RUNNING")
    assert run.worker("download", 1)["paused_by_operator"]
    over(run, cmd="scale", type="download", processes=3)
    assert run.worker("download", 2)["paused_by_operator"], "one more of a type that is paused"
    run.ask(cmd="resume", type="download")
    assert not any(worker["paused_by_operator"] for worker in run.status()["workers"])
    assert run.worker("download", 1)["reason"] == ""
    assert not run.worker("upload")["paused_by_operator"]


def test_what_takes_no_records_cannot_be_paused(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"upload": {}, "endpoint": {}}).start()
    assert "endpoint takes no records" in run.ask(cmd="pause", type="endpoint")["error"]
