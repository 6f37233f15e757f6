"""The one loop of the Kafka → Kafka workers, on the real Kafka, with stages that do as the test says."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator

import msgspec
import pytest
from confluent_kafka import Producer

from kafka_tools import committed, declared, numbered, produce, read, small, values, working
from pipelined.config.tree import Config
from pipelined.config.work import Breaker, Retry
from pipelined.errors import (
    BugError,
    DependencyError,
    FencedError,
    PoisonError,
    TransientError,
    UnavailableError,
)
from pipelined.kafka import transactions
from pipelined.kafka.settings import Names
from pipelined.kafka.transactions import Transactor
from pipelined.messages.codec import encode
from pipelined.messages.task import DownloadTask
from pipelined.stages.contract import Failed, Headers, Outcome, Record, Stream
from pipelined.stages.retry import RetryStage
from pipelined.stats import registry as metrics
from records import task
from stage_parts import Judging, Ordered, copied
from waiting import until


@pytest.fixture
def config(kafka_bootstrap: str, domain: str) -> Iterator[Config]:
    with declared(small(kafka_bootstrap, domain)) as made:
        yield made


@pytest.fixture
def one_partition(kafka_bootstrap: str, domain: str) -> Iterator[Config]:
    with declared(small(kafka_bootstrap, domain, 1)) as made:
        yield made


def next_offsets(config: Config, stream: str = Stream.PENDING) -> dict[int, int]:
    return {number: offset for number, (offset, _) in committed(config, "download", stream).items()}


def test_every_record_leads_to_its_output_once_and_its_offset_is_committed_with_it(config: Config) -> None:
    produce(config, Stream.PENDING, numbered(300), key=b"k", headers=[("trace_id", b"t")])
    stage = Judging()
    with working(config, stage) as worker:
        until(lambda: len(stage.durable) == 300)
        worker.stop()
    found = read(config, Stream.CACHED)
    assert sorted(message.value for message in found) == sorted(numbered(300))
    assert {(message.key, message.header("trace_id")) for message in found} == {(b"k", "t")}
    assert next_offsets(config) == {0: 150, 1: 150}
    assert worker.stats.counter(metrics.RECORDS_IN) == 300
    assert worker.stats.counter(metrics.RECORDS_DONE, "done") == 300
    assert worker.stats.counter(metrics.RECORDS_OUT) == 300
    produce(config, Stream.PENDING, numbered(10, 300))
    stage = Judging()
    with working(config, stage):
        until(lambda: len(stage.durable) == 10)
    assert sorted(record.value for record in stage.submitted) == sorted(numbered(10, 300))


def test_a_second_process_with_the_same_identity_ends_the_first_and_nothing_is_done_twice(
    one_partition: Config,
) -> None:
    config = one_partition
    produce(config, Stream.PENDING, numbered(5))
    stage = Ordered()
    with working(config, stage) as worker:
        until(lambda: len(stage.waiting) == 5)
        usurper = Transactor(config, Names(config).instance("download", 0), lambda: None)
        assert usurper.begin_session(lambda: False)
        stage.finish(*numbered(5))
        error = worker.ended()
    assert isinstance(error, FencedError)
    assert "took over" in str(error)
    assert values(config, Stream.CACHED) == []
    again = Judging()
    with working(config, again):
        until(lambda: len(again.durable) == 5)
    assert values(config, Stream.CACHED) == numbered(5)


def test_a_commit_that_never_ends_ends_the_worker_and_its_successor_does_the_work_once(
    one_partition: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = one_partition
    never = threading.Event()

    class Stuck(Producer):
        """As the client is whose broker is killed in the wrong moment: it waits past its own limit."""

        def commit_transaction(self, *_: object) -> None:
            never.wait(60)

    produce(config, Stream.PENDING, numbered(5))
    with monkeypatch.context() as patched:
        patched.setattr(transactions, "Producer", Stuck)
        with working(config, Judging()) as worker:
            error = worker.ended()
    never.set()
    assert isinstance(error, UnavailableError)
    assert "starts anew" in str(error)
    again = Judging()
    with working(config, again):
        until(lambda: len(again.durable) == 5)
    assert values(config, Stream.CACHED) == numbered(5)


def test_told_to_stop_it_finishes_what_has_begun_and_leaves_the_rest_to_its_successor(
    one_partition: Config,
) -> None:
    config = one_partition
    produce(config, Stream.PENDING, numbered(5))
    stage = Ordered()
    with working(config, stage) as worker:
        until(lambda: len(stage.waiting) == 5)
        worker._stop.set()
        assert stage.draining.wait(10)
        produce(config, Stream.PENDING, numbered(5, 5))
        stage.finish(b"1", b"0", b"3")  # 2 and 4 are not finished within the time
        worker.stop()
    assert values(config, Stream.CACHED) == [b"1", b"0", b"3"]
    assert next_offsets(config) == {0: 2}
    again = Judging()
    with working(config, again):
        until(lambda: len(again.durable) == 7)
    assert sorted(values(config, Stream.CACHED)) == numbered(10)


def test_while_a_dependency_is_down_the_stage_pauses_and_then_goes_on_with_the_same_records(
    one_partition: Config,
) -> None:
    config = one_partition
    down = True

    def judge(record: Record) -> Outcome:
        return Failed(record, DependencyError("store", "down")) if down else copied(record)

    produce(config, Stream.PENDING, numbered(50))
    stage = Judging(judge)
    with working(config, stage) as worker:
        until(lambda: worker.stats.counter(metrics.PAUSES) >= 3)
        assert worker.stats.gauge(metrics.PAUSED) == 1
        produce(config, Stream.PENDING, numbered(50, 50))
        down = False
        until(lambda: len(stage.durable) == 100)
        assert worker.stats.gauge(metrics.PAUSED) == 0
    assert values(config, Stream.CACHED) == numbered(100)
    assert values(config, Stream.DLQ) == []
    assert len({id(r) for r in stage.submitted if r.value in numbered(50)}) == 50, "the very same records"
    assert next_offsets(config) == {0: 100}


def test_poison_becomes_a_dead_letter_with_its_bytes_and_its_origin_and_the_others_go_on(
    one_partition: Config,
) -> None:
    config = one_partition
    bad = b"\xff\x00 not json"

    def judge(record: Record) -> Outcome:
        return Failed(record, PoisonError("unreadable", "no task")) if record.value == bad else copied(record)

    produce(config, Stream.PENDING, [b"0", bad, b"1"], key=b"k", headers=[("trace_id", b"t")])
    stage = Judging(judge)
    with working(config, stage) as worker:
        until(lambda: len(stage.durable) == 3)
        until(lambda: worker.stats.counter(metrics.DEAD_LETTERS, "poison") == 1)
    assert values(config, Stream.CACHED) == [b"0", b"1"]
    (letter,) = read(config, Stream.DLQ)
    assert (letter.key, letter.value) == (b"k", bad)
    origin = [letter.header(f"dlq_origin_{name}") for name in ("topic", "partition", "offset")]
    assert origin == [Names(config).topic(Stream.PENDING), "0", "1"]
    assert (letter.header("dlq_code"), letter.header("trace_id")) == ("unreadable", "t")


def test_a_bug_is_tried_again_and_then_a_dead_letter(one_partition: Config) -> None:
    config = one_partition

    def judge(record: Record) -> Outcome:
        return Failed(record, BugError("unexpected", "x")) if record.value == b"1" else copied(record)

    produce(config, Stream.PENDING, numbered(3))
    stage = Judging(judge)
    with working(config, stage):
        until(lambda: len(stage.durable) == 3)
    assert Counter(record.value for record in stage.submitted) == {b"0": 1, b"1": 3, b"2": 1}
    assert values(config, Stream.CACHED) == [b"0", b"2"]
    assert values(config, Stream.DLQ) == [b"1"]


def test_the_dlq_breaker_stops_taking_and_leaves_the_rest_where_it_is(
    kafka_bootstrap: str, domain: str
) -> None:
    changed = small(kafka_bootstrap, domain, 1, breaker=Breaker(dlq_run=20, dlq_window=1000))
    with declared(changed) as config:
        produce(config, Stream.PENDING, numbered(2000))
        stage = Judging(lambda record: Failed(record, PoisonError("p", "all of them")))
        with working(config, stage) as worker:
            until(lambda: worker.stats.gauge(metrics.DLQ_BREAKER) == 1)
            spent = worker.stats.counter(metrics.LOOP_SECONDS, "paused")
            until(lambda: worker.stats.counter(metrics.LOOP_SECONDS, "paused") > spent + 500)
            taken = len(stage.submitted)
            assert taken <= 1000, "no more than was in hand"
            assert worker.alive
        dead = values(config, Stream.DLQ)
        assert len(dead) == taken
        assert next_offsets(config) == {0: taken}


def test_a_failed_task_comes_back_not_a_moment_early_and_with_its_attempt_counted(
    one_partition: Config,
) -> None:
    config = one_partition
    failed_at: dict[str, float] = {}
    came_at: dict[str, float] = {}

    def judge(record: Record) -> Outcome:
        found = msgspec.json.decode(record.value, type=DownloadTask)
        if found.retry_count == 0:
            failed_at[found.attachment_id] = time.time()
            return Failed(record, TransientError("http_503", "busy", http_status=503), found)
        came_at[found.attachment_id] = time.time()
        return copied(record)

    produce(config, Stream.PENDING, [encode(task(attachment_id=f"a{n}")) for n in range(20)], key=b"k")
    stage = Judging(judge)
    with working(config, RetryStage(), stream=Stream.RETRY), working(config, stage) as worker:
        until(lambda: len(came_at) == 20)
        until(lambda: worker.stats.counter(metrics.RECORDS_DONE, "done") == 20)
    assert all(came_at[name] - failed_at[name] >= 0.4 for name in came_at)
    done = read(config, Stream.CACHED)
    assert len(done) == 20
    assert {message.header("attempt") for message in done} == {"1"}
    assert {message.header("not_before") for message in done} == {None}
    assert all(message.header("first_failed_at") for message in done)
    assert worker.stats.counter(metrics.RETRIES) == 20


def test_tasks_of_several_tiers_do_not_wait_for_each_other(kafka_bootstrap: str, domain: str) -> None:
    changed = small(kafka_bootstrap, domain, 1, retry=Retry(delays_s=(1.0, 3600.0)))
    with declared(changed) as config:
        now = time.time()
        hour: Headers = [("not_before", b"%d" % round((now + 3600) * 1000))]
        produce(config, Stream.RETRY, numbered(300), tier=1, headers=hour)
        due = [round((now + 0.5 + n / 10) * 1000) for n in range(5)]
        for n, at in enumerate(due):
            produce(config, Stream.RETRY, [b"soon %d" % n], headers=[("not_before", b"%d" % at)])
        with working(config, RetryStage(), stream=Stream.RETRY) as worker:
            until(lambda: len(values(config, Stream.PENDING)) == 5)
            began = time.monotonic()
            worker.stop()
            assert time.monotonic() - began < 3, "what waits for its time is no reason to wait with the end"
        found = read(config, Stream.PENDING)
        assert [message.value for message in found] == [b"soon %d" % n for n in range(5)]
        assert all(message.timestamp >= at for message, at in zip(found, due, strict=True))


def test_a_second_member_takes_its_share_and_nothing_is_lost_or_doubled_either_way(
    kafka_bootstrap: str, domain: str
) -> None:
    with declared(small(kafka_bootstrap, domain, 4, session_timeout_s=3)) as config:
        first, second = Judging(), Judging()
        produce(config, Stream.PENDING, numbered(400))
        with working(config, first) as one:
            until(lambda: one.stats.gauge(metrics.PARTITIONS) == 4)
            produce(config, Stream.PENDING, numbered(2000, 400))
            with working(config, second, index=1) as two:
                produce(config, Stream.PENDING, numbered(2000, 2400))
                until(lambda: two.stats.gauge(metrics.PARTITIONS) == 2)
                until(lambda: one.stats.gauge(metrics.PARTITIONS) == 2)
                produce(config, Stream.PENDING, numbered(400, 4400))
                until(lambda: len(first.durable) + len(second.durable) == 4800)
            assert sorted(values(config, Stream.CACHED)) == sorted(numbered(4800))
            assert second.durable
            assert set(first.gone) == set(second.gained)
            produce(config, Stream.PENDING, numbered(400, 4800))
            # Static: the partitions of the second wait for its return until the session ends.
            until(lambda: len(first.durable) + len(second.durable) == 5200)
        assert sorted(values(config, Stream.CACHED)) == sorted(numbered(5200))


def test_a_member_that_is_restarted_has_its_partitions_back_and_the_others_notice_nothing(
    kafka_bootstrap: str, domain: str
) -> None:
    with declared(small(kafka_bootstrap, domain, 4)) as config:
        first, second, again = Judging(), Judging(), Judging()
        with working(config, second, index=1) as two:
            with working(config, first) as one:
                until(lambda: one.stats.gauge(metrics.PARTITIONS) == 2)
                until(lambda: two.stats.gauge(metrics.PARTITIONS) == 2)
                noticed = two.stats.counter(metrics.REBALANCES, "revoked")
                held = set(first.gained)
            with working(config, again) as three:
                until(lambda: three.stats.gauge(metrics.PARTITIONS) == 2)
                produce(config, Stream.PENDING, numbered(40))
                until(lambda: len(again.durable) + len(second.durable) == 40)
            assert set(again.gained) == held
            assert two.stats.counter(metrics.REBALANCES, "revoked") == noticed
        assert sorted(values(config, Stream.CACHED)) == sorted(numbered(40))
