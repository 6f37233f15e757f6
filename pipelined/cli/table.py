"""The status as a person reads it: one sentence, a table that fits, and below it what is worth a word."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipelined.cli.durations import short
from pipelined.cli.headline import epoch, headline, name, styled

__all__ = ["WIDE", "lines", "wrapped"]

#: As wide as anything: of a file or a pipe, where nothing is dropped.
WIDE = 1_000_000
_GAP = "  "


@dataclass(frozen=True, slots=True)
class _Column:
    """One column. On a narrow terminal those of the smallest ``rank`` are dropped first."""

    head: str
    rank: int
    cell: Callable[[dict[str, Any], float], str]
    right: bool = True


def _count(number: float | None) -> str:
    """A number in at most five characters."""
    if number is None:
        return "-"
    if number < 10 and number != int(number):
        return f"{number:.1f}"
    if number < 99_999.5:
        return f"{number:.0f}"
    for unit in "kMGT":
        number /= 1000
        if number < 999.5:
            return f"{number:.3g}{unit}"
    return f"{number:.0f}T"


def _plain(field: str) -> Callable[[dict[str, Any], float], str]:
    return lambda worker, _: _count(worker.get(field))


def _sum(field: str) -> Callable[[dict[str, Any], float], str]:
    return lambda worker, _: _count(sum(worker[field].values()))


def _pid(worker: dict[str, Any], _now: float) -> str:
    return "-" if worker["pid"] is None else str(worker["pid"])


def _since(worker: dict[str, Any], now: float) -> str:
    return "-" if worker["since"] is None else short(now - epoch(worker["since"]))


def _pss(worker: dict[str, Any], _now: float) -> str:
    size = worker.get("pss_bytes")
    return "-" if size is None else f"{size / 1e6:.0f}M"


_COLUMNS = (
    _Column("worker", 99, lambda worker, _: name(worker), right=False),
    _Column("state", 99, lambda worker, _: worker["state"], right=False),
    _Column("pid", 7, _pid),  # the third, for whoever takes it from there with awk
    _Column("since", 11, _since),
    _Column("PSS", 5, _pss),
    _Column("CPU%", 6, _plain("cpu_percent")),
    _Column("in/s", 9, _plain("in_per_second")),
    _Column("out/s", 8, _plain("out_per_second")),
    _Column("lag", 12, _plain("lag")),
    _Column("in flight", 4, _plain("in_flight")),
    _Column("errors", 10, _sum("failures")),
    _Column("restarts", 3, _plain("restarts")),
    _Column("in", 1, _plain("records_in")),
    _Column("out", 0, _plain("records_out")),
    _Column("dead", 2, _sum("dead_letters")),
)


def lines(document: dict[str, Any], width: int = WIDE, *, colour: bool = False) -> list[str]:
    """The status in lines of at most ``width``, but for the escapes of colours where these are wanted.

    The table drops columns where it is too wide, the sentences go on in the next line.
    """
    now, state = time.time(), document["state"]
    first, *rest = wrapped(headline(document, now), width)
    shown = [first.replace(f"is {state}", f"is {styled(state, state, colour=colour)}", 1), *rest]
    shown += _table(document["workers"], width, now, colour=colour)
    for remark in _remarks(document["workers"], now):
        shown += wrapped(remark, width)
    return shown


def wrapped(text: str, width: int) -> list[str]:
    """A sentence in lines of at most ``width``."""
    return textwrap.wrap(text, width, subsequent_indent="  ", break_on_hyphens=False)


def _table(workers: Sequence[dict[str, Any]], width: int, now: float, *, colour: bool) -> Iterator[str]:
    grid = [(column, [column.head, *(column.cell(each, now) for each in workers)]) for column in _COLUMNS]
    sized = [(column, cells, max(map(len, cells))) for column, cells in grid]
    while sum(size + len(_GAP) for *_, size in sized) - len(_GAP) > width and len(sized) > 2:
        sized.remove(min(sized, key=lambda each: each[0].rank))
    for row, state in enumerate(["", *(worker["state"] for worker in workers)]):
        cells = []
        for column, texts, size in sized:
            cell = texts[row].rjust(size) if column.right else texts[row].ljust(size)
            cells.append(styled(cell, state, colour=colour) if column.head == "state" else cell)
        yield _GAP.join(cells).rstrip()


def _remarks(workers: Sequence[dict[str, Any]], now: float) -> Iterator[str]:
    """A line for each worker of which there is more to say than the table has."""
    for worker in workers:
        if remark := "; ".join(_facts(worker, now)):
            yield f"{name(worker)}: {remark}"


def _facts(worker: dict[str, Any], now: float) -> Iterator[str]:
    if worker["reason"]:
        yield worker["reason"]
    elif worker["last_exit"]:
        yield f"before: {worker['last_exit']}"
    if worker["next_try"]:
        yield f"next try in {short(epoch(worker['next_try']) - now)}"
    if worker["paused_by_operator"]:
        if not worker["reason"]:
            yield "paused by an operator"
    elif worker["paused"]:
        yield "paused"
    if worker.get("log_level_by_operator"):
        yield f"logs from {worker['log_level']} on, as an operator wants it"
    if worker["says"]:
        yield worker["says"]
    yield from _source(worker["source"] or {})
    error = worker.get("last_error", "")
    if error and (error.partition(": ")[2] or error) not in worker["says"]:
        yield f"last error {short(now - epoch(worker['last_error_at']))} ago: {error}"


def _source(source: dict[str, Any]) -> Iterator[str]:
    if not source.get("state"):
        return
    yield f"{source['rows_per_second']:g} rows/s"
    if source["position"]:
        yield f"all until {source['position']} is taken, {source['delay_s']:g} s behind"
    if source["token_expires"]:
        yield f"logged in until {source['token_expires']}"
