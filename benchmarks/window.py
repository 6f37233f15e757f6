"""``window``: what the acknowledgement window costs a record, and how long its notes get."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.ground import Ground
from benchmarks.report import Check, Figure, Result
from pipelined.kafka.notes import write_note
from pipelined.kafka.progress import Progress
from pipelined.kafka.window import Window
from pipelined.stages.contract import Partition, Record

NAME = "window"

_PARTITIONS = [Partition("xact.downloads.pending", number) for number in range(6)]
_TOPIC_ID = "kX2d0bZ5Q1a8m3VnE7rT_w"
_BATCH = 500
_METHOD = (
    "`Window.take`, `settle` for each record and `release`, notes written, over {count:,} records of six "
    "partitions in batches of 500, without Kafka: the processor time of these calls alone, a record. Once "
    "settled in the order they came; once shuffled, a hundred of each batch left open until a later one; "
    "once with one record of each partition left open for ever. The note is the offset's whole metadata. "
    "Beside it, the same records put into a dict and taken out again."
)


def run(ground: Ground, folder: Path, *, quick: bool, repetitions: int) -> Result:
    """Measure."""
    del ground, folder
    count = 50_000 if quick else 300_000
    batches = _batches(count)
    cases = {"in order": 0, "shuffled": 100, "one open for ever": -1}
    figures, checks = [], []
    figures.append(Figure("dict, in and out", "µs/record", [_bare(batches) for _ in range(repetitions)]))
    for name, carried in cases.items():
        runs = [_cost(batches, carried) for _ in range(repetitions)]
        cost = Figure(f"window, {name}", "µs/record", [cost for cost, _ in runs])
        longest = max(length for _, length in runs)
        figures += [cost, Figure(f"longest note, {name}", "characters", [longest])]
        checks += [
            Check(f"window, {name}", cost.median, "<=", 3.0, "µs/record"),
            Check(f"longest note, {name}", longest, "<=", 1000, "characters"),
        ]
    return Result(NAME, "The acknowledgement window", _METHOD.format(count=count), figures, checks)


def _batches(count: int) -> list[list[Record]]:
    width = len(_PARTITIONS)
    records = [Record(_PARTITIONS[n % width], n // width, b"k", b"{}", [], 0) for n in range(count)]
    return [records[start : start + _BATCH] for start in range(0, count, _BATCH)]


def _bare(batches: Sequence[Sequence[Record]]) -> float:
    began = time.thread_time()
    held: dict[tuple[Partition, int], Record] = {}
    for batch in batches:
        for record in batch:
            held[record.partition, record.offset] = record
        for record in batch:
            del held[record.partition, record.offset]
    return (time.thread_time() - began) / (len(batches) * _BATCH) * 1e6


def _cost(batches: Sequence[Sequence[Record]], carried: int) -> tuple[float, int]:
    """Microseconds a record, and the longest note; ``carried`` records of each batch are settled later."""
    rng = random.Random(1)
    window: Window[None] = Window()
    window.assign({partition: Progress.up_to(0) for partition in _PARTITIONS})
    spent, longest = 0.0, 0
    late: list[Record] = []
    for batch in batches:
        began = time.thread_time()
        taken = window.take(batch, began)
        spent += time.thread_time() - began
        todo = [*late, *taken]
        if carried > 0:
            rng.shuffle(todo)
            late, todo = todo[:carried], todo[carried:]
        elif carried < 0:
            todo = [record for record in todo if record.offset]
        began = time.thread_time()
        for record in todo:
            window.settle(record, None)
        notes = [
            write_note(*partition, told.progress.offset, topic_id=_TOPIC_ID, beyond=told.beyond)
            for partition, told in window.release().commits.items()
        ]
        spent += time.thread_time() - began
        longest = max(longest, *map(len, notes))
    return spent / (len(batches) * _BATCH) * 1e6, longest
