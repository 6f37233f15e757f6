"""``stop`` and ``start`` of pipelinectl against a real daemon."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from supervised import ENVIRONMENT, Daemon, daemons, is_alive

from pipelined.cli import control
from pipelined.cli.settings import Settings
from pipelined.config.tree import Config
from pipelined.errors import AlreadyRunningError, UsageError
from pipelined.supervisor.pidfile import holder


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    with daemons(tmp_path) as make:
        yield make


def config_of(run: Daemon) -> Config:
    return Config(state_dir=run.order["state_dir"], runtime_dir=run.order["runtime_dir"])


def ctl(run: Daemon, command: str, *arguments: str) -> Result:
    """Call a command; what it raises is raised here."""
    settings = Settings(None, tuple(f"{key}={run.order[key]}" for key in ("state_dir", "runtime_dir")))
    result = CliRunner().invoke(getattr(control, command), arguments, obj=settings, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result


def test_stop_waits_until_the_daemon_is_gone(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"download": {"drains": 0.3}, "upload": {}}).start()
    assert ctl(run, "stop").return_value == 0
    assert holder(run.order["state_dir"]) is None
    assert not any(map(is_alive, run.pids()))
    assert run.end() == 0
    assert ctl(run, "stop").output == "it is not running\n"


def test_stop_gives_up_waiting_with_124_and_the_daemon_goes_on_draining(
    daemon: Callable[..., Daemon],
) -> None:
    run = daemon({"download": {"drains": 1.5}, "upload": {}}).start()
    assert ctl(run, "stop", "--timeout", "0.1").return_value == 124
    assert run.status()["state"] == "stopping"
    assert ctl(run, "stop", "--timeout", "0").return_value == 0
    assert run.end() == 0


def test_one_type_is_stopped_and_started(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"download": {"processes": 2, "drains": 0.2}, "upload": {}}).start()
    stopped = ctl(run, "stop", "download")
    assert (stopped.return_value, stopped.output) == (
        0,
        "download/0 is STOPPED: stopped\ndownload/1 is STOPPED: stopped\n",
    )
    assert ctl(run, "start", "download").output == "download/0 is RUNNING\ndownload/1 is RUNNING\n"
    with pytest.raises(UsageError, match="there is no worker type 'nosuch'"):
        ctl(run, "stop", "nosuch")
    with pytest.raises(UsageError, match="this daemon has download, upload"):
        ctl(run, "start", "endpoint")


def test_a_type_that_does_not_come_up_is_told(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"download": {"raises": "config"}, "upload": {}}).start()
    started = ctl(run, "start", "download")
    assert (started.return_value, started.output) == (1, "download/0 is FATAL: exit 78: configuration\n")


@pytest.fixture
def background(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", ENVIRONMENT["PYTHONPATH"])


@pytest.mark.usefixtures("background")
def test_start_leaves_a_daemon_in_a_session_of_its_own(
    daemon: Callable[..., Daemon], capsys: pytest.CaptureFixture[str]
) -> None:
    run = daemon({"download": {"waits": 0.2}, "upload": {"waits": 0.2}})
    assert control.start_daemon(config_of(run), run.command, 20) == 0
    pid = holder(run.order["state_dir"])
    assert pid is not None
    assert f"the daemon (pid {pid}) is running" in capsys.readouterr().out
    assert os.getsid(pid) == pid
    assert "worker upload/0 is RUNNING" in (Path(run.order["state_dir"]) / "pipelined.log").read_text()
    with pytest.raises(AlreadyRunningError, match=f"pid {pid}"):
        control.start_daemon(config_of(run), run.command, 20)
    assert ctl(run, "stop").return_value == 0


@pytest.mark.usefixtures("background")
def test_a_start_that_fails_shows_the_end_of_the_log_and_its_exit_code(
    daemon: Callable[..., Daemon], capsys: pytest.CaptureFixture[str]
) -> None:
    run = daemon({"upload": {"raises": "config"}})
    assert control.start_daemon(config_of(run), run.command, 20) == 78
    shown = capsys.readouterr().err
    assert "ended with exit code 78" in shown
    assert "kafka.bootstrap is wrong" in shown


@pytest.mark.usefixtures("background")
def test_a_start_that_comes_up_in_part_names_what_did_not(
    daemon: Callable[..., Daemon], capsys: pytest.CaptureFixture[str]
) -> None:
    run = daemon({"download": {}, "upload": {"raises": "config"}})
    assert control.start_daemon(config_of(run), run.command, 20) == 1
    assert "upload/0 is FATAL: exit 78: configuration" in capsys.readouterr().err
    assert run.worker("download")["state"] == "RUNNING", "what did come up goes on"
    assert ctl(run, "stop").return_value == 0
