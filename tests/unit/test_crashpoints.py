"""Crash points: declared once, each called, each tested for every worker; nothing without the variable."""

from __future__ import annotations

import ast
import importlib.util
import logging
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import pipelined
from pipelined import crashpoints
from pipelined.config import WORKER_TYPES
from pipelined.config.loading import RESERVED
from pipelined.crashpoints import VARIABLE, Point, armed
from pipelined.errors import ConfigError, ExitCode

ROOT = Path(pipelined.__file__).parent
CHAOS = ROOT.parent / "tests" / "chaos" / "test_crash_points.py"

PASSES = """
from pipelined.crashpoints import Point, crashpoint, enter
enter("upload")
for number in range(3):
    print(number, flush=True)
    crashpoint(Point.STORED, lambda: print("first", flush=True))
"""


def calls() -> Iterator[tuple[str, str]]:
    """Module and member of every ``crashpoint(Point.X …)`` of the package."""
    for path in ROOT.rglob("*.py"):
        if path.name == "crashpoints.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "crashpoint":
                point = ast.unparse(node.args[0])
                assert point.startswith("Point."), f"{path}:{node.lineno}: name the point where it is passed"
                yield str(path.relative_to(ROOT)), point.removeprefix("Point.")


def process(folder: Path | None, program: str = PASSES) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    environment |= {"PYTHONPATH": str(ROOT.parent)} | ({VARIABLE: str(folder)} if folder else {})
    return subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_every_call_names_a_declared_point_and_every_point_is_called() -> None:
    called = Counter(calls())
    assert {point for _, point in called} == set(Point.__members__)
    assert set(called.values()) == {1}, "two places of a module would not be told apart"


def test_every_point_of_every_worker_type_has_a_test() -> None:
    spec = importlib.util.spec_from_file_location("crash_point_tests", CHAOS)
    assert spec is not None
    assert spec.loader is not None
    chaos = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(chaos)
    [marked] = [mark for mark in chaos.test_a_worker_killed_at.pytestmark if mark.name == "parametrize"]
    assert set(marked.args[1]) == {(point, worker) for point in Point for worker in point.workers}


def test_labels_are_different_and_workers_exist() -> None:
    assert len({point.label for point in Point}) == len(Point)
    for point in Point:
        assert point.workers
        assert set(point.workers) <= {*WORKER_TYPES, "load", "backfill"}
        assert point.stands.endswith(".")
        assert point.follows.endswith(".")
        assert re.fullmatch(r"[a-z]+\.[a-z_]+", point.label)


def test_every_worker_that_takes_part_in_the_promise_has_points() -> None:
    # The endpoint shows, and the maintenance tidies: neither takes anything in.
    promised = {*WORKER_TYPES, "load", "backfill"} - {"endpoint", "table-maintenance"}
    assert {worker for point in Point for worker in point.workers} == promised


def test_without_the_variable_nothing_happens_and_nothing_is_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)

    def looked() -> list[str]:
        raise AssertionError("it looked")

    crashpoints.enter("upload")
    monkeypatch.setattr(crashpoints, "armed", looked)
    crashpoints.crashpoint(Point.STORED)
    assert process(None).returncode == 0


def test_an_armed_point_kills_the_process_there_and_only_once(tmp_path: Path) -> None:
    armed_file = tmp_path / "upload:upload.stored"
    armed_file.touch()
    ended = process(tmp_path)
    assert (ended.returncode, ended.stdout) == (-signal.SIGKILL, "0\nfirst\n")
    assert not armed_file.exists()
    assert "crash points are on" in ended.stderr
    assert process(tmp_path).returncode == 0, "the file is gone, and so is the crash"


def test_a_number_in_the_file_means_the_so_many_th_time(tmp_path: Path) -> None:
    (tmp_path / "upload:upload.stored").write_text("3")
    ended = process(tmp_path)
    assert (ended.returncode, ended.stdout) == (-signal.SIGKILL, "0\n1\n2\nfirst\n")


def test_a_point_of_another_worker_type_is_not_hit(tmp_path: Path) -> None:
    (tmp_path / "download:file.renamed").touch()
    assert process(tmp_path).returncode == 0
    assert (tmp_path / "download:file.renamed").exists()


def test_a_process_that_is_no_worker_never_crashes(tmp_path: Path) -> None:
    (tmp_path / "upload:upload.stored").touch()
    program = PASSES.replace('enter("upload")\n', "")
    assert process(tmp_path, program).returncode == 0


@pytest.mark.parametrize(
    "name", ["upload:file.renmaed", "uploader:file.renamed", "load:upload.stored", "file.renamed"]
)
def test_a_name_that_is_no_point_of_that_worker_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).touch()
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(ConfigError, match=re.escape(name)):
        armed()


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="cannot be read"):
        armed()


def test_the_daemon_does_not_start_with_a_crash_point_that_does_not_exist(tmp_path: Path) -> None:
    (tmp_path / "points").mkdir()
    (tmp_path / "points" / "download:no.such_point").touch()
    program = "from pipelined.cli.pipelined import main; import sys; sys.argv = ['pipelined', 'run']; main()"
    ended = process(tmp_path / "points", program)
    assert ended.returncode == ExitCode.CONFIG
    assert "download:no.such_point is no WORKER:POINT" in ended.stderr


def test_what_is_armed_is_logged_when_a_worker_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "upload:upload.stored").touch()
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    monkeypatch.setattr(crashpoints, "_worker", "")
    with caplog.at_level(logging.WARNING):
        crashpoints.enter("download")
    assert "upload:upload.stored" in caplog.text
    assert VARIABLE in RESERVED, "or the configuration would refuse it"
