"""Secrets: by reference only, never repeated."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelined.config.secrets import is_reference, resolve, variable_of
from pipelined.errors import ConfigError
from pipelined.logs.masking import mask


def test_an_empty_reference_is_no_secret() -> None:
    assert resolve("") == ""


def test_a_variable_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORE_TOKEN", "abc")
    assert resolve("env:STORE_TOKEN") == "abc"
    assert resolve("env:STORE_TOKEN", {"STORE_TOKEN": "other"}) == "other"


@pytest.mark.parametrize("content", [b"abc", b"abc\n", b"abc\r\n", b"\xef\xbb\xbfabc\n"])
def test_a_file_is_read_without_its_byte_order_mark_and_line_end(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content)
    assert resolve(f"file:{file}") == "abc"


def test_spaces_are_part_of_a_secret(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(" a b \n")
    assert resolve(f"file:{file}") == " a b "


def test_a_rotated_file_is_read_anew(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("old")
    assert resolve(f"file:{file}") == "old"
    file.write_text("new")
    assert resolve(f"file:{file}") == "new"


@pytest.mark.parametrize(
    ("reference", "message"),
    [("env:ABSENT", "env:ABSENT: .*not set"), ("file:/absent/x", "file:/absent/x: .*No such file")],
)
def test_a_secret_that_is_missing_is_told_by_its_reference(reference: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        resolve(reference, {})
    assert mask(str(raised.value)) == str(raised.value)


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe"])
def test_an_empty_or_unreadable_file_is_an_error(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"empty|not UTF-8"):
        resolve(f"file:{file}")


@pytest.mark.parametrize("given", ["hunter2", "env:a b", "file:hunter2", "ENV:hunter2", "hunter2\n"])
def test_what_is_no_reference_is_refused_and_never_repeated(given: str) -> None:
    assert not is_reference(given)
    with pytest.raises(ConfigError, match="by reference") as raised:
        resolve(given)
    assert given.strip() not in str(raised.value)


def test_the_variable_behind_a_reference_is_known() -> None:
    assert variable_of("env:A_1") == "A_1"
    assert variable_of("file:/a") is None
