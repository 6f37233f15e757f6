"""The ledger on the real broker, real tables and real files, filled by hand as the workers would."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from ledger_pipeline import (
    SECTIONS,
    Pipeline,
    attachment,
    event,
    fill,
    identity,
    path_of,
    trace,
    url,
)
from pipelined.cli.ledger import ledger
from pipelined.errors import UnavailableError
from pipelined.ledger import Follower, judge, settled


@pytest.fixture
def pipeline(kafka_bootstrap: str, domain: str, tmp_path: Path) -> Iterator[Pipeline]:
    pipeline = Pipeline(kafka_bootstrap, domain, tmp_path)
    pipeline.create(*SECTIONS)
    yield pipeline
    pipeline.delete()


def test_a_pipeline_that_did_its_work_balances(pipeline: Pipeline) -> None:
    fill(pipeline)
    balance = judge(pipeline.config)
    assert balance.balanced, balance.differences
    assert (balance.read, balance.accepted, balance.duplicate, balance.dead, balance.rows) == (11, 9, 1, 1, 9)
    assert (balance.expected, balance.completed, balance.failed) == (2, 1, 1)
    assert (balance.files_checked, balance.file_bytes, balance.dead_letters) == (1, 7000, 2)
    assert not balance.notes


def test_an_upload_that_has_not_finished_is_no_file_yet(pipeline: Pipeline) -> None:
    pipeline.store("docs/.0a1b2c.part", b"half a fi")
    assert judge(pipeline.config).balanced
    pipeline.store("docs/0a1b2c.part", b"a whole file")
    assert judge(pipeline.config).difference_kinds == {"file_unknown": 1}


def test_empty_topics_without_tables_and_store_balance(pipeline: Pipeline) -> None:
    (pipeline.folder / "files").rmdir()
    balance = judge(pipeline.config)
    assert balance.balanced
    assert balance.read == 0


def _commit(pipeline: Pipeline, name: str, value: object, partition: int = 0) -> None:
    pipeline.begin()
    pipeline.put(name, value, partition)
    pipeline.commit()


CORRUPTIONS: list[tuple[str, str, Callable[[Pipeline], None]]] = [
    ("event_lost", trace(50), lambda p: _commit(p, "events.raw", event(50))),
    ("event_doubled", trace(3), lambda p: _commit(p, "events.ingested", event(3))),
    ("event_doubled_row", trace(3), lambda p: p.append("events", [{"trace_id": trace(3)}])),
    ("file_missing", identity(3), lambda p: (p.folder / "files" / path_of(3)).unlink()),
    ("file_differs", identity(3), lambda p: p.store(path_of(3), b"contenT" * 1000)),
    ("file_unknown", "docs/left over.pdf", lambda p: p.store("docs/left over.pdf", b"")),
    ("attachment_doubled", identity(4), lambda p: p.append("attachments", [attachment(4, "failed")])),
    (
        "dead_letter_doubled",
        identity(4),
        lambda p: _commit(p, "downloads.dlq", {"attachment_id": identity(4)}, 2),
    ),
    ("dead_letter_unknown", "downloads.dlq/2/0", lambda p: _commit(p, "downloads.dlq", b"{what", 2)),
]


@pytest.mark.parametrize(("kind", "about", "corrupt"), CORRUPTIONS)
def test_what_is_corrupted_is_found(
    pipeline: Pipeline, kind: str, about: str, corrupt: Callable[[Pipeline], None]
) -> None:
    fill(pipeline)
    corrupt(pipeline)
    balance = judge(pipeline.config)
    assert (kind, about) in {(found.kind, found.id) for found in balance.differences}, balance.differences


def test_a_broken_record_of_another_topic_is_found_at_the_origin_its_dead_letter_names(
    pipeline: Pipeline,
) -> None:
    fill(pipeline)
    pipeline.create("downloads.pending")
    pipeline.begin()
    pipeline.put("downloads.pending", b"{broken task", 1)
    origin = {"topic": pipeline.topic("downloads.pending"), "partition": "1", "offset": "0"}
    pipeline.put("downloads.dlq", b"{broken task", 2, {f"dlq_origin_{k}": v for k, v in origin.items()})
    pipeline.commit()
    balance = judge(pipeline.config)
    assert balance.balanced, balance.differences
    assert balance.dead_letters == 3


def test_a_replayed_attachment_may_have_a_second_result(pipeline: Pipeline) -> None:
    fill(pipeline)
    _commit(pipeline, "downloads.results", attachment(4, "failed_permanent"), 1)
    _commit(pipeline, "downloads.dlq", {"attachment_id": identity(4)})
    pipeline.append("attachments_failed", [attachment(4, "failed_permanent")])
    assert set(judge(pipeline.config).difference_kinds) == {"result_doubled", "dead_letter_doubled"}
    pipeline.create("downloads.pending")
    pipeline.begin()
    pipeline.put("downloads.pending", {"attachment_id": identity(4)}, 0, {"dlq_replay_of": "0/0"})
    pipeline.put("downloads.pending", {"attachment_id": identity(4)}, 0, {"dlq_replay_of": "0/0"})
    pipeline.put("downloads.pending", {"attachment_id": identity(4)}, 0)
    pipeline.commit()
    balance = judge(pipeline.config)
    assert balance.balanced, balance.differences


def test_records_behind_an_open_transaction_are_told(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelined.ledger.topics._OPEN_PATIENCE", 1.0)
    fill(pipeline)
    pipeline.begin()
    pipeline.put("events.raw", event(60))
    pipeline.flush()
    balance = judge(pipeline.config)
    pipeline.abort()
    assert balance.balanced
    assert balance.notes == [
        "1 records lie behind a transaction that is still open, and are not in this balance"
    ]


def test_the_follower_counts_what_comes_while_it_comes(pipeline: Pipeline) -> None:
    pipeline.create("downloads.retry.5m")
    with Follower(pipeline.config) as follower:
        assert follower.catch_up().settled
        pipeline.begin()
        pipeline.put("events.raw", event(1, url(1)))
        pipeline.put("events.raw", event(1, url(1)))
        pipeline.commit()
        progress = follower.catch_up()
        assert (progress.events_raw, progress.unaccounted, progress.settled) == (2, 2, False)
        pipeline.begin()
        pipeline.put("events.ingested", event(1, url(1)))
        pipeline.put("downloads.retry.5m", {"attachment_id": identity(1)})
        pipeline.commit()
        pipeline.append("events", [{"trace_id": trace(1)}])
        progress = follower.catch_up()
        assert (progress.unaccounted, progress.ingested, progress.event_rows) == (0, 1, 1)
        assert (progress.attachments, progress.results, progress.retrying) == (1, 0, 1)
        assert not progress.settled
        _commit(pipeline, "downloads.results", attachment(1, "completed", b"x"))
        pipeline.append("attachments", [attachment(1, "completed", b"x")])
        progress = follower.catch_up()
        assert (progress.results, progress.completed, progress.retrying) == (1, 1, 0)
        assert progress.settled
    assert settled(pipeline.config) == progress


def test_waiting_ends_when_the_pipeline_has_settled(pipeline: Pipeline) -> None:
    _commit(pipeline, "events.raw", event(1))
    seen = threading.Event()

    def work() -> None:
        seen.wait(30)
        _commit(pipeline, "events.ingested", event(1))
        pipeline.append("events", [{"trace_id": trace(1)}])

    worker = threading.Thread(target=work)
    worker.start()
    began = time.monotonic()
    balance = judge(pipeline.config, 60.0, lambda progress: seen.set() if progress.unaccounted else None)
    took = time.monotonic() - began
    worker.join()
    assert balance.balanced, balance.differences
    assert took < 30


def test_waiting_ends_at_the_deadline(pipeline: Pipeline) -> None:
    _commit(pipeline, "events.raw", event(1))
    balance = judge(pipeline.config, 1.0)
    assert balance.difference_kinds == {"event_lost": 1}


def test_missing_topics_are_named(kafka_bootstrap: str, domain: str, tmp_path: Path) -> None:
    config = Pipeline(kafka_bootstrap, domain, tmp_path).config
    with pytest.raises(UnavailableError, match=rf"no topic {domain}\.downloads\.dlq, .*topics apply"):
        judge(config)


def test_brokers_that_do_not_answer_are_told(
    tmp_path: Path, domain: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelined.ledger.connection._TIMEOUT", 1.0)
    config = Pipeline("127.0.0.1:1", domain, tmp_path).config
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1 does not answer"):
        judge(config)


def test_deleted_records_are_refused_not_guessed_at(pipeline: Pipeline) -> None:
    fill(pipeline)
    pipeline.forget("events.raw", 1, 2)
    with pytest.raises(UnavailableError, match=r"events\.raw begins at offset 2 in partition 1"):
        judge(pipeline.config)


def test_a_table_that_cannot_be_read_is_told(pipeline: Pipeline) -> None:
    fill(pipeline)
    for file in (pipeline.folder / "tables" / f"{pipeline.config.domain}_events").glob("*.parquet"):
        file.write_bytes(b"nonsense")
    with pytest.raises(UnavailableError, match="the table events cannot be read"):
        judge(pipeline.config)


def test_the_command_says_it_by_words_by_json_by_file_and_by_exit_code(pipeline: Pipeline) -> None:
    fill(pipeline)
    file = pipeline.folder / "ledger.json"
    good = CliRunner().invoke(
        ledger, ["--output", str(file)], obj=lambda: pipeline.config, standalone_mode=False
    )
    assert good.return_value == 0
    assert "source events  11  = 9 rows + 1 duplicates + 1 dead" in good.output
    assert json.loads(file.read_text())["balanced"] is True
    assert list(pipeline.folder.glob(".*")) == []
    (pipeline.folder / "files" / path_of(3)).unlink()
    bad = CliRunner().invoke(ledger, ["--json"], obj=lambda: pipeline.config, standalone_mode=False)
    assert bad.return_value == 1
    found = json.loads(bad.stdout)
    assert (found["balanced"], found["differences"][0]["kind"]) == (False, "file_missing")
