"""The Event Hub's source against a Kafka that passes for one: everything once, in order, nothing unsaid."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from hubs import Hub, event, nothing_more, numbers_of, taken
from pipelined.errors import ConfigError
from pipelined.kafka.hub import HubConnection
from pipelined.local.kafka import Cluster
from pipelined.sources.eventhub import EventhubSource
from realparts import local_kafka_missing, require
from waiting import until

NewHub = Callable[..., Hub]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    require("the local Kafka", local_kafka_missing())
    with Cluster(sasl=True) as running:
        yield running


@pytest.fixture
def new_hub(cluster: Cluster, tmp_path: Path, domain: str) -> NewHub:
    def make(partitions: int = 2) -> Hub:
        return Hub(cluster, domain, tmp_path, partitions)

    return make


def begun(hub: Hub, position: bytes | None = None, **changes: object) -> EventhubSource:
    source = EventhubSource(hub.config(**changes))
    source.resume(position)
    return source


def test_an_event_goes_on_as_it_came_with_where_it_came_from(new_hub: NewHub) -> None:
    hub = new_hub()
    value = b'{ "traceId" : "6F0C2B1E-8D3A-4C52-9A77-0E5D1B7C4F21","n":1.50}'
    hub.put([value], partition=1, key=b"their key")
    with closing(begun(hub)) as source:
        [output], _ = taken(source, 1)
    assert output.value == value
    assert output.key == b"6f0c2b1e-8d3a-4c52-9a77-0e5d1b7c4f21"
    assert dict(output.headers) == {
        "source": b"eventhub",
        "origin": b"1@0",
        "trace_id": b"6f0c2b1e-8d3a-4c52-9a77-0e5d1b7c4f21",
    }


def test_what_is_no_event_goes_on_as_it_came(new_hub: NewHub) -> None:
    odd = [
        b"not json",
        b"[1,2]",
        b"[]",
        b'{"no":"trace id"}',
        b"\xff\xfe",
        b"\xef\xbb\xbfno",
        b'{"traceId":null}',
    ]
    hub = new_hub(1)
    hub.put([*odd, None], partition=0, key=b"k")
    with closing(begun(hub)) as source:
        outputs, _ = taken(source, len(odd) + 1)
    assert [output.value for output in outputs] == [*odd, b""]
    assert {output.key for output in outputs} == {b"k"}
    assert not [output for output in outputs if "trace_id" in dict(output.headers)]


def test_an_array_is_an_event_for_each_of_its_elements(new_hub: NewHub) -> None:
    hub = new_hub(1)
    hub.put([b" [" + event(1) + b", \n" + event(2) + b',{"x":1}]', b"\xef\xbb\xbf" + event(3)], partition=0)
    with closing(begun(hub)) as source:
        outputs, _ = taken(source, 4)
    assert [output.value for output in outputs] == [event(1), event(2), b'{"x":1}', event(3)]
    assert [dict(output.headers).get("origin_item") for output in outputs] == [b"0", b"1", b"2", None]
    assert [dict(output.headers)["origin"] for output in outputs] == [b"0@0", b"0@0", b"0@0", b"0@1"]


def test_whatever_page_was_committed_last_the_rest_comes_once(new_hub: NewHub) -> None:
    hub = new_hub()
    hub.put(event(number) for number in range(3000))
    with closing(begun(hub, eventhub__page_records=700)) as source:
        outputs, pages = taken(source, 3000)
    assert sorted(numbers_of(outputs)) == list(range(3000))
    done: list[int] = []
    for page in pages:
        done += numbers_of(page.outputs)
        with closing(begun(hub, page.position)) as source:
            rest, _ = taken(source, 3000 - len(done)) if len(done) < 3000 else ([], [])
            assert nothing_more(source, 0.3) == []
        assert sorted(done + numbers_of(rest)) == list(range(3000))


def test_a_page_that_was_not_committed_is_fetched_again(new_hub: NewHub) -> None:
    hub = new_hub()
    hub.put(event(number) for number in range(1000))
    with closing(begun(hub, eventhub__page_records=300)) as source:
        outputs, pages = taken(source, 600)
        source.resume(pages[-2].position)
        again, _ = taken(source, 1000 - len(outputs) + len(pages[-1].outputs))
    kept = [number for page in pages[:-1] for number in numbers_of(page.outputs)]
    assert sorted(kept + numbers_of(again)) == list(range(1000))


def test_a_failed_fetch_gives_back_what_it_had_taken(
    new_hub: NewHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = new_hub()
    hub.put(event(number) for number in range(1500))
    consume = HubConnection.consume
    calls = 0

    def failing(self: HubConnection, limit: int, timeout: float) -> list[object]:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise OSError("the disk of a wheel came off")
        return list(consume(self, limit, timeout))

    monkeypatch.setattr(HubConnection, "consume", failing)
    with closing(begun(hub)) as source:
        with pytest.raises(OSError, match="wheel"):
            taken(source, 1500)
        assert calls == 4  # in the midst of the first page
        outputs, _ = taken(source, 1500)
        assert sorted(numbers_of(outputs)) == list(range(1500))
        assert nothing_more(source, 0.3) == []


def test_it_may_begin_with_what_comes_from_now_on_and_stays_with_that(new_hub: NewHub) -> None:
    hub = new_hub()
    hub.put(event(number) for number in range(10))
    with closing(begun(hub, eventhub__start="now")) as source:
        first = source.fetch(0.2)
        assert first is not None
        assert first.outputs == ()
    hub.put(event(number) for number in range(10, 20))
    with closing(begun(hub, first.position, eventhub__start="now")) as source:
        outputs, _ = taken(source, 10)
    assert sorted(numbers_of(outputs)) == list(range(10, 20))


def test_it_may_be_set_to_any_time(new_hub: NewHub) -> None:
    hub = new_hub()
    noon = 1_767_614_400_000  # 2026-01-05T12:00:00Z
    for number in range(10):
        hub.put([event(number)], partition=number % 2, timestamp=noon + number * 1000)
    for to, wanted in (
        ("beginning", range(10)),
        ("2026-01-05T12:00:06.5Z", range(7, 10)),
        ("2027-01-01T00:00:00Z", ()),
        ("now", ()),
    ):
        with closing(begun(hub)) as source:
            position = source.begin_at(to)
        with closing(begun(hub, position)) as source:
            assert sorted(numbers_of(nothing_more(source, 1))) == list(wanted)


def test_partitions_that_are_added_are_read_from_their_beginning(new_hub: NewHub) -> None:
    hub = new_hub(1)
    hub.put([event(0)], partition=0)
    with closing(begun(hub, eventhub__start="now", eventhub__stall_seconds=1.0)) as source:
        assert source.fetch(0.2) is not None
        hub.grow(3)
        hub.put([event(1)], partition=1)
        hub.put([event(2)], partition=2)
        outputs, pages = taken(source, 2)
        assert sorted(numbers_of(outputs)) == [1, 2]
    assert json.loads(pages[-1].position)["partitions"].keys() == {"0", "1", "2"}


def test_what_retention_removed_unread_is_told_and_counted(
    new_hub: NewHub, caplog: pytest.LogCaptureFixture
) -> None:
    hub = new_hub(1)
    hub.put((event(number) for number in range(100)), partition=0)
    with closing(begun(hub, eventhub__page_records=10)) as source:
        _, pages = taken(source, 10)
    hub.expire(0, 60)
    with closing(begun(hub, pages[-1].position)) as source, caplog.at_level(logging.ERROR):
        outputs, _ = taken(source, 40)
        assert source.facts().lost == 50
        assert source.facts().lost == 0
    assert numbers_of(outputs) == list(range(60, 100))
    assert "50 offsets of partition 0" in caplog.text


def test_what_retention_removes_ahead_of_a_reader_is_told_too(
    new_hub: NewHub, caplog: pytest.LogCaptureFixture
) -> None:
    hub = new_hub(1)
    big = "x" * 100_000  # more than is fetched ahead
    hub.put((event(number, note=big) for number in range(400)), partition=0)
    with closing(begun(hub, eventhub__page_records=10)) as source:
        outputs, _ = taken(source, 10)
        hub.expire(0, 390)
        with caplog.at_level(logging.ERROR):
            while numbers_of(outputs)[-1] != 399:
                outputs += taken(source, 1)[0]
        lost = source.facts().lost
    numbers = numbers_of(outputs)
    assert numbers == sorted(set(numbers))
    assert lost == 400 - len(numbers) > 0
    assert "removed by its retention" in caplog.text


def test_a_hub_that_was_made_again_is_not_read_on_in_silence(new_hub: NewHub) -> None:
    hub = new_hub(1)
    hub.put((event(number) for number in range(10)), partition=0)
    with closing(begun(hub)) as source:
        _, pages = taken(source, 10)
    hub.remove()
    hub.make(1)
    hub.put((event(number) for number in range(100, 120)), partition=0)
    with (
        closing(begun(hub, pages[-1].position)) as source,
        pytest.raises(ConfigError, match=r"made again.*pipelinectl sources reset"),
    ):
        source.fetch(0.2)


def test_a_hub_that_is_made_again_under_the_reader_is_noticed(new_hub: NewHub) -> None:
    hub = new_hub(1)
    hub.put((event(number) for number in range(10)), partition=0)
    with closing(begun(hub, eventhub__stall_seconds=4.0)) as source:
        taken(source, 10)
        hub.remove()
        hub.make(1)
        hub.put((event(number) for number in range(100, 200)), partition=0)
        with pytest.raises(ConfigError, match=r"made again.*pipelinectl sources reset"):
            nothing_more(source, 30)


def test_without_an_id_of_the_hub_its_last_event_tells_whether_it_is_the_same(
    new_hub: NewHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HubConnection, "topic_id", lambda _self: "")
    hub = new_hub(1)
    hub.put((event(number) for number in range(10)), partition=0)
    with closing(begun(hub)) as source:
        _, pages = taken(source, 10)
    hub.put([event(10)], partition=0)
    with closing(begun(hub, pages[-1].position)) as source:
        outputs, _ = taken(source, 1)
        assert numbers_of(outputs) == [10]
    hub.remove()
    hub.make(1)
    hub.put((event(number) for number in range(100, 120)), partition=0)
    with (
        closing(begun(hub, pages[-1].position)) as source,
        pytest.raises(ConfigError, match=r"another event at offset 9.*pipelinectl sources reset"),
    ):
        nothing_more(source)


def test_a_position_behind_the_end_of_the_hub_is_the_operators_decision(new_hub: NewHub) -> None:
    hub = new_hub(1)
    hub.put([event(0)], partition=0)
    with closing(begun(hub)) as source:
        _, pages = taken(source, 1)
    position = msgspec.json.decode(pages[-1].position)
    position["partitions"]["0"][0] = 500
    with (
        closing(begun(hub, msgspec.json.encode(position))) as source,
        pytest.raises(ConfigError, match=r"up to offset 500, but it ends at 1.*pipelinectl sources reset"),
    ):
        source.fetch(0.2)


def test_a_hub_that_does_not_exist_is_told(new_hub: NewHub) -> None:
    with (
        closing(begun(new_hub(), eventhub__topic="no-such-hub")) as source,
        pytest.raises(ConfigError, match=r"no-such-hub.*does not exist.*eventhub\.topic"),
    ):
        source.fetch(0.2)


def test_events_of_an_aborted_transaction_never_come_and_marks_are_not_waited_for(new_hub: NewHub) -> None:
    hub = new_hub(1)
    hub.put_in_transaction([event(1)], 0)
    hub.put_in_transaction([event(2)], 0, commit=False)
    with closing(begun(hub, eventhub__stall_seconds=1.0)) as source:
        outputs, pages = taken(source, 1)
        assert nothing_more(source, 3) == []
        assert numbers_of(outputs) == [1]
        assert not source.probe().waiting
        assert source.facts().reconnected == 0
    with closing(begun(hub, pages[-1].position)) as source:
        assert nothing_more(source, 1) == []


def test_how_far_it_is_in_time_and_whether_more_waits_is_told(new_hub: NewHub) -> None:
    hub = new_hub(1)
    old = round(time.time() * 1000) - 3_600_000
    for number in range(30):
        hub.put([event(number)], partition=0, timestamp=old + number * 1000)
    with closing(begun(hub, eventhub__page_records=10)) as source:
        _, pages = taken(source, 10)
        assert (pages[-1].more, pages[-1].reached) == (True, (old + 9000) / 1000)
        assert source.probe().waiting
        _, pages = taken(source, 20)
        assert not pages[-1].more
        assert pages[-1].reached is not None
        assert time.time() - pages[-1].reached < 60
        assert not source.probe().waiting
        hub.put([event(30)], partition=0)
        assert source.probe().waiting
        assert len(source.facts().queries) > 0


def test_the_hubs_group_is_told_how_far_it_is(new_hub: NewHub) -> None:
    hub = new_hub(1)
    group = f"{hub.name}-readers"
    hub.put((event(number) for number in range(20)), partition=0)
    with closing(begun(hub, eventhub__page_records=10)) as source:
        _, pages = taken(source, 20)
        assert hub.group_offset(group, 0) == -1001
        source.committed(pages[1])

        def told() -> bool:
            source.fetch(0.05)
            return hub.group_offset(group, 0) == 10

        until(told, "the group is not told")
        source.committed(pages[2])
    assert hub.group_offset(group, 0) == 20


def test_a_group_that_cannot_be_told_stops_nothing(new_hub: NewHub, caplog: pytest.LogCaptureFixture) -> None:
    hub = new_hub(1)
    hub.put((event(number) for number in range(20)), partition=0)
    with closing(begun(hub, eventhub__group="x" * 40_000)) as source, caplog.at_level(logging.WARNING):
        _, pages = taken(source, 20)
        source.committed(pages[-1])

        def told() -> bool:
            source.fetch(0.05)
            return "cannot be told" in caplog.text

        until(told, "nobody says that the group is not told")
        hub.put([event(20)], partition=0)
        outputs, _ = taken(source, 1)
    assert numbers_of(outputs) == [20]


def test_a_message_that_is_too_large_for_us_waits_and_what_came_before_goes_on(new_hub: NewHub) -> None:
    hub = new_hub(1)
    hub.put([event(0), event(1, note="x" * 100_000), event(2)], partition=0)
    with closing(begun(hub, kafka__max_message_bytes=65536)) as source:
        outputs, pages = taken(source, 1)
        assert numbers_of(outputs) == [0]
        with pytest.raises(ConfigError, match=r"offset 1 .*100\d\d\d bytes.*kafka\.max_message_bytes"):
            source.fetch(0.5)
    with closing(begun(hub, pages[-1].position)) as source:
        outputs, _ = taken(source, 2)
    assert numbers_of(outputs) == [1, 2]


def test_a_position_of_another_version_is_not_guessed_at(new_hub: NewHub) -> None:
    hub = new_hub(1)
    for position in (b'{"version":9,"hub":"h","partitions":{}}', b"garbage"):
        with (
            closing(begun(hub, position)) as source,
            pytest.raises(ConfigError, match="position of the Event Hub"),
        ):
            source.fetch(0.2)
