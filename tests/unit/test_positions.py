"""The positions of the sources in words, for every form that they have."""

from __future__ import annotations

import pytest

from pipelined.errors import ConfigError
from pipelined.sources.eventhouse.position import Key, Position, Watermark
from pipelined.sources.hub_position import Place
from pipelined.sources.hub_position import Position as HubPosition
from pipelined.sources.positions import Reached, reached

TABLE, HUB = "eventhouse-poller", "eventhub-reader"
STAMP = "2026-01-05T14:22:31.1234567Z"
SECONDS = pytest.approx(1767622951.123456)


@pytest.mark.parametrize(
    ("position", "expected"),
    [
        (Position.beginning(), Reached("at the first row", None)),
        (Position.beginning(STAMP), Reached(f"at the first row ingested at or after {STAMP}", None)),
        (
            Position(1, "12", last=STAMP),
            Reached(f"all rows up to cursor 12 are read; the newest row taken came in at {STAMP}", SECONDS),
        ),
        (Position(1, "12", until="15"), Reached("in the window up to cursor 15, at its beginning", None)),
        (
            Position(1, "12", until="15", key=Key(STAMP, "a"), last=STAMP),
            Reached(
                f"in the window up to cursor 15, behind the row of {STAMP}; "
                f"the newest row taken came in at {STAMP}",
                SECONDS,
            ),
        ),
        (
            Position(1, watermark=Watermark(settled=STAMP)),
            Reached(f"all that was ingested until {STAMP} is read, by times without cursors", SECONDS),
        ),
        (
            Position(1, watermark=Watermark(settled="")),
            Reached("at the first row, by times without cursors", None),
        ),
    ],
)
def test_of_an_eventhouse(position: Position, expected: Reached) -> None:
    assert reached(TABLE, position.to_bytes()) == expected


def test_of_an_event_hub() -> None:
    new = HubPosition(hub="h", partitions={1: Place(5), 0: Place(7)})
    assert reached(HUB, new.encoded()) == Reached("next offsets 0@7, 1@5; nothing is read yet", None)
    read = HubPosition(hub="h", partitions={0: Place(7, 6, 1_767_622_951_123), 1: Place(5, 4, 1_000)})
    told = reached(HUB, read.encoded())
    assert told.words == "next offsets 0@7, 1@5; the newest event taken came in at 2026-01-05T14:22:31.123Z"
    assert told.newest == 1_767_622_951.123


@pytest.mark.parametrize("worker_type", [TABLE, HUB])
@pytest.mark.parametrize(
    "value", [b"", b"[]", b'{"version": 99}', b'{"version": 99, "hub": "h", "partitions": {}}']
)
def test_what_this_version_cannot_read_is_said(worker_type: str, value: bytes) -> None:
    with pytest.raises(ConfigError):
        reached(worker_type, value)
