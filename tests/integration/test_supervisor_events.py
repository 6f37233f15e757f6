"""What the supervisor tells of what it did, on the real process tree; alive, dead, and on a full disk."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from supervised import ENVIRONMENT, Daemon, daemons

from pipelined.cli.events import events
from pipelined.cli.settings import Settings
from pipelined.errors import UnavailableError, UsageError
from pipelined.supervisor.events import read
from waiting import until


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    with daemons(tmp_path) as make:
        yield make


def filed(run: Daemon) -> list[dict[str, Any]]:
    """What is in the file."""
    return read(run.order["state_dir"])


def told(run: Daemon, worker: str | None = None) -> list[dict[str, Any]]:
    """What the daemon tells, of one worker or of all; of one that has ended what is in the file."""
    assert run.process is not None
    found = filed(run) if run.process.poll() is not None else run.ask(cmd="events")["events"]
    return found if worker is None else [each for each in found if each.get("worker") == worker]


def names(found: list[dict[str, Any]]) -> list[str]:
    return [each["event"] for each in found]


def of(found: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """The first event of that name."""
    return next(each for each in found if each["event"] == name)


def ctl(run: Daemon, *arguments: str) -> Result:
    """Call the command; what it raises is raised here."""
    settings = Settings(
        overrides=(f"state_dir={run.order['state_dir']}", f"runtime_dir={run.order['runtime_dir']}")
    )
    result = CliRunner().invoke(events, arguments, obj=settings, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result


def test_a_life_from_start_to_end_is_told_in_order(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"upload": {}}).start()
    pid = run.worker("upload")["pid"]
    assert run.stop() == 0
    found = told(run)
    assert names(found) == [
        *("daemon-started", "started", "ready", "daemon-up", "signal", "daemon-stopping"),
        *("draining", "stopped", "daemon-ended"),
    ]
    assert found[0]["pid"] == run.pid
    assert {each["pid"] for each in told(run, "upload/0")} == {pid}
    assert of(found, "signal")["why"] == "SIGTERM"
    assert of(found, "daemon-ended")["why"] == "exit 0: done"


def test_a_death_tells_of_what_and_when_it_is_tried_again(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"upload": {}, "endpoint": {}}, supervisor={"max_restarts": 1}).start()
    for times in (1, 2):
        os.kill(run.until_state("upload", "RUNNING")["pid"], signal.SIGSEGV)
        run.wait_for("upload", "ready", times + 1) if times == 1 else run.until_state("upload", "FATAL")
    until(lambda: "fatal" in names(told(run)))
    found = told(run, "upload/0")
    assert names(found) == ["started", "ready", "died", "back-off", "started", "ready", "died", "fatal"]
    assert found[2]["why"] == "killed by SIGSEGV"
    assert found[3]["seconds"] >= 0
    assert found[4]["restarts"] == 1
    assert found[-1]["why"] == "given up after too many restarts; the last: killed by SIGSEGV"


@pytest.mark.timeout(60)
def test_who_was_healthy_is_back_without_a_wait_and_its_end_is_told_before_its_start(
    daemon: Callable[..., Daemon],
) -> None:
    never_waits = {"backoff_first_s": 600, "backoff_max_s": 600, "healthy_s": 0.0}
    run = daemon({"upload": {}}, supervisor=never_waits).start()
    first = run.until_state("upload", "RUNNING")["pid"]
    os.kill(first, signal.SIGKILL)
    run.wait_for("upload", "ready", 2)
    run.until_state("upload", "RUNNING")
    found = told(run, "upload/0")
    assert names(found)[-4:] == ["died", "back-off", "started", "ready"]
    assert (of(found, "died")["pid"], of(found, "back-off")["seconds"]) == (first, 0)
    assert found[-2]["pid"] == run.worker("upload")["pid"] != first
    assert found[-2]["restarts"] == run.worker("upload")["restarts"] == 1
    assert run.worker("upload")["last_exit"] == "killed by SIGKILL"


def test_a_hung_worker_is_told_from_the_silence_to_its_end(daemon: Callable[..., Daemon]) -> None:
    does = {"hangs": True, "once": True, "hang_s": 0.3, "ignores_abort": True}
    run = daemon({"upload": does}).start()
    run.wait_for("upload", "ready", 2)
    found = told(run, "upload/0")
    assert names(found)[:7] == ["started", "ready", "hung", "killed", "died", "back-off", "started"]
    assert of(found, "hung")["why"].startswith("hung: no sign of its work loop for")


def test_more_memory_than_allowed_and_a_drain_that_takes_too_long_are_told(
    daemon: Callable[..., Daemon],
) -> None:
    run = daemon({"upload": {"eats_mb": 120, "memory_mb": 100, "once": True}, "download": {}}).start()
    run.wait_for("upload", "ready", 2)
    assert names(told(run, "upload/0"))[:5] == ["started", "ready", "memory", "died", "back-off"]
    assert "memory_mb" in of(told(run, "upload/0"), "memory")["why"]


def test_a_command_is_told_with_who_gave_it_before_what_came_of_it(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"upload": {}, "download": {}}).start()
    run.ask(cmd="scale", type="upload", processes=2)
    until(lambda: run.ask(cmd="operation")["operation"]["state"] == "done")
    run.ask(cmd="pause", type="upload")
    assert not run.ask(cmd="scale", type="upload", processes=-1)["ok"]
    run.ask(cmd="stop", type="download")
    run.until_state("download", "STOPPED")
    found = told(run, "upload")
    assert [(each["event"], each["why"]) for each in found] == [
        ("command", "scale upload 2"),
        ("outcome", "scale of upload to 2 is done: upload/1 added; workers.upload.processes: 1 → 2"),
        ("command", "pause upload"),
        ("command", "scale upload -1"),
        ("refused", "scale upload -1: upload cannot have -1 processes"),
    ]
    assert {(each["uid"], each["pid"]) for each in found if each["event"] == "command"} == {
        (os.getuid(), os.getpid())
    }
    assert names(told(run, "upload/1")) == ["started", "ready", "paused"]
    ours = [each for each in told(run) if each.get("worker", "").startswith("download")]
    assert names(ours)[2:] == ["command", "draining", "stopped"]


def test_a_reload_by_signal_is_told_with_its_outcome(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"upload": {}}).start()
    (run.folder / "wrong").touch()
    run.signal(signal.SIGHUP)
    outcome = until(lambda: [each for each in told(run) if each["event"] == "outcome"])[0]
    assert outcome["why"] == "reload, asked by SIGHUP is refused: one thing is wrong; and another"
    assert of(told(run), "signal")["why"] == "SIGHUP"


def test_questions_are_no_events(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"upload": {}}).start()
    before = run.ask(cmd="events")["events"]
    run.status()
    run.ask(cmd="operation")
    assert run.ask(cmd="events")["events"] == before
    assert run.ask(cmd="events", number=before[-2]["number"])["events"] == before[-1:]
    assert "whole number" in run.ask(cmd="events", number="7")["error"]


def test_the_events_of_a_killed_daemon_are_read_without_it_and_go_on_with_the_next(
    daemon: Callable[..., Daemon],
) -> None:
    run = daemon({"upload": {}}).start()
    shown = ctl(run, "--json")
    assert shown.stderr == ""
    alive = [json.loads(line) for line in shown.stdout.splitlines()]
    until(lambda: filed(run) == alive, "all is written, also on a disk that is slow today")
    run.signal(signal.SIGKILL)
    run.end()
    dead = ctl(run, "--json")
    assert [json.loads(line) for line in dead.stdout.splitlines()] == alive
    assert "no daemon listens" in dead.stderr
    assert "this is what the state folder has" in dead.stderr
    run.start(until_ready=False).wait_for("daemon", "ready", 2)
    again = [json.loads(line) for line in ctl(run, "--json").stdout.splitlines()]
    assert again[: len(alive)] == alive
    assert names(again)[len(alive) :] == names(alive)


def test_the_command_shows_a_line_for_each_of_a_type_since_a_time(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"upload": {}, "download": {}}).start()
    run.ask(cmd="restart", type="upload")
    until(lambda: run.ask(cmd="operation")["operation"]["state"] == "done")
    lines = ctl(run, "upload").stdout.splitlines()
    assert len(lines) == len([each for each in told(run) if each.get("worker", "").startswith("upload")])
    assert re.fullmatch(
        rf"\S+Z  command          upload                restart upload  \(by \w+, pid {os.getpid()}\)",
        lines[2],
    )
    assert re.fullmatch(r"\S+Z  ready            upload/0              \(after [\d.]+ s, pid \d+\)", lines[1])
    assert ctl(run, "upload", "--lines", "2").stdout.splitlines() == lines[-2:]
    assert ctl(run, "upload", "--since", "5m").stdout.splitlines() == lines
    assert ctl(run, "--since", "2099-01-01").stdout == ""
    with pytest.raises(UsageError, match="no worker type 'sink'"):
        ctl(run, "sink")


def test_without_a_daemon_and_without_a_file_it_says_what_to_do(daemon: Callable[..., Daemon]) -> None:
    with pytest.raises(UnavailableError, match="pipelinectl start"):
        ctl(daemon({"upload": {}}))


def test_follow_goes_on_from_one_daemon_to_the_next(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"upload": {}}).start()
    folders = [f"--set={key}={run.order[key]}" for key in ("state_dir", "runtime_dir")]
    main = "from pipelined.cli.pipelinectl import main; main()"
    command = [sys.executable, "-c", main, *folders, "events", "--follow", "--lines", "0"]
    with (run.folder / "followed").open("wb") as output:
        follower = subprocess.Popen(command, stdout=output, env=ENVIRONMENT | {"PYTHONUNBUFFERED": "1"})
    try:
        # Until it follows: a command that changes nothing shows up.
        until(lambda: run.ask(cmd="resume", type="upload") and (run.folder / "followed").read_text())
        run.signal(signal.SIGKILL)
        run.end()
        run.start(until_ready=False)
        until(lambda: (run.folder / "followed").read_text().count("daemon-up") == 1)
        assert (run.folder / "followed").read_text().count("daemon-started") == 1
        follower.send_signal(signal.SIGINT)
        assert follower.wait(20) == 0
    finally:
        follower.kill()
        follower.wait()


def test_a_full_disk_keeps_nobody_from_anything_and_is_said(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"upload": {}, "download": {}}).start()
    path = Path(run.order["state_dir"]) / "events.jsonl"
    with path.open("ab") as file:
        file.write(b"\n" * 100_000)
    before = resource.prlimit(run.pid, resource.RLIMIT_FSIZE)
    # The limit is for each file of the parent: its log is far shorter.
    resource.prlimit(run.pid, resource.RLIMIT_FSIZE, (path.stat().st_size, before[1]))
    os.kill(run.worker("upload")["pid"], signal.SIGKILL)
    run.wait_for("upload", "ready", 2)
    assert run.ask(cmd="pause", type="download")["ok"]
    assert names(run.ask(cmd="events")["events"])[-1] == "paused"
    assert "paused" not in names(filed(run))
    assert "paused" in ctl(run).stdout, "the daemon has it all the same"
    assert run.log().count("events cannot be written to") == 1
    resource.prlimit(run.pid, resource.RLIMIT_FSIZE, before)
    until(lambda: "paused" in names(filed(run)))
    assert "died" in names(filed(run))


def test_a_request_with_fields_of_another_kind_is_refused_and_its_event_is_short(
    daemon: Callable[..., Daemon],
) -> None:
    run = daemon({"upload": {}}).start()
    assert "unknown command" in run.ask(cmd={"a": 1})["error"]
    assert "unknown command" in run.ask(cmd="stop", type=["x" * 3000])["error"]
    found = [each for each in told(run) if each["event"] in {"command", "refused"}]
    assert len(found) == 4
    assert all(len(each["why"]) < 400 for each in found)
    assert run.status()["state"] == "running"
