from __future__ import annotations

import hashlib
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelined.messages.identity import canonical, identities, identity

TRACE = "6f0c2b1e-8d3a-4c52-9a77-0e5d1b7c4f21"


@given(st.uuids(), st.lists(st.booleans(), min_size=36, max_size=36))
def test_a_uuid_in_any_mixture_of_cases_has_one_form(value: uuid.UUID, capitals: list[bool]) -> None:
    text = "".join(c.upper() if up else c for c, up in zip(str(value), capitals, strict=True))
    assert canonical(text) == str(value)
    assert identity(canonical(text).encode()) == value.bytes


@given(st.text(max_size=60))
def test_anything_else_is_left_as_it_is(text: str) -> None:
    try:
        expected = str(uuid.UUID(text)) if len(text) == 36 and text.count("-") == 4 else text
    except ValueError:
        expected = text
    assert canonical(text) in {text, expected}
    assert len(identity(canonical(text).encode("utf-8", "replace"))) == 16


@pytest.mark.parametrize(
    "text", [f"{{{TRACE.upper()}}}", TRACE.upper().replace("-", ""), TRACE.upper()[:-1] + "G", "ABC", ""]
)
def test_what_only_looks_like_a_uuid_keeps_its_capitals(text: str) -> None:
    assert canonical(text) == text


@pytest.mark.parametrize(
    "key",
    [
        TRACE[:-1].encode() + b"g",  # no hexadecimal digit
        TRACE[:-1].encode() + b"\xff",
        TRACE.replace("-", " ").encode(),
        b"6f0c2b1e-8d3a-4c52-9a77-0e5d1b7c 4f2",  # fromhex() would skip the blank
        b"",
        b"x" * 600,
    ],
)
def test_what_is_no_uuid_is_known_by_its_digest(key: bytes) -> None:
    assert identity(key) == hashlib.blake2b(key, digest_size=16).digest()


def test_a_key_in_capitals_is_another_one_unless_it_is_made_canonical() -> None:
    assert identity(b"Ab") != identity(b"aB")


UUIDS = st.uuids().map(lambda value: str(value).encode())
ODD = st.sampled_from(
    [
        b"",
        b"ABC",
        TRACE.upper().encode(),
        TRACE.encode()[:-1] + b"g",
        TRACE.encode()[:-1] + b"-",
        b"-" + TRACE.encode()[1:],
        b"-" * 36,
        b"0" * 36,
        TRACE.replace("-", "").encode() + b"----",
        b"x" * 35,
        b"x" * 37,
    ]
)


@given(st.lists(UUIDS, max_size=6), st.lists(UUIDS | ODD | st.binary(max_size=40), max_size=6))
def test_many_keys_at_once_have_the_identities_of_each(keys: list[bytes], more: list[bytes]) -> None:
    for given_ in (keys, more, keys + more, more + keys):
        assert identities(given_) == [identity(key) for key in given_]
