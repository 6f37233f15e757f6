"""``make run`` from each source, to a ledger that balances against the source itself."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import realparts
from flow import Marked, event, pipelined_command

pytestmark = [pytest.mark.xdist_group("own-kafka"), pytest.mark.timeout(240)]


@pytest.fixture
def marked() -> Iterator[Marked]:
    realparts.require("the local Kafka", realparts.local_kafka_missing())
    with Marked() as commands:
        yield commands


def demo(
    marked: Marked, folder: Path, *arguments: str | Path
) -> tuple[dict[str, Any], subprocess.CompletedProcess[str]]:
    """Run the demo to its good end; its ledger and what it said."""
    ledger = folder / "ledger.json"
    command = pipelined_command("demo", "--directory", folder / "run", "--ledger", ledger, *arguments)
    result = marked.run(command, timeout=210, cwd=folder)
    assert result.returncode == 0, result.stdout + result.stderr
    found: dict[str, Any] = json.loads(ledger.read_text())
    assert found["balanced"] is True
    assert marked.processes() == {}
    return found, result


@pytest.mark.parametrize("source", ["eventhouse", "eventhub"])
def test_a_run_from_one_source_takes_all_that_it_holds_once(
    marked: Marked, tmp_path: Path, source: str
) -> None:
    ledger, result = demo(marked, tmp_path, "--events", "800", "--source", source)
    assert ledger["sources"].keys() == {source}
    found, events = ledger["sources"][source], ledger["events"]
    assert found["held"] == found["taken"] == events["read"]
    assert 780 <= found["held"] <= 800
    assert found["held"] == 800 or source == "eventhouse", "a hub holds every line"
    assert events["rows"] == events["accepted"] == events["read"] - events["duplicate"] - events["dead"]
    assert ledger["files"]["checked"] == ledger["attachments"]["completed"] > 0
    title = {"eventhouse": "Eventhouse", "eventhub": "Event Hub"}[source]
    assert f"] {title} " in result.stdout, "the picture shows the source"


def test_a_run_from_both_has_each_event_once_whichever_brought_it(marked: Marked, tmp_path: Path) -> None:
    ledger, _ = demo(marked, tmp_path, "--events", "800", "--source", "both")
    table, hub, events = ledger["sources"]["eventhouse"], ledger["sources"]["eventhub"], ledger["events"]
    assert table["held"] + hub["held"] == events["read"]
    assert table["only_here"] > 10
    assert hub["only_here"] > 10
    in_both = table["ids"] - table["only_here"]
    assert in_both == hub["ids"] - hub["only_here"] > 600
    assert events["duplicate"] >= in_both - events["dead"]


ODD_LINES = [
    b"\xef\xbb\xbf" + event("6f0c2b1e-8d3a-4c52-9a77-000000000001"),
    event("6f0c2b1e-8d3a-4c52-9a77-000000000002"),
    event("6F0C2B1E-8D3A-4C52-9A77-000000000002"),
    b"Service Unavailable",
    b'[{"traceId":"a"}, 1]',
    b"42",
    b"",
    b'{"type":"a.b","utcDateTime":"2026-01-05T14:22:31Z","data":{}}',
    b'{"type":"a.b","traceId":"no-time","data":{}}',
    b'{"type":"a.b","version":"1","traceId":12345,"utcDateTime":"2026-01-05T14:22:31Z","data":{"note":12.5}}',
    event("6f0c2b1e-8d3a-4c52-9a77-000000000003").replace(
        b'"assignmentId"', b'"note": "' + b"x" * 900_000 + b'", "assignmentId"'
    ),
    b'{"type":"a.b","traceId":"nul","utcDateTime":"2026-01-05T14:22:31Z","data":{"note":"a\\u0000b"}}',
    b'{"type":"a.b","traceId":"half","utcDateTime":"2026-01-05T14:22:31Z","data":{"note":"\\ud83d"}}',
    b'{"type":"a.b","traceId":"latin","utcDateTime":"2026-01-05T14:22:31Z","data":{"note":"Stra\xdfe"}}',
    b'{"type":"a.b","traceId":"text","utcDateTime":"2026-01-05 14:22:31.1234567","data":"{\\"a\\":1}"}',
    b'{"type":"a.b","traceId":"list","utcDateTime":"2026-01-05T14:22:31Z","data":[1,2]}',
]


@pytest.mark.parametrize("source", ["eventhouse", "both"])
def test_a_file_of_odd_lines_balances_from_each_source(marked: Marked, tmp_path: Path, source: str) -> None:
    file = tmp_path / "my.jsonl"
    file.write_bytes(b"\r\n".join(ODD_LINES))
    ledger, result = demo(marked, tmp_path, "--file", file, "--source", source)
    held = {name: found["held"] for name, found in ledger["sources"].items()}
    assert sum(held.values()) == ledger["events"]["read"] > 0
    if source == "eventhouse":
        assert held == {"eventhouse": len(ODD_LINES) - 5}, (
            "all but those that are no events, and the blank one"
        )
        assert "4 lines are no events" in result.stdout
        assert ledger["events"]["duplicate"] == 1
