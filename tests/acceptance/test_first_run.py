"""What somebody sees who has just cloned it: ``run --dev``, ``demo``, make, and bin/."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import realparts
from flow import Marked, event, pipelinectl_command, pipelined_command, trace_ids
from pipelined.config import load
from pipelined.errors import UnavailableError
from pipelined.supervisor.protocol import ask
from waiting import until

ROOT = Path(__file__).parents[2]


@pytest.fixture
def marked() -> Iterator[Marked]:
    realparts.require("the local Kafka", realparts.local_kafka_missing())
    with Marked() as commands:
        yield commands


def is_running(config: Path) -> bool:
    try:
        status: dict[str, Any] = ask(load(config, environ={}).config.runtime_dir, {"cmd": "status"})["status"]
    except UnavailableError:
        return False
    return bool(status["state"] == "running")


@pytest.mark.xdist_group("own-kafka")
@pytest.mark.timeout(150)
def test_run_dev_needs_no_configuration_and_leaves_only_its_folder(marked: Marked, tmp_path: Path) -> None:
    folder, log = tmp_path / "dev", tmp_path / "log"
    daemon = marked.popen(pipelined_command("run", "--dev", "--directory", folder), log, cwd=tmp_path)
    config = folder / "pipelined.toml"

    def is_up() -> bool:
        assert daemon.poll() is None, log.read_text()
        return config.exists() and is_running(config)

    until(is_up, "run --dev is running", 90)
    running = " ".join(marked.processes().values())
    assert "kafka.Kafka" in running
    assert "pipelined.local.fileserver" in running

    events = tmp_path / "events.jsonl"
    events.write_bytes(b"\n".join(event(trace) for trace in trace_ids(20)))
    ctl = ["--config", str(config)]
    assert marked.run(pipelinectl_command(*ctl, "load", events)).returncode == 0
    assert marked.run(pipelinectl_command(*ctl, "ledger", "--wait", "30")).returncode == 0

    os.killpg(daemon.pid, signal.SIGINT)
    assert daemon.wait(60) == 0, log.read_text()
    until(lambda: not marked.processes(), f"nothing is left of it: {marked.processes()}", 5)
    assert config.exists()
    assert (folder / "tables").is_dir()


def demo(marked: Marked, folder: Path, *arguments: str) -> tuple[subprocess.CompletedProcess[str], Any]:
    """Run the demo; its result and the ledger it wrote."""
    ledger = folder / "ledger.json"
    command = pipelined_command("demo", "--directory", folder / "run", "--ledger", ledger, *arguments)
    result = marked.run(command, timeout=150, cwd=folder)
    assert ledger.exists(), result.stdout + result.stderr
    return result, json.loads(ledger.read_text())


@pytest.mark.xdist_group("own-kafka")
@pytest.mark.timeout(180)
def test_the_demo_writes_a_balanced_ledger_of_the_promised_shape(marked: Marked, tmp_path: Path) -> None:
    result, ledger = demo(marked, tmp_path, "--events", "200")
    assert result.returncode == 0, result.stdout + result.stderr
    shape = {key: set(value) for key, value in ledger.items() if isinstance(value, dict) and value}
    assert shape["events"] == {"read", "accepted", "duplicate", "dead", "rows"}
    assert shape["attachments"] == {"expected", "completed", "failed"}
    assert shape["files"] == {"checked", "bytes"}
    assert ledger.keys() >= {"balanced", "events", "attachments", "files", "dead_letters", "differences"}
    assert ledger["balanced"] is True
    assert ledger["differences"] == []
    assert ledger["events"]["read"] == 200
    assert ledger["files"]["checked"] == ledger["attachments"]["completed"] > 0
    assert ledger["files"]["bytes"] > 0
    assert marked.processes() == {}


ODD_LINES = {
    "a good event behind a byte order mark": b"\xef\xbb\xbf" + event("6f0c2b1e-8d3a-4c52-9a77-000000000001"),
    "a good event": event("6f0c2b1e-8d3a-4c52-9a77-000000000002"),
    "the same once more": event("6f0c2b1e-8d3a-4c52-9a77-000000000002"),
    "the same in capitals": event("6F0C2B1E-8D3A-4C52-9A77-000000000002"),
    "not JSON": b"Service Unavailable",
    "an array": b'[{"traceId":"a"}]',
    "a number": b"42",
    "nothing": b"",
    "only blanks": b" \t ",
    "no trace id": b'{"type":"a.b","utcDateTime":"2026-01-05T14:22:31Z","data":{}}',
    "no time": b'{"type":"a.b","traceId":"no-time","data":{}}',
    "a number for a text": b'{"type":"a.b","version":"1","traceId":12345,'
    b'"utcDateTime":"2026-01-05T14:22:31Z","data":{"carrierId":3041234,"note":12.5}}',
    "a megabyte": event("6f0c2b1e-8d3a-4c52-9a77-000000000003").replace(
        b'"assignmentId"', b'"note": "' + b"x" * 1_000_000 + b'", "assignmentId"'
    ),
    "NUL in text": b'{"type":"a.b","traceId":"nul","utcDateTime":"2026-01-05T14:22:31Z",'
    b'"data":{"note":"before\\u0000after"}}',
    "half a surrogate pair": b'{"type":"a.b","traceId":"half","utcDateTime":"2026-01-05T14:22:31Z",'
    b'"data":{"note":"\\ud83d"}}',
    "not UTF-8": b'{"type":"a.b","traceId":"latin","utcDateTime":"2026-01-05T14:22:31Z",'
    b'"data":{"note":"Stra\xdfe"}}',
    "deep": b'{"type":"a.b","traceId":"deep","utcDateTime":"2026-01-05T14:22:31Z","data":'
    + b'{"a":' * 5_000
    + b"1"
    + b"}" * 5_000
    + b"}",
    "payload as text": b'{"type":"a.b","traceId":"text","utcDateTime":"2026-01-05 14:22:31.1234567",'
    b'"data":"{\\"assignmentId\\":\\"05QK7ZD\\"}"}',
    "an attachment nobody may fetch": event(
        "6f0c2b1e-8d3a-4c52-9a77-000000000004", ["https://169.254.169.254/latest/meta-data/a.pdf"]
    ),
    "attachments without an assignment": b'{"type":"a.b","traceId":"homeless",'
    b'"utcDateTime":"2026-01-05T14:22:31Z","data":{"attachments":["https://a.amazonaws.com/b.pdf"]}}',
    "a good event without a line end": event("6f0c2b1e-8d3a-4c52-9a77-000000000005"),
}


@pytest.mark.xdist_group("own-kafka")
@pytest.mark.timeout(180)
def test_a_file_of_odd_lines_balances_in_the_demo(marked: Marked, tmp_path: Path) -> None:
    file = tmp_path / "my.jsonl"
    file.write_bytes(b"\r\n".join(ODD_LINES.values()))
    result, ledger = demo(marked, tmp_path, "--file", str(file))
    assert result.returncode == 0, (ledger, result.stdout, result.stderr)
    assert ledger["balanced"] is True
    events = ledger["events"]
    assert events["read"] == len(ODD_LINES) - 2, "all but the blank ones"
    assert events["duplicate"] == 2
    assert events["rows"] == events["accepted"] == events["read"] - 2 - events["dead"]
    sure_dead = 6  # not JSON, array, number, no trace id, no time, without an assignment
    assert sure_dead <= events["dead"] <= sure_dead + 3
    assert ledger["attachments"] == {"expected": 1, "completed": 0, "failed": 1}
    assert ledger["dead_letters"] == events["dead"] + 1


def test_make_lists_its_targets_and_makes_nothing() -> None:
    result = subprocess.run(["make", "-C", ROOT, "help"], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    told = {line.split()[1] for line in result.stdout.splitlines() if line.startswith("  make ")}
    assert told >= {"run", "test", "setup", "lint"}


@pytest.mark.parametrize("name", ["pipelined", "pipelinectl"])
def test_a_command_of_a_fresh_clone_says_what_to_do_first(name: str, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    shutil.copytree(ROOT / "bin", clone / "bin")
    link = tmp_path / name
    link.symlink_to(clone / "bin" / name)
    for command in (clone / "bin" / name, link):
        result = subprocess.run([command, "--version"], capture_output=True, text=True, check=False)
        assert result.returncode == 69
        assert result.stderr == f"{name}: not set up yet; run: make -C {clone} setup\n"
