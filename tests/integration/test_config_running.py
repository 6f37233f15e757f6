"""``pipelinectl config diff`` and ``version`` against a running daemon, and against none."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from supervised import Daemon, daemons

from pipelined import __version__
from pipelined.cli.config import config
from pipelined.cli.settings import Settings
from pipelined.cli.version import version
from pipelined.errors import ConfigError, UnavailableError, UsageError


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    with daemons(tmp_path) as make:
        yield make


def file_of(run: Daemon, text: str = "", name: str = "pipelined.toml") -> Path:
    """A configuration file for the daemon's folders, with ``text`` besides."""
    file = run.folder / name
    folders = (f'{key} = "{run.order[key]}"' for key in ("state_dir", "runtime_dir"))
    file.write_text("\n".join(folders) + f"\n{text}\n")
    return file


def ctl(command: click.Command, file: Path | None, *arguments: str | Path) -> Result:
    result = CliRunner().invoke(
        command,
        [*map(str, arguments)],
        obj=Settings(file),
        standalone_mode=False,
    )
    if result.exception is not None:
        raise result.exception
    return result


def test_what_a_reload_would_change_is_told_and_nothing_is_changed(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"download": {}, "upload": {}}).start()
    same = ctl(config, file_of(run), "diff")
    lines = [line for line in same.stdout.splitlines() if "processes" not in line]
    text = '[download]\nconcurrency = 60\n[kafka]\nsasl_password = "env:PLANTED"'
    done = ctl(config, file_of(run, text), "diff")
    told = [line for line in done.stdout.splitlines() if "processes" not in line]
    assert done.return_value == 1
    assert [line for line in told if line not in lines][:2] == [
        'kafka.sasl_password: "" → "env:PLANTED"',
        "download.concurrency: 50 → 60",
    ]
    assert any(line.startswith("a reload restarts ") and "download" in line for line in told)
    assert run.worker("download")["restarts"] == 0


def test_another_file_is_held_against_the_same_daemon(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"upload": {}}).start()
    other = run.folder / "other.toml"
    other.write_text('domain = "elsewhere"\n')
    done = json.loads(ctl(config, file_of(run), "diff", other, "--json").stdout)
    assert {"state_dir", "runtime_dir", "domain"} <= {each["key"] for each in done["changes"]}
    assert "domain" in done["refused"]


def test_a_daemon_is_found_though_its_file_is_broken_by_now(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"upload": {}}).start()
    broken = file_of(run, "[download]\nconcurrency = 0")
    right = file_of(run, "[download]\nconcurrency = 7", "right.toml")
    with pytest.raises(ConfigError):
        ctl(config, broken, "diff")
    assert "download.concurrency: 50 → 7" in ctl(config, broken, "diff", right).stdout


def test_two_files_need_no_daemon(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("[upload]\nconcurrency = 4\n")
    new.write_text("[upload]\nconcurrency = 5\n[workers.download]\nprocesses = 3\n")
    done = ctl(config, None, "diff", old, new)
    assert (done.return_value, done.stdout.splitlines()) == (
        1,
        [
            "upload.concurrency: 4 → 5",
            "workers.download.processes: 1 → 3",
            "a reload restarts upload",
            "a reload brings download from 1 to 3 processes",
        ],
    )
    same = ctl(config, None, "diff", old, old)
    assert (same.return_value, same.stdout) == (0, "nothing differs\n")
    with pytest.raises(UsageError):
        ctl(config, None, "diff", old, old, old)


def test_without_a_daemon_there_is_nothing_to_hold_against(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text(f'state_dir = "{tmp_path}"\nruntime_dir = "{tmp_path}"\n')
    with pytest.raises(UnavailableError):
        ctl(config, file, "diff")


def test_the_versions_are_told_with_the_daemons_or_why_it_is_not_known(
    daemon: Callable[..., Daemon], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["click>=8.1", "not-there-at-all>=1", 'pytest>=8; extra == "test"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: asked)
    run = daemon({"upload": {}}).start()
    told = json.loads(ctl(version, file_of(run), "--json").stdout)
    assert (told["pipelined"], told["daemon"]) == (__version__, __version__)
    assert told["libraries"] == {
        "click": importlib.metadata.version("click"),
        "not-there-at-all": "missing",
    }
    absent = tmp_path / "absent.toml"
    absent.write_text(f'state_dir = "{tmp_path}/none"\nruntime_dir = "{tmp_path}/none"\n')
    lines = ctl(version, absent).stdout.splitlines()
    assert lines[0] == f"pipelined {__version__}"
    assert lines[1].startswith("daemon - (no daemon listens")
    assert json.loads(ctl(version, absent, "--json").stdout)["daemon"] is None
