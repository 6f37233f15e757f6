"""Which files are taken: by extension, by content type, and where that says nothing by the first bytes.

The rules, in order; each refusal is permanent:

1. A name with an extension must have one of ``files.extensions``.
2. Programs (Windows, Linux and macOS executables, scripts with an interpreter line) are refused, whatever
   they are called.
3. The content type must match ``files.content_types``. None at all counts as ``application/octet-stream``.
4. A generic content type says nothing, so the first bytes must be those of some file type on the list, or
   text where the name has a textual extension or none. An extension whose files have no known signature
   (``esx``) is taken at its word.
5. A web page behind the name of a binary file is the host's error or login page, not the file.
"""

from __future__ import annotations

import re

from pipelined.config.tree import Files
from pipelined.errors import PermanentError

__all__ = ["HEAD_BYTES", "FileTypes", "sniff"]

#: How many first bytes ``check_content`` wants to see; fewer only where the file is shorter.
HEAD_BYTES = 1024

_GENERIC = frozenset({"application/octet-stream", "binary/octet-stream"})
_TEXTUAL = frozenset({"txt", "csv", "json", "xml", "html", "htm"})
_ZIP = ("zip", "docx", "xlsx", "esx")
_OLE = ("doc", "xls")
_SIGNATURES: tuple[tuple[bytes, tuple[str, ...]], ...] = (
    (b"\x89PNG\r\n\x1a\n", ("png",)),
    (b"\xff\xd8\xff", ("jpg", "jpeg")),
    (b"GIF87a", ("gif",)),
    (b"GIF89a", ("gif",)),
    (b"II*\x00", ("tiff", "tif")),
    (b"MM\x00*", ("tiff", "tif")),
    (b"PK\x03\x04", _ZIP),
    (b"PK\x05\x06", _ZIP),  # an empty archive
    (b"PK\x07\x08", _ZIP),  # a spanned one
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", _OLE),
    (b"{\\rtf", ("doc",)),
)
#: Types of the first box of a QuickTime or MP4 file, at byte 4.
_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"})
#: Extensions whose files must begin in a way this module knows.
_SIGNED = frozenset(extension for _, group in _SIGNATURES for extension in group if extension != "esx") | {
    *("pdf", "bmp", "webp", "mp4", "mov")
}
_PROGRAMS = (
    b"\x7fELF",
    b"\xfe\xed\xfa\xce",
    b"\xfe\xed\xfa\xcf",
    b"\xce\xfa\xed\xfe",
    b"\xcf\xfa\xed\xfe",
    b"\xca\xfe\xba\xbe",  # universal binaries of macOS, and Java classes
)
_SCRIPT = re.compile(rb"(?:\xef\xbb\xbf)?#![ \t]*/")
_PAGE = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype\s+html|html)[\s>]", re.IGNORECASE)
_BINARY = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


def sniff(head: bytes) -> frozenset[str]:
    """The extensions of the known file types that begin like ``head``; empty if none does."""
    for signature, extensions in _SIGNATURES:
        if head.startswith(signature):
            return frozenset(extensions)
    if b"%PDF-" in head[:HEAD_BYTES]:  # readers accept it anywhere in the first kilobyte
        return frozenset({"pdf"})
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return frozenset({"webp"})
    if head[4:8] in _BOXES:
        return frozenset({"mp4", "mov"})
    if head[:2] == b"BM" and head[6:10] == bytes(4):
        return frozenset({"bmp"})
    return frozenset()


def _is_program(head: bytes) -> bool:
    # Text may begin with MZ too; a DOS header has zero bytes, text has none.
    return (
        head.startswith(_PROGRAMS)
        or (head[:2] == b"MZ" and b"\x00" in head[:64])
        or _SCRIPT.match(head) is not None
    )


def _is_text(head: bytes) -> bool:
    return (
        head.startswith((b"\xff\xfe", b"\xfe\xff")) or _BINARY.search(head) is None
    )  # UTF-16 has zero bytes


class FileTypes:
    """The file policy of the ``[files]`` section."""

    def __init__(self, files: Files) -> None:
        self._extensions = frozenset(extension.lower().lstrip(".") for extension in files.extensions)
        types = [content_type.strip().lower() for content_type in files.content_types]
        self._types = frozenset(each for each in types if not each.endswith("*"))
        self._type_starts = tuple(each[:-1] for each in types if each.endswith("*"))

    def check_extension(self, name: str) -> None:
        """Return if a file of this name is taken or has no extension; else raise PermanentError."""
        extension = _extension(name)
        if extension and extension not in self._extensions:
            raise PermanentError(
                "file_type_extension",
                f"files ending in .{extension[:20]} are not on the list files.extensions",
            )

    def check_content(self, content_type: str | None, head: bytes, name: str) -> None:
        """Return if a file of this name, content type and beginning is taken; else raise PermanentError."""
        if _is_program(head):
            raise PermanentError("file_type_program", "the file is a program")
        declared = (content_type or "").partition(";")[0].strip().lower() or "application/octet-stream"
        if declared not in self._types and not declared.startswith(self._type_starts):
            raise PermanentError(
                "file_type_content_type",
                f"the content type {declared[:100]!r} is not on the list files.content_types",
            )
        extension = _extension(name)
        if extension in _SIGNED and _PAGE.match(head):
            raise PermanentError(
                "file_type_mismatch",
                f"a web page came instead of a .{extension} file; it may be an error page",
            )
        if declared in _GENERIC and not self._known(head, extension):
            raise PermanentError(
                "file_type_unknown",
                f"the content type {declared!r} says nothing, and the first bytes are not those of a file "
                "type on the list files.extensions",
            )

    def _known(self, head: bytes, extension: str) -> bool:
        """Whether a file of a generic content type is one of those taken, by its first bytes."""
        if sniff(head) & self._extensions:
            return True
        if extension in _TEXTUAL:
            return _is_text(head)
        if extension:
            return extension not in _SIGNED  # no signature to judge by
        return bool(_TEXTUAL & self._extensions) and bool(head) and _is_text(head)


def _extension(name: str) -> str:
    stem, dot, extension = name.rpartition(".")
    return extension.lower() if dot and stem else ""
