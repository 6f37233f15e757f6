from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelined.kafka.notes import Note, NoteError, read_note, write_note
from pipelined.kafka.progress import LIMIT, Progress, encode, runs_of

TOPIC_ID = "kX2d0bZ5Q1a8m3VnE7rT_w"
_BROKERS_LIMIT = 4096


@given(st.sets(st.integers(0, 300)).map(sorted), st.integers(0, 2**50), st.sampled_from(["", TOPIC_ID]))
def test_what_is_noted_is_read_back(opened: list[int], dead: int, topic_id: str) -> None:
    progress, beyond = encode(runs_of(opened), 301)
    note = write_note("t.in", 3, progress.offset, topic_id=topic_id, beyond=beyond, dead=dead)
    assert read_note("t.in", 3, progress.offset, note) == Note(topic_id, progress, dead)


def test_the_longest_note_is_short_enough_for_a_broker() -> None:
    note = write_note("t.in", 3, 5, topic_id=TOPIC_ID, beyond=os.urandom(LIMIT), dead=2**62)
    assert len(note) <= _BROKERS_LIMIT


def test_a_note_says_nothing_of_another_offset_partition_or_topic() -> None:
    note = write_note("t.in", 3, 5, topic_id=TOPIC_ID)
    assert read_note("t.in", 3, 5, note).progress == Progress.up_to(5)
    for topic, number, offset in (("t.in", 3, 6), ("t.in", 2, 5), ("t.out", 3, 5)):
        with pytest.raises(NoteError, match="another offset"):
            read_note(topic, number, offset, note)


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ("", "by hand"),
        ("consumer-7 committed this", "not of this program"),
        ("2,a,b,c,00000000", "version 2"),
        ("1,,,,", "damaged"),
        ("1", "not of this program"),
        (
            write_note("t.in", 3, 5, topic_id=TOPIC_ID, beyond=b"\x01\x01\x05").replace(TOPIC_ID, "x"),
            "damaged",
        ),
    ],
)
def test_what_is_no_note_of_ours_is_told_with_the_reason(metadata: str, reason: str) -> None:
    with pytest.raises(NoteError, match=reason):
        read_note("t.in", 3, 5, metadata)
