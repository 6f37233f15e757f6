"""Real files of a wanted size, made in microseconds: what the local file server serves.

Every file is what its name says (a PDF with one page of text and a correct cross-reference table, a PNG
and a JPEG picture, well-formed XML, an archive that unpacks) and is filled up to the wanted size with
noise in a place its format allows. The same kind, size and seed give the same bytes on every machine;
another seed gives other bytes.
"""

from __future__ import annotations

import functools
import io
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Final

__all__ = ["KINDS", "make_file"]

_BLOCK: Final = 1 << 21  # bytes of noise, made once
_OFFSETS: Final = 1 << 16  # a file's filling begins somewhere in the first of them
_PDF_LINES: Final = ("Claim documents", "Seed %016x", "Generated for a local run")


def make_file(kind: str, size: int, seed: int) -> bytes:
    """A file of ``kind`` (one of ``KINDS``) of exactly ``size`` bytes.

    A size below the format's least (some hundred bytes, 800 at most) gives the least. ``seed`` counts modulo
    2**64. ValueError for an unknown kind.
    """
    maker = KINDS.get(kind)
    if maker is None:
        raise ValueError(f"no sample file of kind {kind!r}: the kinds are {', '.join(KINDS)}")
    return maker(size, seed % 2**64)


@functools.cache
def _noise() -> bytes:
    return random.Random(20260105).randbytes(_BLOCK)


@functools.cache
def _letters() -> bytes:
    """Noise of the letters a to p in lines of 64: legal as text and as XML."""
    letters = _noise().translate(bytes(ord("a") + (byte & 15) for byte in range(256)))
    return b"\n".join(letters[at : at + 63] for at in range(0, len(letters), 63))


def _filling(length: int, seed: int, source: Callable[[], bytes] = _noise) -> bytes:
    """``length`` bytes of the noise, from a place the seed chooses; it repeats when it is not enough."""
    block = source()
    start = seed * 2654435761 % _OFFSETS
    end = start + max(0, length)
    return (block if end <= len(block) else block * (end // len(block) + 1))[start:end]


def _pdf(size: int, seed: int) -> bytes:
    text = "".join(f"({line % seed if '%' in line else line}) Tj T* " for line in _PDF_LINES)
    page = f"BT /F1 14 Tf 18 TL 72 720 Td {text}ET".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R"
        b" /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(page), page),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    head = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(head))
        head += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    offsets.append(len(head))

    def around(length: int) -> tuple[bytes, bytes]:
        # Numbers of fixed width, so that the length of the file does not depend on the numbers.
        before = b"6 0 obj\n<< /Length %010d >>\nstream\n" % length
        after = b"\nendstream\nendobj\n"
        start = len(head) + len(before) + length + len(after)
        table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
        after += b"xref\n0 7\n0000000000 65535 f \n" + table
        return before, after + b"trailer\n<< /Size 7 /Root 1 0 R >>\nstartxref\n%010d\n%%%%EOF\n" % start

    length = max(0, size - len(head) - sum(map(len, around(0))))
    before, after = around(length)
    return b"".join((head, before, _filling(length, seed), after))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return b"".join(
        (struct.pack(">I", len(data)), kind, data, struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))))
    )


def _png(size: int, seed: int) -> bytes:
    # 8 by 8 pixels of the colours the seed chooses; each row begins with its filter (0: none).
    colours = struct.pack(">Q", seed) * 3
    rows = b"".join(b"\0" + colours[row:] + colours[:row] for row in range(8))
    head = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0))
    # One stored block, by hand: the same bytes whatever the version of zlib.
    stored = struct.pack("<BHH", 1, len(rows), len(rows) ^ 0xFFFF) + rows
    picture = _chunk(b"IDAT", b"\x78\x01" + stored + struct.pack(">I", zlib.adler32(rows)))
    end = _chunk(b"IEND", b"")
    length = max(0, size - len(head) - len(picture) - len(end) - 12)
    # A private chunk no reader needs (lower-case first letter): legal at any length.
    return b"".join((head, picture, _chunk(b"clAi", _filling(length, seed)), end))


def _jpg(size: int, seed: int) -> bytes:
    def segment(marker: int, data: bytes) -> bytes:
        return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data

    # One grey block of 8 by 8 pixels: a table with one code for "no difference", one for "end of block".
    tables = segment(0xDB, b"\0" + b"\x01" * 64)
    frame = segment(0xC0, struct.pack(">BHHBBBB", 8, 8, 8, 1, 1, 0x11, 0))
    codes = b"".join(segment(0xC4, bytes([which, 1]) + bytes(15) + b"\0") for which in (0x00, 0x10))
    scan = segment(0xDA, b"\x01\x01\x00\x00\x3f\x00") + b"\x3f"
    head = b"\xff\xd8" + segment(0xE0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0") + segment(0xFE, b"%016x" % seed)
    tail = tables + frame + codes + scan + b"\xff\xd9"
    length = max(0, size - len(head) - len(tail))
    filling = _filling(length, seed)
    # Comments hold at most 65,533 bytes; the last two share what is left, so none is shorter than its head.
    comments, at = [], 0
    while at < length:
        left = length - at
        take = left if left <= 65537 else min(65537, left - 4)
        comments.append(segment(0xFE, filling[at + 4 : at + take]) if take >= 4 else b"\xff" * take)
        at += take
    return b"".join((head, *comments, tail))


def _xml(size: int, seed: int) -> bytes:
    head = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<claim seed="{seed:016x}">\n<insured>Zoë Müller-Łukasz 山田</insured>\n<document>'
    ).encode()
    tail = b"</document>\n</claim>\n"
    return b"".join((head, _filling(size - len(head) - len(tail), seed, _letters), tail))


def _txt(size: int, seed: int) -> bytes:
    head = b"Claim note %016x\n" % seed
    return b"".join((head, _filling(size - len(head) - 1, seed, _letters), b"\n"))


def _archive(filling: bytes, seed: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo("claim.xml"), f'<claim seed="{seed:016x}"/>')
        archive.writestr(zipfile.ZipInfo("photos/scan.bin"), filling)
    return buffer.getvalue()


@functools.cache
def _archive_overhead() -> int:
    return len(_archive(b"", 0))


def _zip(size: int, seed: int) -> bytes:
    return _archive(_filling(size - _archive_overhead(), seed), seed)


def _exe(size: int, seed: int) -> bytes:
    """The beginning of a Windows program, for the refusal of one: nothing in it can run."""
    head = b"MZ\x90\0" + b"This file cannot run. %016x" % seed
    return head + _filling(size - len(head), seed)


KINDS: Final[dict[str, Callable[[int, int], bytes]]] = {
    "pdf": _pdf,
    "png": _png,
    "jpg": _jpg,
    "xml": _xml,
    "zip": _zip,
    "txt": _txt,
    "exe": _exe,
}
