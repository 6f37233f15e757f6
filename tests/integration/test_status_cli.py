"""``pipelinectl status`` in every state that a daemon can be in, and with a file that was just broken."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from operators import CTL, command, ctl, whereabouts
from supervised import ENVIRONMENT, Daemon, daemons

from pipelined import __version__
from pipelined.cli.status import _pss
from pipelined.supervisor.pidfile import holder


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    with daemons(tmp_path) as make:
        yield make


def test_a_daemon_that_is_well_and_one_that_is_not_differ_in_code_and_sentence(
    daemon: Callable[..., Daemon],
) -> None:
    run = daemon({"download": {}, "upload": {"raises": "config", "once": True}}).start()
    shown = ctl(run, "status")
    head, _, download, upload, remark = shown.stdout.splitlines()
    assert (shown.returncode, shown.stderr) == (1, "")
    assert head.startswith(f"pipelined {__version__} (pid {run.pid}) is degraded, up ")
    assert head.endswith(
        ": 1 of 2 run; upload/0 was given up (exit 78: configuration: kafka.bootstrap is wrong): mend that, "
        "then `pipelinectl start upload`"
    )
    cells = download.split()
    assert cells[:2] == ["download/0", "RUNNING"]
    assert cells[2] == str(run.worker("download")["pid"])
    assert re.fullmatch(r"\d+M", cells[4]), "we may see the memory of our own children"
    assert upload.split()[:2] == ["upload/0", "FATAL"]
    assert re.fullmatch(
        r"upload/0: exit 78: configuration; last error \d+s ago: kafka.bootstrap is wrong", remark
    )
    assert ctl(run, "status", "download").returncode == 0, "of one type, only that counts"
    assert ctl(run, "status", "upload").returncode == 1

    assert ctl(run, "start", "upload").returncode == 0
    well = ctl(run, "status", "--json")
    assert (well.returncode, well.stderr) == (0, "")
    document = json.loads(well.stdout)
    assert [worker["state"] for worker in document["workers"]] == ["RUNNING", "RUNNING"]
    assert all(worker["pss_bytes"] > 0 for worker in document["workers"])
    assert ctl(run, "status", "endpoint").returncode == 64


def test_a_daemon_that_starts_is_well_one_that_stops_is_not_and_a_dead_one_is_69(
    daemon: Callable[..., Daemon],
) -> None:
    run = daemon({"download": {"waits": 8, "drains": 8}}).start(until_ready=False)
    run.wait_for("download", "start")
    starting = ctl(run, "status")
    assert (starting.returncode, "is starting" in starting.stdout) == (0, True), starting
    assert "waits for download/0" in starting.stdout
    run.wait_for("download", "ready")
    run.signal(signal.SIGTERM)
    run.wait_for("download", "stop")
    stopping = ctl(run, "status")
    assert (stopping.returncode, "download/0 still to drain" in stopping.stdout) == (1, True), stopping
    run.kill()
    dead = ctl(run, "status")
    assert (dead.returncode, dead.stdout) == (69, "")
    assert dead.stderr.startswith(
        f"error: no daemon listens on {run.order['runtime_dir']}/control.sock; start"
    )


def test_a_stopped_parent_is_told_from_a_dead_one_within_seconds(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"download": {}}).start()
    run.signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        hung = ctl(run, "status")
        assert time.monotonic() - began < 20
        assert (hung.returncode, hung.stdout) == (69, "")
        assert hung.stderr == (
            f"error: the daemon (pid {run.pid}) exists, but does not answer within 5 s: it was stopped by a "
            f"signal; `kill -CONT {run.pid}` has it go on\n"
        )
    finally:
        run.signal(signal.SIGCONT)
    assert ctl(run, "status").returncode == 0


def test_the_memory_of_a_process_that_is_another_ones_by_now_is_not_shown(
    daemon: Callable[..., Daemon],
) -> None:
    run = daemon({"download": {}}).start()
    pid = run.worker("download")["pid"]
    assert (_pss(pid, run.pid) or 0) > 0
    assert _pss(pid, 1) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_the_memory_that_the_user_may_not_see_is_not_shown(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"download": {}}).start()
    pid = run.worker("download")["pid"]
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        os._exit(0 if _pss(pid, run.pid) is None else 1)
    _, ended = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(ended) == 0


def test_a_daemon_without_its_socket_is_not_called_dead(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"download": {}}).start()
    (Path(run.order["runtime_dir"]) / "control.sock").unlink()
    shown = ctl(run, "status")
    assert shown.returncode == 69
    assert f"the daemon (pid {run.pid}) exists, but nobody listens on" in shown.stderr


def test_a_daemon_of_another_version_is_told_with_the_command_that_came_with_it(tmp_path: Path) -> None:
    theirs = tmp_path / "bin" / "pipelinectl"
    theirs.parent.mkdir()
    theirs.touch()
    state, runtime = tmp_path / "state", tmp_path / "run"
    state.mkdir()
    runtime.mkdir()
    # A process that holds the lock, started by a command of the other installation.
    lock = "import fcntl, os, sys, time; f = open(sys.argv[1], 'w'); fcntl.flock(f, 2); "
    lock += "f.write(str(os.getpid())); f.flush(); print(flush=True); time.sleep(600)"
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    words = [str(tmp_path / "bin" / "python"), "-S", "-c", lock, str(state / "pipelined.pid")]
    with (
        subprocess.Popen(words, stdout=subprocess.PIPE) as other,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener,
    ):
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == b"\n"
            assert holder(str(state)) == other.pid
            listener.bind(str(runtime / "control.sock"))
            listener.listen()

            def answer() -> None:
                peer, _ = listener.accept()
                with peer:
                    peer.recv(4096)
                    peer.sendall(b'{"v": 7, "ok": false, "error": "use the other one"}\n')

            threading.Thread(target=answer, daemon=True).start()
            shown = command(f"--set=state_dir={state}", f"--set=runtime_dir={runtime}", "status")
        finally:
            other.kill()
    assert shown.returncode == 69
    assert "this end speaks version 1 of the protocol, and was spoken to in 7" in shown.stderr
    assert shown.stderr.endswith(f"use the pipelinectl that came with it: {theirs}\n")


def test_it_is_waited_for_a_state_of_the_daemon_and_of_a_type(daemon: Callable[..., Daemon]) -> None:
    run = daemon({"download": {"waits": 1}, "upload": {}})
    waiting = subprocess.Popen(
        [*CTL, *whereabouts(run), "status", "--wait-for", "running", "--timeout", "1m"],
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    with waiting:
        run.start(until_ready=False)
        told, _ = waiting.communicate(timeout=60)
    assert (waiting.returncode, "is running" in told) == (0, True)
    assert ctl(run, "status", "upload", "--wait-for", "RUNNING", "--timeout", "10s").returncode == 0
    late = ctl(run, "status", "upload", "--wait-for", "STOPPED", "--timeout", "200ms")
    assert (late.returncode, late.stdout) == (124, "")
    assert late.stderr == "not STOPPED within 0.2 s: upload/0 is RUNNING\n"
    assert run.stop() == 0
    assert ctl(run, "status", "--wait-for", "STOPPED", "--timeout", "10s").returncode == 0
    gone = ctl(run, "status", "--wait-for", "RUNNING", "--timeout", "200ms")
    assert (gone.returncode, "no daemon listens" in gone.stderr) == (124, True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("nosuch",),
        ("--wait-for", "nosuch"),
        ("upload", "--wait-for", "DEGRADED"),
        ("--timeout", "30s"),
        ("--wait-for", "RUNNING", "--timeout", "soon"),
        ("--wait-for", "RUNNING", "--watch"),
        ("--wait-for", "RUNNING", "--json"),
    ],
)
def test_arguments_that_do_not_fit_together_are_refused(arguments: tuple[str, ...], tmp_path: Path) -> None:
    shown = command(f"--set=state_dir={tmp_path}", f"--set=runtime_dir={tmp_path}", "status", *arguments)
    assert (shown.returncode, shown.stdout) == (64, "")
    assert "rror: " in shown.stderr


def test_a_running_daemon_is_seen_and_stopped_while_its_file_is_broken(
    daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    run = daemon({"download": {}}).start()
    file = tmp_path / "pipelined.toml"
    folders = "".join(f'{key} = "{run.order[key]}"\n' for key in ("state_dir", "runtime_dir"))
    file.write_text(folders + "[kafka\nbootstrap =\n")
    broken = ("--config", str(file))

    seen = command(*broken, "status")
    assert (seen.returncode, "is running" in seen.stdout) == (0, True)
    (warning,) = seen.stderr.splitlines()
    assert warning.startswith(f"warning: the configuration is broken: {file}: is not valid TOML")
    assert json.loads(command(*broken, "status", "--json").stdout)["pid"] == run.pid

    assert command(*broken, "config", "check").returncode == 78
    assert command(*broken, "start").returncode == 78
    one_type = command(*broken, "stop", "download")
    assert (one_type.returncode, one_type.stdout) == (0, "download/0 is STOPPED: stopped\n")
    stopped = command(*broken, "stop")
    assert (stopped.returncode, stopped.stdout) == (0, "stopped\n")
    assert run.end() == 0
    assert command(*broken, "start").returncode == 78, "nothing is started on a file that is wrong"
    assert holder(run.order["state_dir"]) is None
