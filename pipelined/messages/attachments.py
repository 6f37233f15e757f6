"""An attachment's identity, expiry and place: pure functions of its event and URL."""

from __future__ import annotations

import datetime as dt
import re
import unicodedata
import uuid
from urllib.parse import parse_qsl, unquote_to_bytes, urlencode, urlsplit, urlunsplit

__all__ = ["attachment_id", "blob_path", "disambiguate", "expiry", "file_name", "file_type", "unsigned"]

#: The UUIDv5 namespace of attachment ids; a constant of this project, never to change.
NAMESPACE = uuid.UUID("5b3a8a0e-6f1d-5c39-9a38-0d6f1c1b7e52")

#: Query parameters that sign a URL or bound its life: they differ between two signings of one file.
_SIGNING = frozenset(
    "signature sig se st sp spr sv sr ss srt sip skoid sktid skt ske sks skv scid saoid suoid "
    "expires systemdate awsaccesskeyid key-pair-id policy token".split()
)
_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f-\x9f]')
_NAME_BYTES = 255


def _signs(name: str) -> bool:
    name = name.lower()
    return name in _SIGNING or name.startswith(("x-amz-", "x-goog-"))


def unsigned(url: str) -> str:
    """The URL without user-info, fragment and signature: what logs, results and tables may show."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url.split("?", 1)[0].split("#", 1)[0]
    host = parts.netloc.rpartition("@")[2]
    query = parts.query
    if query:
        kept = [(k, v) for k, v in parse_qsl(query, keep_blank_values=True) if not _signs(k)]
        query = urlencode(kept)
    return urlunsplit((parts.scheme, host, parts.path, query, ""))


def attachment_id(trace_id: str, url: str) -> str:
    """The identity of one attachment: UUIDv5 of the trace id and the URL without its signature."""
    return str(uuid.uuid5(NAMESPACE, f"{trace_id}\n{unsigned(url)}"))


def expiry(url: str) -> dt.datetime | None:
    """When a presigned URL ends, or None where it does not say (S3, Azure SAS and ClaimX styles)."""
    try:
        query = {k.lower(): v for k, v in parse_qsl(urlsplit(url).query)}
        if "x-amz-date" in query and "x-amz-expires" in query:
            start = dt.datetime.strptime(query["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=dt.UTC)
            return start + dt.timedelta(seconds=int(query["x-amz-expires"]))
        if "se" in query and "sig" in query:
            end = dt.datetime.fromisoformat(query["se"])
            return end if end.tzinfo else end.replace(tzinfo=dt.UTC)
        if "systemdate" in query and "expires" in query:
            return dt.datetime.fromtimestamp(
                (int(query["systemdate"]) + int(query["expires"])) / 1000, dt.UTC
            )
    except (ValueError, OverflowError, OSError):
        return None  # a signature we cannot read is for the server to judge
    return None


def sanitise(part: str, fallback: str) -> str:
    """One part of a path, safe on every file system and store; ``fallback`` where nothing is left."""
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


def url_name(url: str) -> str:
    """The last path segment of a URL: percent-decoded, basename, sanitised; ``attachment`` if empty."""
    segment = urlsplit(url).path.rpartition("/")[2]
    decoded = unquote_to_bytes(segment).decode("utf-8", "replace")
    return sanitise(re.split(r"[/\\]", decoded)[-1], "attachment")


def file_name(url: str, status_subtype: str, assignment_id: str, estimate_version: str | None) -> str:
    """The file name of an attachment's blob path, by the rules of its event's subtype."""
    middle = ""
    if status_subtype == "firstNoticeOfLossReceived":
        middle = "FNOL_"
    elif status_subtype == "estimatePackageReceived":
        middle = f"{estimate_version or 'unknown'}_"
    return sanitise(f"{assignment_id}_{middle}{url_name(url)}", "attachment")


def blob_path(trace_id: str, status_subtype: str, assignment_id: str, name: str) -> str:
    """``{status_subtype}/{assignment_id}/{trace_id}/{name}``, each part sanitised."""
    parts = (sanitise(status_subtype, "_"), sanitise(assignment_id, "_"), sanitise(trace_id, "_"), name)
    return "/".join(parts)


def disambiguate(name: str, identity: str) -> str:
    """The name of a later attachment of the same name: ``~`` and 8 of its id before the extension."""
    return _cut(name, _NAME_BYTES, f"~{identity[:8]}")


def file_type(name: str) -> str:
    """The upper-case extension of a file name, ``UNKNOWN`` without one."""
    stem, dot, extension = name.rpartition(".")
    return extension.upper() if dot and stem and extension else "UNKNOWN"
