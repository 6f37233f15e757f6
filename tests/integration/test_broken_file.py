"""A running daemon is operated while its configuration file is broken; nothing takes that file over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from operators import command
from supervised import Daemon, daemons


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    with daemons(tmp_path) as make:
        yield make


def broken(run: Daemon) -> Path:
    """The file of this daemon, after somebody edited it."""
    file = run.folder / "pipelined.toml"
    folders = (f'{key} = "{run.order[key]}"\n' for key in ("state_dir", "runtime_dir"))
    file.write_text("".join(folders) + "[nosuch\n")
    return file


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("pause", "upload"), "upload is paused; `pipelinectl resume upload` ends that\n"),
        (("resume", "upload"), "upload goes on\n"),
        (("log-level", "debug", "upload"), "upload logs from DEBUG on\n"),
        (("stop", "upload"), "upload/0 is STOPPED: stopped\n"),
        (("start", "upload"), "upload/0 is RUNNING\n"),
        (("restart", "upload"), "upload/0 is renewed\n"),
        (("scale", "upload", "2"), "workers.upload.processes: 1 → 2\nupload/1 is added\n"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_what_is_done_to_the_workers_is_done_all_the_same(
    daemon: Callable[..., Daemon], arguments: tuple[str, ...], said: str
) -> None:
    run = daemon({"download": {}, "upload": {}}).start()
    done = command("--config", str(broken(run)), *arguments)
    assert (done.returncode, done.stdout) == (0, said), done.stderr
    first = done.stderr.splitlines()[0]
    assert first.startswith("warning: the configuration is broken: ")
    assert f"state_dir {run.order['state_dir']}" in first


@pytest.mark.parametrize("verb", ["reload", "start", "restart"])
def test_what_would_take_it_over_refuses_and_the_daemon_goes_on(
    daemon: Callable[..., Daemon], verb: str
) -> None:
    run = daemon({"upload": {}}).start()
    pid = run.worker("upload")["pid"]
    refused = command("--config", str(broken(run)), verb)
    assert (refused.returncode, refused.stdout) == (78, "")
    assert "is not valid TOML" in refused.stderr
    assert (run.status()["state"], run.worker("upload")["pid"]) == ("running", pid)
