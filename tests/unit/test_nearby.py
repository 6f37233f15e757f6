"""Routing that keeps work on this host."""

from __future__ import annotations

import pytest

from pipelined.config.tree import Config
from pipelined.errors import AuthError, PermanentError
from pipelined.stages.contract import Done, Failed, Output, Partition, Record, Stream
from pipelined.stages.failures import Envelope
from pipelined.workers.nearby import NearRouter, Neighbours
from pipelined.workers.routing import Hold, Routed
from records import slot

RECORD = Record(Partition("t", 0), 7, b"k", b"v", [], 0)


def router(near: int | None) -> NearRouter:
    return NearRouter(Config(), Envelope("download", "g", "h"), Stream.DLQ, Stream.CACHED, lambda _: near)


@pytest.mark.parametrize("near", [3, None])
def test_outputs_to_the_stream_go_where_it_is_near_and_others_where_they_would(near: int | None) -> None:
    outputs = (
        Output(Stream.CACHED, b"k", b"1", [("a", b"b")]),
        Output(Stream.RESULTS, b"k", b"2", []),
        Output(Stream.CACHED, b"k", b"3", [], partition=1),
    )
    routed = router(near).route(Done(RECORD, outputs, "duplicate"))
    assert isinstance(routed, Done)
    assert [output.partition for output in routed.outputs] == [near, None, 1]
    assert [output.value for output in routed.outputs] == [b"1", b"2", b"3"]
    assert routed.outputs[0].headers == [("a", b"b")]
    assert (routed.record, routed.kind) == (RECORD, "duplicate")


def test_failures_are_routed_as_ever() -> None:
    dead = router(3).route(Failed(RECORD, PermanentError("gone", "it is gone")))
    assert isinstance(dead, Routed)
    assert [(output.stream, output.partition) for output in dead.outputs] == [(Stream.DLQ, None)]
    assert isinstance(router(3).route(Failed(RECORD, AuthError("refused", "it was refused"))), Hold)


def test_a_key_goes_to_the_partitions_of_this_hosts_own_workers_and_always_to_the_same() -> None:
    first, second = slot(), slot()
    first.hold([1, 130])
    second.hold([4])
    neighbours = Neighbours([first, second], 200)
    keys = [b"%d" % number for number in range(100)]
    assert {neighbours.partition(key) for key in keys} == {1, 4, 130}
    assert [neighbours.partition(key) for key in keys] == [neighbours.partition(key) for key in keys]
    second.begin(7)
    assert {neighbours.partition(key) for key in keys} == {1, 130}, "a new process has nothing yet"


@pytest.mark.parametrize(("held", "count"), [([], 4), ([0, 1, 2, 3], 4)])
def test_where_this_host_has_none_or_all_any_partition_will_do(held: list[int], count: int) -> None:
    worker = slot()
    worker.hold(held)
    assert Neighbours([worker], count).partition(b"k") is None
