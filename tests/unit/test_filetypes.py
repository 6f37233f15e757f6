from __future__ import annotations

import pytest

from pipelined.config.tree import Files
from pipelined.errors import PermanentError
from pipelined.fetch.filetypes import FileTypes
from pipelined.local.samples import make_file

TYPES = FileTypes(Files())
GENERIC = "application/octet-stream"
PE = b"MZ\x90\x00\x03\x00\x00\x00" + bytes(56) + b"PE\x00\x00"


def refusal(content_type: str | None, head: bytes, name: str) -> str:
    with pytest.raises(PermanentError) as caught:
        TYPES.check_content(content_type, head, name)
    return caught.value.code


@pytest.mark.parametrize("name", ["a.pdf", "A.PDF", "a.b.jpeg", "noextension", ".hidden", "a."])
def test_a_listed_extension_or_none_is_taken(name: str) -> None:
    TYPES.check_extension(name)


@pytest.mark.parametrize("name", ["a.exe", "a.pdf.exe", "a.PS1", "a.pdf~"])
def test_an_extension_that_is_not_listed_is_refused(name: str) -> None:
    with pytest.raises(PermanentError, match=r"files\.extensions") as caught:
        TYPES.check_extension(name)
    assert caught.value.code == "file_type_extension"


@pytest.mark.parametrize(
    ("content_type", "head", "name"),
    [
        ("application/pdf", b"%PDF-1.7", "a.pdf"),
        ("Application/PDF; charset=binary", b"%PDF-1.7", "a.pdf"),
        ("image/jp2", b"\x00\x00\x00\x0cjP", "a.jpg"),
        (
            "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
            b"PK\x03\x04",
            "a.docx",
        ),
        ("text/html", b"<html>", "a.html"),
        ("text/plain", b"MZ is how this text begins", "a.txt"),
        ("application/pdf", b"", "a.pdf"),
    ],
)
def test_a_listed_content_type_is_taken(content_type: str, head: bytes, name: str) -> None:
    TYPES.check_content(content_type, head, name)


@pytest.mark.parametrize(
    "content_type", ["application/x-msdownload", "video/x-flv", "application/pdfx", "junk"]
)
def test_a_content_type_that_is_not_listed_is_refused(content_type: str) -> None:
    assert refusal(content_type, b"%PDF-1.7", "a.pdf") == "file_type_content_type"


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"%PDF-1.4", "a.pdf"),
        (b"\xef\xbb\xbf\n%PDF-1.4", "a.pdf"),
        (b"%PDF-1.4", "noextension"),
        (b"\xff\xd8\xff\xe0", "a.jpg"),
        (b"\x89PNG\r\n\x1a\n", "wrongly-named.jpg"),
        (b"RIFF\x10\x00\x00\x00WEBPVP8 ", "a.webp"),
        (b"\x00\x00\x00\x18ftypmp42", "a.mp4"),
        (b"BM\x36\x00\x00\x00\x00\x00\x00\x00", "a.bmp"),
        (b"PK\x03\x04", "a.esx"),
        (b"anything at all \x00\x01", "a.esx"),
        (b"a,b\n1,2\n", "a.csv"),
        (b"", "a.txt"),
        (b"\xff\xfea\x00b\x00", "a.txt"),
        (b"<?xml version='1.0'?>", "a.xml"),
        (b"plain text", "noextension"),
    ],
)
@pytest.mark.parametrize("content_type", [GENERIC, "binary/octet-stream", None, ""])
def test_a_generic_type_is_judged_by_the_first_bytes(
    content_type: str | None, head: bytes, name: str
) -> None:
    TYPES.check_content(content_type, head, name)


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"", "a.pdf"),
        (b"plain text", "a.pdf"),
        (b"\x00\x01\x02\x03\x04\x05\x06\x07", "a.jpg"),
        (b"\x00\x01\x02", "a.txt"),
        (b"\x1f\x8b\x08\x00", "noextension"),
        (b"", "noextension"),
    ],
)
def test_a_generic_type_with_unknown_first_bytes_is_refused(head: bytes, name: str) -> None:
    assert refusal(GENERIC, head, name) == "file_type_unknown"


def test_a_signature_whose_extensions_are_not_listed_is_refused() -> None:
    narrow = FileTypes(Files(extensions=("jpg",)))
    with pytest.raises(PermanentError) as caught:
        narrow.check_content(GENERIC, b"%PDF-1.7", "noextension")
    assert caught.value.code == "file_type_unknown"


@pytest.mark.parametrize("content_type", [GENERIC, "application/pdf", "text/plain", None])
@pytest.mark.parametrize(
    "head", [PE, b"\x7fELF\x02\x01", b"#!/bin/sh\n", b"#! /usr/bin/perl", b"\xcf\xfa\xed\xfe"]
)
def test_a_program_is_refused_whatever_it_is_called(content_type: str | None, head: bytes) -> None:
    assert refusal(content_type, head, "a.txt") == "file_type_program"
    assert refusal(content_type, head, "a.esx") == "file_type_program"


def test_the_local_stacks_program_is_recognised() -> None:
    assert refusal(GENERIC, make_file("exe", 2000, 7)[:1024], "a.esx") == "file_type_program"


@pytest.mark.parametrize("kind", ["pdf", "png", "jpg", "zip", "xml", "txt"])
def test_the_local_stacks_files_are_taken_with_a_generic_type(kind: str) -> None:
    TYPES.check_content(GENERIC, make_file(kind, 2000, 7)[:1024], f"a.{kind}")


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><html>", b"\n <HTML lang='en'>", b"\xef\xbb\xbf<html>"])
@pytest.mark.parametrize("content_type", ["text/html; charset=utf-8", "application/pdf"])
def test_a_web_page_behind_the_name_of_a_binary_file_is_refused(page: bytes, content_type: str) -> None:
    assert refusal(content_type, page, "a.pdf") == "file_type_mismatch"
