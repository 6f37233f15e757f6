from __future__ import annotations

import hashlib
import io
import re
import struct
import xml.etree.ElementTree as ET
import zipfile
import zlib

import pytest

from pipelined.local.samples import KINDS, make_file

SIZES = [
    0,
    600,
    601,
    602,
    603,
    604,
    2_000,
    4_096,
    65_537,
    66_000,
    66_200,
    131_500,
    200_001,
    2_000_000,
    3_000_000,
]
LEAST = 800


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_a_file_has_exactly_the_wanted_size(kind: str, size: int) -> None:
    made = make_file(kind, size, 7)
    if size >= LEAST:
        assert len(made) == size
    else:
        assert 0 < len(made) <= LEAST


def test_every_size_around_a_comment_boundary_of_a_jpeg_comes_out_exact() -> None:
    sizes = range(65_537 * 2 - 10, 65_537 * 2 + 500)
    assert [len(make_file("jpg", size, 1)) for size in sizes] == list(sizes)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(kind: str) -> None:
    made = {make_file(kind, 3_000, seed) for seed in range(200)}
    assert len(made) == 200
    assert make_file(kind, 3_000, 5) == make_file(kind, 3_000, 5)
    assert make_file(kind, 3_000, 5) == make_file(kind, 3_000, 5 + 2**64)


def test_the_bytes_do_not_change_between_versions() -> None:
    made = b"".join(make_file(kind, 5_000, 42) for kind in ("pdf", "png", "jpg", "xml", "txt", "exe"))
    assert (
        hashlib.sha256(made).hexdigest() == "a1a16bb70525628dace3f6b121c05e821d055f41ba46bbc2ec1bc80b6ad4773a"
    )


@pytest.mark.parametrize("size", SIZES)
def test_the_cross_reference_table_of_a_pdf_points_at_its_objects(size: int) -> None:
    made = make_file("pdf", size, 3)
    assert made.startswith(b"%PDF-1.4\n")
    assert made.endswith(b"%%EOF\n")
    start = int(made[made.rindex(b"startxref") :].split()[1])
    table = made[start:].split(b"\n")
    assert table[:2] == [b"xref", b"0 7"]
    for number in range(1, 7):
        offset = int(table[2 + number][:10])
        assert made[offset:].startswith(b"%d 0 obj\n" % number)
    for stream in re.finditer(rb"/Length (\d+) >>\nstream\n", made):
        assert made[stream.end() + int(stream[1]) :].startswith(b"\nendstream\nendobj\n")


@pytest.mark.parametrize("size", SIZES)
def test_a_png_has_right_checksums_and_a_whole_picture(size: int) -> None:
    made = make_file("png", size, 2**63)
    assert made.startswith(b"\x89PNG\r\n\x1a\n")
    at, chunks = 8, {}
    while at < len(made):
        (length,) = struct.unpack_from(">I", made, at)
        kind, data = made[at + 4 : at + 8], made[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", made, at + 8 + length) == (zlib.crc32(kind + data),)
        chunks[kind] = data
        at += 12 + length
    assert list(chunks) == [b"IHDR", b"IDAT", b"clAi", b"IEND"]
    assert len(zlib.decompress(chunks[b"IDAT"])) == 8 * (1 + 8 * 3)


@pytest.mark.parametrize("size", SIZES)
def test_the_segments_of_a_jpeg_lead_from_its_start_to_its_scan(size: int) -> None:
    made = make_file("jpg", size, 9)
    assert made[:2] == b"\xff\xd8"
    assert made[-2:] == b"\xff\xd9"
    at, markers = 2, []
    while not markers or markers[-1] != 0xDA:
        assert made[at] == 0xFF
        if made[at + 1] == 0xFF:  # fill bytes may precede any marker
            at += 1
            continue
        markers.append(made[at + 1])
        at += 2 + int.from_bytes(made[at + 2 : at + 4], "big")
    assert {0xE0, 0xDB, 0xC0, 0xC4, 0xDA} <= set(markers)
    assert len(made) - at == 3


@pytest.mark.parametrize("size", SIZES)
def test_an_xml_file_is_well_formed(size: int) -> None:
    root = ET.fromstring(make_file("xml", size, 11))
    assert root.tag == "claim"
    assert root.get("seed") == f"{11:016x}"


@pytest.mark.parametrize("size", SIZES)
def test_an_archive_unpacks(size: int) -> None:
    with zipfile.ZipFile(io.BytesIO(make_file("zip", size, 12))) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["claim.xml", "photos/scan.bin"]
        assert b"%016x" % 12 in archive.read("claim.xml")


def test_a_text_file_is_text() -> None:
    made = make_file("txt", 10_000, 1).decode("ascii")
    assert all(len(line) <= 64 for line in made.splitlines())


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no sample file of kind 'doc': the kinds are pdf, png"):
        make_file("doc", 1000, 1)
