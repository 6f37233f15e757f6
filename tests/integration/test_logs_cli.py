"""``pipelinectl logs`` as a process of its own, on a file that a process logs to."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

import pipelined
from pipelined.cli.logs import logs
from pipelined.cli.settings import Settings
from pipelined.config.tree import Logs
from pipelined.logs.handler import DescriptorHandler
from pipelined.logs.setup import setup

LOG = logging.getLogger("pipelined.test")
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(pipelined.__file__).parents[1])}


class Place:
    """A state folder with the log of a daemon, and the command that reads it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "pipelined.log"
        self.config = folder / "pipelined.toml"
        self.config.write_text(f'state_dir = "{folder}"\nruntime_dir = "{folder}"\n')

    def command(self, *arguments: str) -> list[str]:
        code = "from pipelined.cli.pipelinectl import main; main()"
        return [sys.executable, "-c", code, "--config", str(self.config), "logs", *arguments]

    def logs(self, *arguments: str, code: int = 0) -> list[str]:
        """The lines that it prints."""
        done = subprocess.run(
            self.command(*arguments), capture_output=True, text=True, env=ENVIRONMENT, timeout=60, check=False
        )
        assert done.returncode == code, done.stderr
        self.said = done.stderr
        return done.stdout.splitlines()

    def write(self, form: str, worker: str = "download", level: str = "INFO") -> None:
        """From now on this process logs there, in the name of that worker."""
        with self.file.open("ab") as file:
            os.dup2(file.fileno(), self.descriptor)
        setup(Logs(format=form, level=level), worker=worker, index=1, descriptor=self.descriptor)

    descriptor = -1


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    made.descriptor = os.open(tmp_path / "other", os.O_WRONLY | os.O_CREAT)
    root = logging.getLogger()
    level = root.level
    yield made
    for each in root.handlers[:]:
        if isinstance(each, DescriptorHandler):
            root.removeHandler(each)
            each.close()
    root.level = level
    logging.captureWarnings(False)
    os.close(made.descriptor)


def some_records(place: Place, form: str) -> None:
    place.write(form, "supervisor")
    LOG.info("the daemon stops: %s", "SIGTERM")
    LOG.warning("worker %s/%d is %s%s", "download", 0, "BACKOFF", "", extra={"child": "download/0"})
    place.write(form, "download")
    LOG.warning("slow", extra={"trace_id": "t-17", "error": "no answer"})
    try:
        raise ValueError("nobody expected this")
    except ValueError:
        LOG.exception("broken")
    place.write(form, "upload")
    LOG.info("stored", extra={"trace_id": "t-17"})


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_was_logged_is_shown_in_either_format(place: Place, form: str) -> None:
    some_records(place, form)
    lines = place.logs()
    assert place.said == f"from {place.file}\n"
    assert [line.split("] ", 1)[1] for line in lines if line[0] != " "] == [
        "the daemon stops: SIGTERM",
        "worker download/0 is BACKOFF",
        'slow trace_id=t-17 error="no answer"',
        "broken",
        "stored trace_id=t-17",
    ]
    assert lines[2][23:].startswith(f"Z WARNING [download-1 {os.getpid()}] slow")
    assert [line for line in lines if line.startswith("    ValueError: nobody expected this")]


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (["download"], ["worker", "slow", "broken"]),
        (["supervisor"], ["the", "worker"]),
        (["--level", "warning"], ["worker", "slow", "broken"]),
        (["--level", "ERROR"], ["broken"]),
        (["--trace", "t-17"], ["slow", "stored"]),
        (["upload", "--trace", "t-17"], ["stored"]),
        (["--trace", "t-1"], []),
        (["--lines", "2"], ["broken", "stored"]),
        (["--since", "1h"], ["the", "worker", "slow", "broken", "stored"]),
        (["--since", "2100-01-01"], []),
        (["--lines", "0"], []),
    ],
)
def test_what_is_asked_for_is_found(place: Place, form: str, asked: list[str], found: list[str]) -> None:
    some_records(place, form)
    done = CliRunner().invoke(logs, [*asked, "--json"], obj=Settings(place.config), standalone_mode=False)
    assert [json.loads(line)["message"].split()[0] for line in done.stdout.splitlines()] == found


def test_the_end_of_a_large_file_is_found_soon_and_what_is_far_back_as_well(place: Place) -> None:
    place.write("json")
    LOG.error("long ago")
    line = place.file.read_text().replace("long ago", "between").replace("ERROR", "INFO")
    with place.file.open("a") as file:
        for _ in range(60):
            file.write(line * 500)
    LOG.info("last")
    assert place.file.stat().st_size > 4_000_000
    assert [json.loads(each)["message"] for each in place.logs("--lines", "2", "--json")] == [
        "between",
        "last",
    ]
    assert [json.loads(each)["message"] for each in place.logs("--level", "error", "--json")] == ["long ago"]


def test_lines_that_are_no_records_are_shown_where_nothing_else_is_asked_for(place: Place) -> None:
    place.write("text")
    LOG.info("before")
    with place.file.open("a") as file:
        file.write("Fatal Python error: Aborted\n\nThread 0x1 (most recent call first):\n  File x\n{half\n")
    LOG.info("after")
    lines = place.logs()
    assert lines[1:6] == [
        "Fatal Python error: Aborted",
        "",
        "Thread 0x1 (most recent call first):",
        "  File x",
        "{half",
    ]
    assert len(place.logs("download")) == 2


def test_follow_shows_what_comes_also_to_a_new_file_and_ends_with_0_on_ctrl_c(place: Place) -> None:
    place.write("text")
    LOG.info("before")
    with subprocess.Popen(
        place.command("--follow", "download"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT
    ) as reading:
        assert reading.stdout is not None
        try:
            assert b"before" in reading.stdout.readline()
            LOG.warning("while it reads")
            assert b"while it reads" in reading.stdout.readline()
            place.file.rename(place.folder / "pipelined.log.1")
            place.write("text", "upload")
            LOG.info("of another")
            place.write("text")
            LOG.info("in a new file")
            assert b"in a new file" in reading.stdout.readline()
            reading.send_signal(signal.SIGINT)
            assert reading.wait(10) == 0
            assert reading.stderr is not None
            assert reading.stderr.read().decode() == f"from {place.file}\n"
        finally:
            reading.kill()


def test_a_reader_that_has_enough_is_no_error(place: Place) -> None:
    place.write("json")
    for number in range(5000):
        LOG.info("line", extra={"number": number, "code": number})
    shell = f"{' '.join(map(repr, place.command('--since', '1h')))} | head -1"
    done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, env=ENVIRONMENT, check=True)
    assert done.stdout.count("\n") == 1
    assert done.stderr == f"from {place.file}\n"


def test_where_there_is_no_log_that_is_said(place: Place) -> None:
    assert place.logs(code=69) == []
    assert "no log in" in place.said
    assert place.logs("downloads", code=64) == []
    assert "no worker type 'downloads'" in place.said


def test_a_file_that_is_written_meanwhile_shows_no_half_line(place: Place) -> None:
    place.write("text")
    LOG.info("whole")
    with place.file.open("a") as file:
        file.write("2026-11-24 00:00:00.000Z INFO    [download-1 5] hal")
        file.flush()
        assert len(place.logs()) == 1
        with subprocess.Popen(place.command("-f"), stdout=subprocess.PIPE, env=ENVIRONMENT) as reading:
            assert reading.stdout is not None
            try:
                assert b"whole" in reading.stdout.readline()
                file.write("f a line\n")
                file.flush()
                assert reading.stdout.readline().endswith(b"half a line\n")
            finally:
                reading.kill()


def test_a_full_disk_for_the_log_slows_nobody_and_the_gap_is_told(tmp_path: Path) -> None:
    """A file system of a few blocks is what the log is on; it needs root, as the machine of the tests has."""
    if os.geteuid() != 0:
        pytest.skip("mounting takes root")
    code = f"""
import logging, os, time
from pathlib import Path
from pipelined.config.tree import Logs
from pipelined.logs.setup import dropped, setup
folder = Path({str(tmp_path)!r})
descriptor = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
setup(Logs(format="json", repeats=0), worker="download", index=0, descriptor=descriptor)
log = logging.getLogger("pipelined.test")
slowest = 0.0
for number in range(3000):
    began = time.monotonic()
    log.info("line", extra={{"number": number, "filler": "x" * 300}})
    slowest = max(slowest, time.monotonic() - began)
(folder / "ballast").unlink()
lost = dropped()
log.info("room again")
print(lost, slowest)
print((folder / "log").read_text().splitlines()[-1])
"""
    mounted = f"mount -t tmpfs -o size=300k tmpfs {tmp_path} && head -c 100000 /dev/zero >{tmp_path}/ballast"
    script = f"{mounted} && exec {sys.executable} -c '{code.replace(chr(39), chr(34))}'"
    began = time.monotonic()
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        check=True,
    )
    assert time.monotonic() - began < 30
    (lost, slowest), told = done.stdout.splitlines()[0].split(), json.loads(done.stdout.splitlines()[1])
    assert int(lost) > 1000, done.stderr
    assert float(slowest) < 0.5
    assert (told["event"], told["lines"]) == ("log.dropped", int(lost))
