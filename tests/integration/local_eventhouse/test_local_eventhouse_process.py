"""The life of a local Eventhouse: it starts, keeps what it was given, and ends with its owner."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import kustoqueries as kql
from pipelined.errors import UnavailableError
from pipelined.local.eventhouse import Eventhouse

COMMAND = [sys.executable, "-m", "pipelined.local.eventhouse"]


def rows(house: Eventhouse, text: str) -> list[list[Any]]:
    connection = http.client.HTTPConnection(house.url.removeprefix("http://"), timeout=60)
    connection.request("POST", "/v2/rest/query", json.dumps({"db": house.database, "csl": text}))
    frames = json.loads(connection.getresponse().read())
    connection.close()
    (table,) = (frame for frame in frames if frame.get("TableKind") == "PrimaryResult")
    found: list[list[Any]] = table["Rows"]
    return found


def test_the_tables_and_cursors_outlive_the_server(tmp_path: Path) -> None:
    with Eventhouse(tmp_path / "house", database="claims") as house:
        house.command(kql.CREATE)
        house.ingest(kql.TABLE, [{"type": "a"}, {"type": "b"}])
        cursor = rows(house, kql.CURRENT)
        stamps = rows(house, f"{kql.TABLE} | project ingestion_time()")
    with Eventhouse(tmp_path / "house", database="claims") as house:
        assert rows(house, kql.CURRENT) == cursor
        assert rows(house, f"{kql.TABLE} | project ingestion_time()") == stamps
        house.ingest(kql.TABLE, [{"type": "c"}])
        assert int(rows(house, kql.CURRENT)[0][0]) > int(cursor[0][0])
        after = f"{kql.TABLE} | where cursor_after('{cursor[0][0]}') | project ['type']"
        assert rows(house, after) == [["c"]]


def test_what_was_acknowledged_outlives_a_kill(tmp_path: Path) -> None:
    house = Eventhouse(tmp_path)
    house.command(kql.CREATE)
    house.ingest(kql.TABLE, [{"type": "visible"}])
    (hidden,) = house.ingest(kql.TABLE, [{"type": "hidden"}], delay=None)
    (lagging,) = house.ingest(kql.TABLE, [{"type": "lagging"}], cursor_lag=None)
    house.kill()
    url = house.url
    with Eventhouse(tmp_path, port=int(url.rpartition(":")[2])) as house:
        assert house.url == url
        types = f"{kql.TABLE} | project ['type'] | order by ['type'] asc"
        assert rows(house, types) == [["lagging"], ["visible"]]
        assert rows(house, f"{kql.TABLE} | where cursor_after('') | project ['type']") == [["visible"]]
        house.reveal(hidden)
        house.seal(lagging)
        assert rows(house, types) == [["hidden"], ["lagging"], ["visible"]]
        assert rows(house, f"{kql.TABLE} | where cursor_after('') | count") == [[3]]


def test_settings_are_given_at_the_start() -> None:
    with Eventhouse(max_records=3, tokens=["one", "two"]) as house:
        told = house.change_settings()
        assert (told["max_records"], told["tokens"]) == (3, ["one", "two"])
        house.command(kql.CREATE)
        assert house.command(".show tables")[0][0] == kql.TABLE


def test_two_servers_do_not_share_a_folder(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Eventhouse(tmp_path):
        with pytest.raises(UnavailableError, match="did not start"):
            Eventhouse(tmp_path)
        assert "another server may have it" in capfd.readouterr().err


def test_a_taken_port_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    with Eventhouse() as house:
        port = int(house.url.rpartition(":")[2])
        with pytest.raises(UnavailableError):
            Eventhouse(port=port)
    assert f"cannot listen on 127.0.0.1:{port}" in capfd.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_announces_itself_and_ends_cleanly_on_a_signal(
    number: signal.Signals, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = [*COMMAND, "--directory", str(tmp_path), "--port", "0"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        about = json.loads(process.stdout.readline())
        assert about["url"].startswith("http://127.0.0.1:")
        assert about["pid"] == process.pid
        os.kill(process.pid, number)
        assert process.wait(30) == 0
    assert capfd.readouterr().err == ""


def test_the_command_ends_when_its_stdin_closes_and_takes_its_own_folder_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdin
        process.stdout.readline()
        assert list(tmp_path.glob("eventhouse-*"))
        process.stdin.close()
        assert process.wait(30) == 0
    assert not list(tmp_path.iterdir())


def test_the_server_ends_with_an_owner_that_was_killed(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from pipelined.local.eventhouse import Eventhouse\n"
        "house = Eventhouse(Path(sys.argv[1])); print(house.pid, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout
        pid = int(owner.stdout.readline())
        owner.kill()
    deadline = time.monotonic() + 30
    while _runs(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(pid)


def _runs(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_whoever_starts_one_does_not_load_the_engine() -> None:
    program = (
        "import sys; import pipelined.local.eventhouse\n"
        "print(*sorted({'duckdb', 'duckdb_kql', 'antlr4', 'azure', 'requests'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
