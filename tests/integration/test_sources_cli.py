"""``pipelinectl sources`` and ``backfill`` as an operator gives them, beside workers that run."""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from eventhouse_table import Event, Table, events
from kafka_tools import Working, declared, read
from pipelined.cli.pipelinectl import pipelinectl
from pipelined.config.loading import load
from pipelined.config.tree import Config
from pipelined.errors import ConfigError, UsageError
from pipelined.kafka.settings import Names
from pipelined.kafka.transactions import Transactor
from pipelined.local.eventhouse import Eventhouse
from pipelined.sources.eventhouse import EventhouseSource
from pipelined.stages.contract import Stream
from pipelined.stats import registry as metrics
from pipelined.stats.slots import Child
from pipelined.workers import source as runtime
from pipelined.workers.pressure import Pressure
from pipelined.workers.source import SourceRuntime
from waiting import until

WORKER = "eventhouse-poller"


@pytest.fixture(scope="module")
def house() -> Iterator[Eventhouse]:
    with Eventhouse() as server:
        yield server


@pytest.fixture
def table(house: Eventhouse) -> Iterator[Table]:
    made = Table(house)
    yield made
    made.close()


class Site:
    """A configuration file, and the command with it."""

    def __init__(self, config: Config, file: Path) -> None:
        self.config = config
        self._file = file

    def ctl(self, *arguments: str) -> Result:
        return CliRunner().invoke(pipelinectl, ["--config", str(self._file), *arguments])

    def eventhouse(self) -> dict[str, Any]:
        """The Eventhouse as ``sources show`` has it."""
        found = self.ctl("sources", "show", "--json")
        assert found.exception is None, found.exception
        states: list[dict[str, Any]] = json.loads(found.stdout)
        return next(state for state in states if state["source"] == "eventhouse")


@pytest.fixture
def site(kafka_bootstrap: str, domain: str, table: Table, tmp_path: Path) -> Iterator[Site]:
    where = table.section
    file = tmp_path / "pipelined.toml"
    file.write_text(
        f'domain = "{domain}"\n[kafka]\nbootstrap = "{kafka_bootstrap}"\nhost = "h1"\n'
        "session_timeout_s = 6.0\ntransaction_timeout_s = 4.0\n"
        f'[eventhouse]\nurl = "{where.url}"\ndatabase = "{where.database}"\ntable = "{where.table}"\n'
        "page_rows = 100\npoll_seconds = 0.1\n"
        '[eventhouse.auth]\nmethod = "none"\n[retry]\npause_s = 0.2\n'
        "[topics]\nreplication_factor = 1\nmin_insync_replicas = 1\n[topics.checkpoints]\npartitions = 1\n"
        + "".join(f"[topics.{name}]\npartitions = 2\n" for name in ("events_raw", "events_ingested"))
        + "[workers.eventhouse_poller]\nprocesses = 1\n"
    )
    with declared(load(file, environ={}).config) as config:
        yield Site(config, file)


def polling(config: Config) -> Working:
    def make(stats: Child, should_stop: Callable[[], bool]) -> SourceRuntime:
        return SourceRuntime(
            config,
            source=EventhouseSource(config),
            transactor=Transactor(config, Names(config).group(WORKER), stats.beat),
            pressure=Pressure(config.sources, lambda: {"event-ingester": 0}),
            stats=stats,
            should_stop=should_stop,
        )

    return Working(make).ready()


def sent(config: Config) -> Counter[str]:
    return Counter(json.loads(message.value)["traceId"] for message in read(config, Stream.RAW))


def ids(rows: list[Event], times: int = 1) -> Counter[str]:
    return Counter({row["traceId"]: times for row in rows})


def test_a_source_that_never_read_and_one_that_is_not_configured_are_shown_as_such(site: Site) -> None:
    told = site.ctl("sources", "show").stdout
    assert "eventhouse: enabled" in told
    assert "none yet: it begins where its section's start says" in told
    assert "eventhub: not enabled" in told
    assert "not configured: eventhub.bootstrap, eventhub.topic" in told


def test_a_position_is_shown_in_words_and_as_times_without_a_daemon(site: Site, table: Table) -> None:
    table.ingest(events(30))
    poller = polling(site.config)
    until(lambda: len(read(site.config, Stream.RAW)) == 30)
    until(lambda: site.eventhouse()["newest"])
    poller.stop()
    state = site.eventhouse()
    assert state["enabled"] is True
    assert state["key"] == EventhouseSource(site.config).key
    assert "all rows up to cursor" in state["words"]
    now = dt.datetime.now(dt.UTC)
    for name in ("newest", "written"):
        assert abs(now - dt.datetime.fromisoformat(state[name])) < dt.timedelta(minutes=2)


@pytest.mark.parametrize("to", ["beginning", "2020-01-01"])
def test_a_poller_that_has_nothing_to_do_is_fenced_and_reads_again(
    site: Site, table: Table, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    monkeypatch.setattr(runtime, "_KEEP_S", 0.3)
    monkeypatch.setattr(runtime, "_STAND_DOWN_S", 0.1)
    rows = events(30)
    table.ingest(rows)
    poller = polling(site.config)
    until(lambda: sent(site.config) == ids(rows))
    done = site.ctl("sources", "reset", "eventhouse", "--to", to, "--yes")
    assert done.exception is None, done.exception
    assert "eventhouse is set: at the first row" in done.stdout
    assert "becomes a second row" in done.stderr
    poller.ended()  # its turn is over: the next one begins where it was set to
    again = polling(site.config)
    until(lambda: sent(site.config) == ids(rows, 2))
    again.stop()


def test_a_poller_that_waits_for_a_decision_takes_it(
    site: Site, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "_KEEP_S", 0.3)
    monkeypatch.setattr(runtime, "_STAND_DOWN_S", 0.1)
    table.ingest(events(30))
    poller = polling(site.config)
    until(lambda: len(read(site.config, Stream.RAW)) == 30)
    assert table.local
    table.local.restart_cursors()
    later = events(5)
    table.ingest(later)
    until(lambda: poller.stats.gauge(metrics.PAUSED) == 1)
    assert site.ctl("sources", "reset", "eventhouse", "--to", "now", "--yes").exception is None
    poller.ended()
    newest = events(7)
    again = polling(site.config)
    table.ingest(newest)
    until(lambda: ids(newest).keys() <= sent(site.config).keys())
    again.stop()
    assert not ids(later).keys() & sent(site.config).keys(), "they are skipped, as was decided"


def test_an_event_hub_is_set_to_its_beginning_its_end_and_a_time(site: Site, domain: str) -> None:
    bootstrap = site.config.kafka.bootstrap
    hub = NewTopic(f"{domain}.hub", 2, 1)
    brokers = AdminClient({"bootstrap.servers": bootstrap})
    brokers.create_topics([hub])[hub.topic].result(30)
    producer = Producer({"bootstrap.servers": bootstrap})
    for number in range(6):
        stamp = 1_767_621_600_000 + number * 1000  # from 2026-01-05T14:00:00Z on
        producer.produce(hub.topic, b"{}", partition=number % 2, timestamp=stamp)
    assert producer.flush(20) == 0
    settings = [f"eventhub.bootstrap={bootstrap}", f"eventhub.topic={hub.topic}"]
    options = [f"--set={each}" for each in [*settings, "eventhub.security_protocol=PLAINTEXT"]]
    try:
        for to, offsets in [
            ("beginning", "0@0, 1@0"),
            ("now", "0@3, 1@3"),
            ("2026-01-05T14:00:03Z", "0@2, 1@1"),
            ("2026-01-06", "0@3, 1@3"),
        ]:
            done = site.ctl(*options, "sources", "reset", "eventhub", "--to", to, "--yes")
            assert done.exception is None, done.exception
            assert f"eventhub is set: next offsets {offsets}" in done.stdout
            assert offsets in site.ctl(*options, "sources", "show").stdout
    finally:
        brokers.delete_topics([hub.topic])[hub.topic].result(30)


def test_without_yes_and_without_a_terminal_nothing_is_changed(site: Site) -> None:
    refused = site.ctl("sources", "reset", "eventhouse", "--to", "now")
    assert isinstance(refused.exception, UsageError)
    assert "add --yes" in str(refused.exception)
    assert site.eventhouse()["written"] is None


def test_a_source_that_is_not_configured_cannot_be_set(site: Site) -> None:
    refused = site.ctl("sources", "reset", "eventhub", "--to", "now", "--yes")
    assert isinstance(refused.exception, ConfigError)
    assert "eventhub.bootstrap is needed" in str(refused.exception)


def test_a_place_that_is_none_is_refused(site: Site) -> None:
    refused = site.ctl("sources", "reset", "eventhouse", "--to", "yesterday", "--yes")
    assert isinstance(refused.exception, UsageError)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--from", "2026-01-05"],
        ["--from", "2026-01-05", "--to", "2999-01-01"],
        ["--from", "2026-01-05", "--to", "2026-01-06", "--from-cursor", "1"],
        ["--from", "2026-01-05", "--to", "2026-01-06", "--rate", "fast"],
    ],
)
def test_a_range_that_cannot_be_meant_is_refused(site: Site, arguments: list[str]) -> None:
    refused = site.ctl("backfill", *arguments)
    assert refused.exception is not None
    assert refused.exit_code != 0
    assert read(site.config, Stream.RAW) == []


def test_a_backfill_tells_how_it_went(site: Site, table: Table) -> None:
    rows = events(130)
    table.ingest(rows)
    now = dt.datetime.now(dt.UTC)
    span = ["--from", (now - dt.timedelta(hours=1)).isoformat(), "--to", now.isoformat()]
    done = site.ctl("backfill", *span, "--rate", "10,000/s")
    assert done.exception is None, done.exception
    assert "130 rows read: 130 are on events.raw, 0 were in the table already" in done.stdout
    until(lambda: sent(site.config) == ids(rows))
    assert "done already: 130 rows" in site.ctl("backfill", *span).stdout
