"""How far a partition is done: the next offset to consume, and what is done beyond it, in few bytes.

Beyond the first open record most are done and a few are not, or the other way round. They are written as
the lengths of alternating runs, or as one bit each, whichever is shorter, and never in more than
``LIMIT`` bytes: what does not fit counts as not done, which costs doing it again and loses nothing.
"""

from __future__ import annotations

import bisect
import itertools
import operator
from collections.abc import Iterable, Iterator
from typing import NamedTuple

__all__ = ["LIMIT", "Progress", "Run", "decode", "encode", "runs_of"]

#: Most bytes of an encoding. A broker takes 4,096 characters of metadata with an offset
#: (``offset.metadata.max.bytes``); in base 85 this leaves a good hundred for the rest.
LIMIT = 3190

_RUNS = 1
_BITS = 2

#: Offsets from the first up to, and without, the second.
Run = tuple[int, int]


class Progress(NamedTuple):
    """Everything before ``offset`` is done, and everything before ``end`` that is in no run of ``open``.

    The runs ascend and do not touch, and what is before ``end`` is done. Where there is any, the first
    begins at ``offset``; where there is none, ``end`` is ``offset``.
    """

    offset: int
    open: tuple[Run, ...] = ()
    end: int = 0

    @classmethod
    def up_to(cls, offset: int) -> Progress:
        """Everything before ``offset`` is done, and nothing beyond."""
        return cls(offset, (), offset)

    def is_done(self, offset: int) -> bool:
        """Whether the record of that offset is done."""
        if offset >= self.end:
            return False
        index = bisect.bisect_right(self.open, offset, key=operator.itemgetter(0))
        return index == 0 or offset >= self.open[index - 1][1]

    def since(self, low: int) -> tuple[Progress, int]:
        """The same where nothing before ``low`` is left, and how many open offsets that takes away."""
        if low <= self.offset:
            return self, 0
        gone = sum(min(end, low) - first for first, end in self.open if first < low) + max(0, low - self.end)
        runs = tuple((max(first, low), end) for first, end in self.open if end > low)
        if not runs:
            return Progress.up_to(max(self.end, low)), gone
        return Progress(runs[0][0], runs, self.end), gone


def runs_of(offsets: Iterable[int]) -> list[Run]:
    """Ascending offsets as runs."""
    runs: list[Run] = []
    first = end = -1
    for offset in offsets:
        if offset != end:
            if end >= 0:
                runs.append((first, end))
            first = offset
        end = offset + 1
    if end >= 0:
        runs.append((first, end))
    return runs


def encode(runs: Iterable[Run], end: int) -> tuple[Progress, bytes]:
    """The progress where all before ``end`` is done but ``runs``, and its encoding beside its offset.

    Where that would take more than LIMIT bytes the progress ends earlier: from its ``end`` on nothing
    counts as done.
    """
    progress = _ending_done(tuple(runs), end)
    if not progress.open:
        return progress, b""
    by_bits = _clipped(progress, progress.offset + 8 * (LIMIT - 1))
    by_lengths, lengths = _lengths(progress)
    size = 1 + (by_bits.end - by_bits.offset + 7) // 8
    if by_lengths.end > by_bits.end or (by_lengths.end == by_bits.end and len(lengths) <= size):
        return by_lengths, lengths
    return by_bits, _bits(by_bits)


def _ending_done(runs: tuple[Run, ...], end: int) -> Progress:
    """Nothing need be said of an open run with nothing done behind it."""
    if runs and runs[-1][1] >= end:
        end = runs[-1][0]
        runs = runs[:-1]
    return Progress(runs[0][0], runs, end) if runs else Progress.up_to(end)


def _clipped(progress: Progress, end: int) -> Progress:
    if progress.end <= end:
        return progress
    return _ending_done(tuple((first, min(last, end)) for first, last in progress.open if first < end), end)


def _lengths(progress: Progress) -> tuple[Progress, bytes]:
    """As the lengths of open and done runs, as far as they fit."""
    _, runs, end = progress
    written = bytearray((_RUNS,))
    for index, (first, last) in enumerate(runs):
        done_to = runs[index + 1][0] if index + 1 < len(runs) else end
        pair = _number(last - first) + _number(done_to - last)
        if len(written) + len(pair) > LIMIT:
            return _ending_done(runs[: index + 1], last), bytes(written)
        written += pair
    return progress, bytes(written)


def _bits(progress: Progress) -> bytes:
    """As one bit for each offset, set where it is done."""
    offset, runs, end = progress
    if not runs:
        return b""
    bits = (1 << (end - offset)) - 1
    for first, last in runs:
        bits &= ~(((1 << (last - first)) - 1) << (first - offset))
    return bytes((_BITS,)) + bits.to_bytes((bits.bit_length() + 7) // 8, "little")


def decode(offset: int, encoded: bytes) -> Progress:
    """The progress that was encoded beside ``offset``. Raises ValueError for anything else."""
    if not encoded:
        return Progress.up_to(offset)
    kind, rest = encoded[0], encoded[1:]
    if kind == _RUNS:
        return _from_lengths(offset, [*_numbers(rest)])
    if kind == _BITS:
        return _from_bits(offset, int.from_bytes(rest, "little"))
    msg = f"an unknown encoding, {kind}"
    raise ValueError(msg)


def _from_lengths(offset: int, lengths: list[int]) -> Progress:
    if not lengths or len(lengths) % 2 or not all(lengths):
        msg = "its runs are incomplete"
        raise ValueError(msg)
    at = [offset, *itertools.accumulate(lengths, initial=offset)][1:]
    return Progress(offset, tuple(zip(at[:-1:2], at[1::2], strict=True)), at[-1])


def _from_bits(offset: int, bits: int) -> Progress:
    if bits == 0 or bits & 1:
        msg = "its bits are not of an open record and done ones beyond"
        raise ValueError(msg)
    text = f"{bits:b}"[::-1]
    runs = []
    position = 0
    while (first := text.find("0", position)) >= 0:
        position = text.index("1", first)
        runs.append((offset + first, offset + position))
    return Progress(offset, tuple(runs), offset + len(text))


def _number(value: int) -> bytes:
    """A positive number in seven bits a byte, the lowest first (LEB128)."""
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def _numbers(encoded: bytes) -> Iterator[int]:
    value = shift = 0
    for byte in encoded:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield value
            value = shift = 0
    if shift:
        msg = "its last number is cut"
        raise ValueError(msg)
