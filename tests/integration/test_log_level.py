"""``pipelinectl log-level`` against a real daemon: nobody restarts, and everybody who is meant follows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from supervised import Daemon, daemons

from pipelined.cli.loglevel import log_level
from pipelined.cli.settings import Settings
from pipelined.errors import UsageError
from waiting import until


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    with daemons(tmp_path) as make:
        yield make


def ctl(run: Daemon, *arguments: str) -> Result:
    """Call the command; what it raises is raised here."""
    settings = Settings(None, tuple(f"{key}={run.order[key]}" for key in ("state_dir", "runtime_dir")))
    result = CliRunner().invoke(log_level, arguments, obj=settings, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result


def test_the_workers_of_one_type_follow_and_nobody_restarts(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"download": {"processes": 2}, "upload": {}}).start()
    done = ctl(run, "debug", "download")
    assert done.stdout == "download logs from DEBUG on\n"
    assert "until the daemon ends" in done.stderr
    run.wait_for("download", "level", 2)
    assert {(e["index"], e["now"]) for e in run.events("download", "level")} == {(0, "DEBUG"), (1, "DEBUG")}
    shown = {
        (each["type"], each["log_level"], each["log_level_by_operator"]) for each in run.status()["workers"]
    }
    assert shown == {("download", "DEBUG", True), ("upload", "INFO", False)}

    assert ctl(run, "default", "download").stdout == "download logs from INFO on\n"
    run.wait_for("download", "level", 4)
    assert [e["now"] for e in run.events("download", "level")][2:] == ["INFO", "INFO"]
    assert run.events("upload", "level") == []
    assert len(run.events(what="start")) == 3, "nobody restarted"


def test_without_a_type_all_of_them_and_the_supervisor_follow(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"download": {}, "upload": {}}).start()
    assert ctl(run, "ERROR").stdout == "".join(
        f"{name} logs from ERROR on\n" for name in ("supervisor", "download", "upload")
    )
    run.wait_for("download", "level")
    run.wait_for("upload", "level")
    assert "the log level of supervisor is ERROR now" in run.log(), "told before it falls silent"
    run.ask(cmd="restart", type="upload")
    run.wait_for("upload", "ready", 2)
    assert "restart of upload" not in run.log(), "INFO is no more logged by the supervisor"
    assert run.worker("upload")["log_level"] == "ERROR", "who starts later is told as well"


def test_a_reload_of_the_level_restarts_nobody_and_leaves_what_an_operator_asked_for(
    daemon: Callable[..., Daemon],
) -> None:
    run = daemon({"download": {}, "upload": {}}).start()
    ctl(run, "error", "upload")
    (run.folder / "values").write_text(json.dumps({"logs.level": "DEBUG"}))
    operation = run.ask(cmd="reload")["operation"]
    until(lambda: run.ask(cmd="operation", number=operation["number"])["operation"]["state"] == "done")
    assert run.wait_for("download", "level")["now"] == "DEBUG"
    assert run.wait_for("upload", "level")["now"] == "ERROR"
    ctl(run, "default")
    assert run.wait_for("upload", "level", 2)["now"] == "DEBUG"
    assert len(run.events(what="start")) == 2, "nobody restarted"


def test_what_does_not_exist_is_refused_and_nothing_changes(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"upload": {}}).start()
    with pytest.raises(UsageError, match="no worker type 'uplod' here; this daemon has supervisor, upload"):
        ctl(run, "debug", "uplod")
    assert "no log level 'loud'" in run.ask(cmd="log-level", level="loud")["error"]
    assert run.worker("upload")["log_level"] == "INFO"
