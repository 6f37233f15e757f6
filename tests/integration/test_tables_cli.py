"""``pipelinectl tables``: what is shown, what is done, how it ends."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from deltalake import DeltaTable
from sinks import DAY, chunk

from pipelined.cli.tables import tables
from pipelined.config.tree import Config
from pipelined.config.work import Tables
from pipelined.errors import UnavailableError, UsageError
from pipelined.lake import schemas
from pipelined.lake.tables import sink

TOPICS = {"xact_events": "xact.events.ingested", "xact_attachments": "xact.downloads.results"}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Three tables, of three commits of two rows each."""
    config = Config(tables=Tables(url=(tmp_path / "tables").as_uri()))
    for spec in schemas.TABLES:
        name = spec.name("xact")
        worker = "event-writer" if name == "xact_events" else "result-processor"
        table = sink(config, spec, app=f"xact.{worker}")
        table.open()
        for start in range(0, 6, 2):
            topic = TOPICS.get(name, "xact.downloads.results")
            table.commit([chunk(range(start, start + 2), (topic, 0), spec=spec)])
    return config


def ctl(config: Config, *arguments: str) -> Result:
    """Call a command; what it raises is raised here."""
    result = CliRunner().invoke(tables, arguments, obj=lambda: config, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result


def version(config: Config, name: str = "xact_events") -> int:
    return DeltaTable(f"{config.tables.url}/{name}").version()


@pytest.mark.parametrize("command", [["compact"], ["vacuum"], ["checkpoint"]], ids=lambda words: words[0])
def test_what_changes_a_table_changes_nothing_without_apply(config: Config, command: Sequence[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path(config.tables.url[7:]).rglob("*")}
    assert ctl(config, *command).return_value is None
    assert {path: path.stat().st_mtime_ns for path in Path(config.tables.url[7:]).rglob("*")} == before


def test_compact_tells_what_it_would_do_and_then_does_it(config: Config) -> None:
    told = ctl(config, "compact", "xact_events").output.splitlines()
    assert told[0] == "xact_events"
    assert told[1].startswith(f"  {DAY}: 3 files, ")
    assert told[2] == "  3 files would be joined; add --apply"
    assert ctl(config, "compact", "--apply", "xact_events").output.splitlines()[2] == "  3 files joined"
    assert ctl(config, "compact", "xact_events").output.splitlines()[1] == "  nothing to join"
    assert version(config) == 4
    assert version(config, "xact_attachments") == 3
    (found,) = map(json.loads, ctl(config, "compact", "xact_attachments", "--json").output.splitlines())
    assert (found["table"], found["applied"], found["compacted"]) == ("xact_attachments", False, None)
    assert found["days"][0]["files"] == 3


def test_todays_files_are_left_alone_unless_asked_for(config: Config) -> None:
    today = dt.datetime.now(dt.UTC).date()
    table = sink(config, schemas.FAILED, app="other")
    for start in (0, 2):
        table.commit([chunk([start], spec=schemas.FAILED, day=today)])
    assert str(today) not in ctl(config, "compact", "xact_attachments_failed").output
    assert f"{today}: 2 files" in ctl(config, "compact", "xact_attachments_failed", "--open-days").output


def test_a_vacuum_of_young_files_must_be_confirmed(config: Config) -> None:
    ctl(config, "compact", "--apply")
    assert "nothing to remove" in ctl(config, "vacuum", "--apply").output
    with pytest.raises(UsageError, match="--no-writer-is-running"):
        ctl(config, "vacuum", "--older-than", "23", "--apply")
    told = ctl(config, "vacuum", "--older-than", "0", "--no-writer-is-running", "xact_events").output
    assert "3 files, " in told.splitlines()[-1]
    assert "would be removed; add --apply" in told
    done = ctl(config, "vacuum", "--older-than", "0", "--no-writer-is-running", "--apply", "--json").output
    assert [json.loads(line)["removed"] for line in done.splitlines()] == [3, 3, 3]
    assert len(list((Path(config.tables.url[7:]) / "xact_events").rglob("*.parquet"))) == 1


def test_a_checkpoint_is_written_when_told_to(config: Config) -> None:
    assert "would be written" in ctl(config, "checkpoint").output
    assert "checkpoint of version 3 written" in ctl(config, "checkpoint", "--apply", "xact_events").output
    log = Path(config.tables.url[7:]) / "xact_events" / "_delta_log"
    assert (log / f"{3:020}.checkpoint.parquet").exists()


def test_check_tells_by_its_exit_code(config: Config) -> None:
    clean = ctl(config, "check")
    assert clean.return_value == 0
    assert clean.output.count("  ok") == 3
    assert "  xact.events.ingested/0 stored up to offset 6" in clean.output.splitlines()

    other = sink(config, schemas.EVENTS, app="other")
    other.commit([chunk(range(6, 9), ("t", 0), ids=lambda n: str(n - 6))])
    found = ctl(config, "check", "xact_events")
    assert found.return_value == 1
    assert f"  0:1 has 2 rows, of {DAY}" in found.output.splitlines()
    assert f"  {DAY}: 3 with several rows" in found.output.splitlines()
    assert ctl(config, "check", "xact_events", "--since", "2026-01-06").return_value == 0
    (as_json,) = map(json.loads, ctl(config, "check", "xact_events", "--json").output.splitlines())
    assert as_json["doubled_by_day"] == {DAY.isoformat(): 3}
    assert as_json["positions"]["xact.events.ingested/0"] == 6


def test_a_table_of_failures_may_name_one_attachment_twice(config: Config) -> None:
    failures = sink(config, schemas.FAILED, app="other")
    failures.commit([chunk(range(6, 8), ("t", 0), spec=schemas.FAILED, ids=lambda n: str(n - 6))])
    assert ctl(config, "check", "xact_attachments_failed").return_value == 0


def test_history_shows_versions_rows_and_offsets(config: Config) -> None:
    ctl(config, "compact", "--apply", "xact_events")
    lines = ctl(config, "history", "xact_events", "--limit", "2").output.splitlines()
    assert len(lines) == 3
    assert " OPTIMIZE: 6 rows; files 1 added, 3 removed" in lines[1]
    assert lines[2].endswith(
        "WRITE: 2 rows; files 1 added, 0 removed; xact.event-writer/xact.events.ingested/0=6"
    )
    (as_json,) = map(json.loads, ctl(config, "history", "xact_events", "--json").output.splitlines())
    assert [one["version"] for one in as_json["versions"]] == [4, 3, 2, 1, 0]


@pytest.mark.parametrize("command", ["compact", "vacuum", "checkpoint", "check", "history"])
def test_a_table_of_another_name_is_wrong_usage_and_one_that_is_not_there_unavailable(
    config: Config, tmp_path: Path, command: str
) -> None:
    with pytest.raises(UsageError, match="no table nobody; there are xact_events, xact_attachments"):
        ctl(config, command, "nobody")
    with pytest.raises(UnavailableError, match="there is no table at"):
        ctl(Config(tables=Tables(url=(tmp_path / "none").as_uri())), command)


def test_a_table_that_cannot_be_read_ends_with_the_code_for_it(config: Config) -> None:
    for commit in (Path(config.tables.url[7:]) / "xact_events" / "_delta_log").glob("*.json"):
        commit.write_text("nonsense")
    with pytest.raises(UnavailableError, match="cannot be read or written"):
        ctl(config, "check", "xact_events")
