"""``reload``, ``restart``, ``scale``, ``pause`` and ``resume`` of pipelinectl against a real daemon."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from supervised import Daemon, daemons

from pipelined.cli import operate
from pipelined.cli.settings import Settings
from pipelined.config.tree import Config
from pipelined.errors import ConfigError, UnavailableError, UsageError
from waiting import until


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    with daemons(tmp_path) as make:
        yield make


def ctl(run: Daemon, command: str, *arguments: str) -> Result:
    """Call a command; what it raises is raised here."""
    settings = Settings(None, tuple(f"{key}={run.order[key]}" for key in ("state_dir", "runtime_dir")))
    result = CliRunner().invoke(getattr(operate, command), arguments, obj=settings, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result


def test_reload_waits_and_tells_what_changed_and_who_restarted(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"download": {"drains": 0.2}, "upload": {}}).start()
    (run.folder / "values").write_text(json.dumps({"download.concurrency": 60}))
    done = ctl(run, "reload")
    assert (done.return_value, done.stdout) == (
        0,
        "download.concurrency: 50 → 60\ndownload/0 is renewed\n",
    )
    assert ctl(run, "reload").stdout == "nothing has changed\n"
    (run.folder / "values").write_text(json.dumps({"download.concurrency": 60, "supervisor.healthy_s": 3.0}))
    assert "nobody had to restart" in ctl(run, "reload").stdout


def test_a_refused_reload_tells_every_problem_and_ends_with_78(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"upload": {}}).start()
    (run.folder / "wrong").touch()
    with pytest.raises(ConfigError) as error:
        ctl(run, "reload")
    assert error.value.problems == [
        "one thing is wrong",
        "and another",
        "refused: the daemon goes on with what it had",
    ]
    assert run.worker("upload")["restarts"] == 0


def test_a_configuration_that_this_command_cannot_read_is_refused_as_well(
    daemon: Callable[..., Daemon],
) -> None:
    run = daemon({"upload": {}}).start()

    def wrong() -> Config:
        raise ConfigError(["line 3 is wrong"])

    result = CliRunner().invoke(operate.reload, obj=wrong, standalone_mode=False)
    assert isinstance(result.exception, ConfigError)
    assert result.exception.problems[-1].startswith("refused")
    assert run.status()["state"] == "running"


def test_a_reload_that_was_put_back_ends_with_1(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"download": {"raises": "config", "at_format": "text"}, "upload": {}}).start()
    (run.folder / "values").write_text(json.dumps({"logs.format": "text"}))
    failed = ctl(run, "reload")
    assert failed.return_value == 1
    assert "download/0 is put back" in failed.stdout
    assert "download/0 does not come up: FATAL: exit 78: configuration" in failed.stderr
    assert "the reload was put back: the daemon goes on with what it had" in failed.stderr
    assert run.status()["state"] == "running"


def test_a_restart_that_fails_does_not_say_that_it_was_put_back(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"download": {"processes": 2}, "upload": {}}).start()
    (run.folder / "now-wrong").touch()
    failed = ctl(run, "restart", "download")
    assert failed.return_value == 1
    assert "download/0 is renewed, but FATAL: exit 78: configuration" in failed.stdout
    assert "download/1 was left as it was" in failed.stdout
    assert "the restart of download failed; there is nothing to put back" in failed.stderr


def test_a_wait_that_is_over_first_ends_with_124_and_the_daemon_goes_on(
    daemon: Callable[..., Daemon],
) -> None:
    run = daemon({"upload": {"drains": 1.0}}).start()
    assert ctl(run, "restart", "upload", "--timeout", "0.1").return_value == 124
    until(lambda: run.ask(cmd="operation")["operation"]["state"] == "done")
    assert ctl(run, "restart", "upload", "--timeout", "0").return_value == 0


def test_scale_tells_each_process(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"upload": {}}).start()
    assert ctl(run, "scale", "upload", "3").stdout == (
        "workers.upload.processes: 1 → 3\nupload/1 is added\nupload/2 is added\n"
    )
    assert "upload/2 is removed" in ctl(run, "scale", "upload", "2").stdout
    with pytest.raises(ConfigError, match="only 16"):
        ctl(run, "scale", "upload", "17")
    with pytest.raises(UsageError, match="no worker type 'nosuch'"):
        ctl(run, "scale", "nosuch", "1")


def test_pause_and_resume(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"upload": {}}).start()
    assert "upload is paused" in ctl(run, "pause", "upload").stdout
    assert run.worker("upload")["reason"] == "paused by an operator"
    assert ctl(run, "resume", "upload").stdout == "upload goes on\n"
    assert run.worker("upload")["reason"] == ""
    assert run.stop() == 0
    with pytest.raises(UnavailableError, match="no daemon listens"):
        ctl(run, "pause", "upload")
