"""Routing that keeps work on this host."""

from __future__ import annotations

import pytest

from pipelined.config.tree import Config
from pipelined.errors import AuthError, PermanentError
from pipelined.stages.contract import Done, Failed, Output, Partition, Record, Stream
from pipelined.stages.failures import Envelope
from pipelined.workers.nearby import NearRouter
from pipelined.workers.routing import Hold, Routed

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
