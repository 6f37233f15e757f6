"""Bad days on the way to an Event Hub: cut and silent connections, throttling, and a hub that is away."""

from __future__ import annotations

import logging
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from hubs import DEADLINE, Hub, event, nothing_more, numbers_of, taken
from pipelined.errors import DependencyError
from pipelined.kafka.hub import HubConnection
from pipelined.local.installation import ensure_kafka
from pipelined.local.kafka import Cluster
from pipelined.local.kafka_config import java_command, log4j_properties, write_properties
from pipelined.sources.eventhub import EventhubSource
from realparts import local_kafka_missing, require
from tcpproxy import Proxy
from waiting import until


@pytest.fixture(scope="module")
def way() -> Iterator[tuple[Cluster, Proxy]]:
    """A hub's cluster, and what stands before it: every client is sent there."""
    require("the local Kafka", local_kafka_missing())
    with Proxy() as proxy, Cluster(sasl=True, told_port=proxy.port) as cluster:
        proxy.target = int(cluster.sasl_bootstrap.rpartition(":")[2])
        yield cluster, proxy


@pytest.fixture
def proxy(way: tuple[Cluster, Proxy]) -> Proxy:
    return way[1]


@pytest.fixture
def hub(way: tuple[Cluster, Proxy], tmp_path: Path, domain: str) -> Hub:
    return Hub(way[0], domain, tmp_path)


def begun(hub: Hub, proxy: Proxy, **changes: object) -> EventhubSource:
    source = EventhubSource(hub.config(eventhub__bootstrap=f"127.0.0.1:{proxy.port}", **changes))
    source.resume(None)
    return source


def test_connections_that_are_cut_lose_and_double_nothing(hub: Hub, proxy: Proxy) -> None:
    note = "x" * 2000
    hub.put(event(number, note=note) for number in range(6_000))
    with closing(begun(hub, proxy, eventhub__page_records=1000)) as source:
        outputs, cuts = taken(source, 1)[0], 0
        while len(outputs) < 6_000:
            proxy.cut()
            cuts += 1
            outputs += taken(source, 1)[0]
        assert nothing_more(source, 0.5) == []
    assert cuts > 4
    assert sorted(numbers_of(outputs)) == list(range(6_000))


def test_a_connection_gone_silent_is_made_anew_and_that_is_said_and_counted(
    hub: Hub, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(begun(hub, proxy, eventhub__stall_seconds=2.0)) as source:
        hub.put([event(1)])
        taken(source, 1)
        proxy.freeze()
        hub.put([event(2)])
        began = time.monotonic()
        with caplog.at_level(logging.WARNING):
            outputs, _ = taken(source, 1)
        assert numbers_of(outputs) == [2]
        assert time.monotonic() - began < 20
        assert source.facts().reconnected == 1
    assert "connecting anew" in caplog.text


def test_events_that_wait_and_do_not_come_are_fetched_by_another_connection(
    hub: Hub, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    consume, stuck = HubConnection.consume, list[HubConnection]()

    def stalling(self: HubConnection, limit: int, timeout: float) -> list[Any]:
        if self in stuck:
            time.sleep(timeout)
            return []
        return list(consume(self, limit, timeout))

    monkeypatch.setattr(HubConnection, "consume", stalling)
    with closing(begun(hub, proxy, eventhub__stall_seconds=2.0)) as source:
        hub.put([event(1)])
        taken(source, 1)
        assert source._connection is not None
        stuck.append(source._connection)
        assert nothing_more(source, 3) == []  # nothing waits: nothing is wrong
        assert source.facts().reconnected == 0
        hub.put([event(2)])
        began = time.monotonic()
        with caplog.at_level(logging.WARNING):
            outputs, _ = taken(source, 1)
        assert 2 <= time.monotonic() - began < 15
        assert source.facts().reconnected == 1
    assert numbers_of(outputs) == [2]
    assert "and none has come for" in caplog.text


def test_a_hub_with_nothing_new_is_left_alone(hub: Hub, proxy: Proxy) -> None:
    with closing(begun(hub, proxy, eventhub__stall_seconds=1.0)) as source:
        hub.put([event(1)])
        taken(source, 1)
        made = proxy.made
        assert nothing_more(source, 3) == []
        assert source.facts().reconnected == 0
        assert proxy.made - made < 10  # now and then it asks whether it is the same hub
        assert not source.probe().waiting


def test_a_hub_that_is_away_is_told_and_read_on_when_it_is_back(hub: Hub, proxy: Proxy) -> None:
    hub.put(event(number) for number in range(10))
    with closing(begun(hub, proxy)) as source:
        outputs, _ = taken(source, 10)
        proxy.refuse()

        def told() -> bool:
            try:
                source.fetch(0.2)
            except DependencyError as error:
                return "gives no answer" in str(error)
            return False

        until(told, "nobody says that the hub is away")
        with pytest.raises(DependencyError):
            source.probe()
        proxy.refuse(on=False)
        hub.put(event(number) for number in range(10, 20))
        deadline = time.monotonic() + DEADLINE
        while len(outputs) < 20 and time.monotonic() < deadline:
            page = source.fetch(0.2)
            outputs += page.outputs if page else ()
    assert sorted(numbers_of(outputs)) == list(range(20))


def test_closing_waits_for_no_hub_that_is_away(hub: Hub, proxy: Proxy) -> None:
    hub.put(event(number) for number in range(10))
    for trouble in (proxy.freeze, proxy.refuse):
        source = begun(hub, proxy)
        _, pages = taken(source, 10)
        trouble()
        source.committed(pages[-1])
        began = time.monotonic()
        source.close()
        assert time.monotonic() - began < 5
        proxy.refuse(on=False)


def test_a_hub_that_throttles_is_told_and_loses_nothing(
    hub: Hub,
    proxy: Proxy,
    way: tuple[Cluster, Proxy],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    note = "x" * 1000
    hub.put(event(number, note=note) for number in range(3000))
    throttle(way[0], tmp_path, "--add-config", "consumer_byte_rate=250000")
    try:
        with closing(begun(hub, proxy, eventhub__stall_seconds=1.0)) as source:
            with caplog.at_level(logging.WARNING):
                outputs, _ = taken(source, 3000, patience=60)
            facts = source.facts()
            assert nothing_more(source, 0.5) == []
    finally:
        throttle(way[0], tmp_path, "--delete-config", "consumer_byte_rate")
    assert sorted(numbers_of(outputs)) == list(range(3000))
    assert facts.throttled > 0
    assert facts.reconnected == 0
    assert "throttles" in caplog.text


def throttle(cluster: Cluster, folder: Path, *change: str) -> None:
    """Change how much every client may take, with Kafka's own tool."""
    installation = ensure_kafka()
    write_properties(folder / "log4j2.properties", log4j_properties(folder / "tool.log"))
    tool = ["kafka.admin.ConfigCommand", "--bootstrap-server", cluster.bootstrap]
    clients = ["--entity-type", "clients", "--entity-default", "--alter", *change]
    command = java_command(installation.java, installation.jars, [*tool, *clients], folder=folder)
    subprocess.run(command, check=True, capture_output=True, timeout=60)
