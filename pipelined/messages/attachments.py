"""An attachment's identity, expiry and place: pure functions of its event and URL.

URLs are taken apart here once, by hand: the general parsers of the standard library cost ten times as
much as everything else that is done for an attachment.
"""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import re
import unicodedata
import uuid
from urllib.parse import unquote, unquote_to_bytes

import msgspec

from pipelined.errors import PoisonError
from pipelined.messages.codec import decode_object, encode, iso

__all__ = [
    "Link",
    "attachment_id",
    "attachment_urls",
    "disambiguate",
    "expiry",
    "file_name",
    "file_type",
    "folder",
    "parse_link",
    "sanitise",
    "unsigned",
]

#: The UUIDv5 namespace of attachment ids; a constant of this project, never to change.
NAMESPACE = uuid.UUID("5b3a8a0e-6f1d-5c39-9a38-0d6f1c1b7e52")
_NAMESPACE_DIGEST = hashlib.sha1(NAMESPACE.bytes, usedforsecurity=False)  # as RFC 9562 has it
_VARIANT = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))  # likewise

#: Query parameters that sign a URL or bound its life: they differ between two signings of one file.
_SIGNING = frozenset(
    "signature sig se st sp spr sv sr ss srt sip skoid sktid skt ske sks skv scid saoid suoid "
    "expires systemdate awsaccesskeyid key-pair-id policy token".split()
)
_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f-\x9f]')
_PLAIN = re.compile(r"[A-Za-z0-9_-](?:[A-Za-z0-9_. -]*[A-Za-z0-9_-])?")
_NAME_BYTES = 255


class Link(msgspec.Struct, frozen=True, gc=False):
    """What a URL says: without its signature, until when it holds, and its name.

    ``unsigned`` is the URL with user-info, fragment and signing parameters cut out and the rest as it
    stands: what logs, results and tables may show. ``expiry`` is None where the URL does not say it,
    ``expires_at`` the same as text. ``name`` is the last path segment, percent-decoded, its basename,
    sanitised; ``attachment`` if empty.
    """

    unsigned: str
    expiry: dt.datetime | None
    expires_at: str | None
    name: str


def parse_link(url: str) -> Link:
    """Take a URL apart; anything is accepted, judging it is the URL policy's business."""
    rest = url.partition("#")[0] if "#" in url else url
    base, _, query = rest.partition("?")
    slash = base.rfind("/")
    name = _name(base[slash + 1 :] if slash >= base.find("://") + 3 else "")
    if "@" in base:
        base = _without_user(base)
    if not query:
        return Link(base, None, None, name)
    begin, more, last = query.rpartition("&")
    # The links of one event are signed in one second, so they share all but the signature at their end,
    # which is the one part of it that says nothing.
    known = more and last.startswith("X-Amz-Signature=")
    kept, expiry, text = _signed(begin) if known else _read_query(query)
    return Link(base + kept, expiry, text, name)


def _read_query(query: str) -> tuple[str, dt.datetime | None, str | None]:
    """What of a query signs nothing, as it stands behind the path; until when it holds, also as text."""
    kept: list[str] = []
    signing: dict[str, str] = {}
    for pair in query.split("&"):
        parameter, _, value = pair.partition("=")
        signs = _signing_name(parameter)
        if signs:
            signing.setdefault(signs, value)
        else:
            kept.append(pair)
    expiry = _expiry(signing)
    return f"?{'&'.join(kept)}" if kept else "", expiry, None if expiry is None else iso(expiry)


_signed = functools.lru_cache(maxsize=1000)(_read_query)


def _without_user(base: str) -> str:
    """A URL's part before the query, without user-info."""
    scheme, colon, after = base.partition("://") if "://" in base else ("", "", base)
    authority, slash, path = after.partition("/")
    return scheme + colon + authority.rpartition("@")[2] + slash + path


@functools.lru_cache(maxsize=1000)
def _signing_name(name: str) -> str:
    """The name in lower case where it belongs to a signature, else empty."""
    name = name.lower()
    return name if name in _SIGNING or name.startswith(("x-amz-", "x-goog-")) else ""


def unsigned(url: str) -> str:
    """The URL as logs, results and tables may show it."""
    return parse_link(url).unsigned


def expiry(url: str) -> dt.datetime | None:
    """When a presigned URL ends, or None where it does not say (S3, Azure SAS and ClaimX styles)."""
    return parse_link(url).expiry


def _expiry(query: dict[str, str]) -> dt.datetime | None:
    try:
        if "x-amz-date" in query and "x-amz-expires" in query:
            # The basic format; fromisoformat() reads it, and strptime() takes twenty times as long.
            begin = dt.datetime.fromisoformat(query["x-amz-date"])
            return _utc(begin + dt.timedelta(0, int(query["x-amz-expires"])))
        if "se" in query and "sig" in query:
            return _utc(dt.datetime.fromisoformat(unquote(query["se"])))
        if "systemdate" in query and "expires" in query:
            return dt.datetime.fromtimestamp(
                (int(query["systemdate"]) + int(query["expires"])) / 1000, dt.UTC
            )
    except (ValueError, OverflowError, OSError):
        return None  # a signature we cannot read is for the server to judge
    return None


def _utc(moment: dt.datetime) -> dt.datetime:
    return moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)


def attachment_id(trace_id: str, link: Link) -> str:
    """The identity of one attachment: UUIDv5 of the trace id and the URL without its signature."""
    name = f"{trace_id}\n{link.unsigned}".encode("utf-8", "replace")
    digest = _NAMESPACE_DIGEST.copy()
    digest.update(name)
    text = digest.hexdigest()
    return f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{_VARIANT[text[16]]}{text[17:20]}-{text[20:32]}"


def sanitise(part: str, fallback: str) -> str:
    """One part of a path, safe on every file system and store; ``fallback`` where nothing is left."""
    if len(part) <= _NAME_BYTES and _PLAIN.fullmatch(part):
        return part
    text = _FORBIDDEN.sub("_", unicodedata.normalize("NFC", part)).strip(". ")
    return _cut(text, _NAME_BYTES).strip(". ") or fallback


def _cut(name: str, limit: int, tail: str = "") -> str:
    """``name`` with ``tail`` before its extension, at most ``limit`` bytes, cut before the extension."""
    stem, dot, extension = name.rpartition(".")
    if not stem or len(extension.encode()) > 16:
        stem, dot, extension = name, "", ""
    room = limit - len((tail + dot + extension).encode())
    stem = stem.encode()[:room].decode("utf-8", "ignore")
    return stem + tail + dot + extension


def _name(segment: str) -> str:
    if len(segment) <= _NAME_BYTES and _PLAIN.fullmatch(segment):
        return segment
    decoded = unquote_to_bytes(segment).decode("utf-8", "replace")
    return sanitise(re.split(r"[/\\]", decoded)[-1], "attachment")


def file_name(link: Link, status_subtype: str, assignment_id: str, estimate_version: str | None) -> str:
    """The file name of an attachment's blob path, by the rules of its event's subtype."""
    middle = ""
    if status_subtype == "firstNoticeOfLossReceived":
        middle = "FNOL_"
    elif status_subtype == "estimatePackageReceived":
        middle = f"{estimate_version or 'unknown'}_"
    return sanitise(f"{assignment_id}_{middle}{link.name}", "attachment")


def folder(trace_id: str, status_subtype: str, assignment_id: str) -> str:
    """``{status_subtype}/{assignment_id}/{trace_id}``, each part sanitised: the place of an event's files."""
    return f"{sanitise(status_subtype, '_')}/{sanitise(assignment_id, '_')}/{sanitise(trace_id, '_')}"


def disambiguate(name: str, identity: str) -> str:
    """The name of a later attachment of the same name: ``~`` and 8 of its id before the extension."""
    return _cut(name, _NAME_BYTES, f"~{identity[:8]}")


def file_type(name: str) -> str:
    """The upper-case extension of a file name, ``UNKNOWN`` without one."""
    stem, dot, extension = name.rpartition(".")
    return extension.upper() if dot and stem and extension else "UNKNOWN"


def attachment_urls(value: object) -> list[str]:
    """The attachments of an event as texts: a list, a list as JSON text, or a lone URL.

    Nulls and empty texts are no attachments. Anything else that is no text is kept as its JSON, so that
    the URL policy refuses it and it is accounted for.
    """
    if isinstance(value, str):
        value = value.strip()
        if value.startswith("["):
            try:
                value = decode_object(f'{{"list":{value}}}')["list"]
            except PoisonError:
                value = [value]
        else:
            value = [value]
    if not isinstance(value, list):
        return []
    texts = (
        entry if isinstance(entry, str) else encode(entry).decode() for entry in value if entry is not None
    )
    return [text for text in texts if text]
