"""Who is who: trace ids, attachments and attachment ids, by the ledger's own reading of the contract.

Nothing here is shared with the workers: where both follow the same rule, they follow it separately, so
that a mistake in one of them shows as a difference.
"""

from __future__ import annotations

import json
import re
import uuid
from typing import Any

__all__ = ["Key", "attachment_key", "attachment_urls", "key_of", "name_of", "parse", "text_of", "trace_id_of"]

#: An id in memory: the 16 bytes of a UUID, or the text of any other id.
Key = bytes | str

_ATTACHMENT_IDS = uuid.UUID("5b3a8a0e-6f1d-5c39-9a38-0d6f1c1b7e52")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
# Scheme, user-info (left out), host and path, query; the fragment is left over.
_URL = re.compile(r"([^?#]*?://)?(?:[^/?#]*@)?([^?#]*)(?:\?([^#]*))?")
_SIGNING_PREFIXES = ("x-amz-", "x-goog-")
_SIGNING_NAMES = frozenset(
    (
        "se sig sip sks skt ske skv skoid sktid sp spr sr srt ss st sv saoid scid suoid "  # Azure SAS
        "awsaccesskeyid key-pair-id policy signature expires systemdate token"  # older S3, CloudFront, ClaimX
    ).split()
)


def parse(value: bytes | None) -> dict[str, Any] | None:
    """The JSON object in the bytes, or None where there is none."""
    try:
        found = json.loads((value or b"").decode())
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def text_of(value: object) -> str | None:
    """The text of an id: a number or a truth value becomes its JSON text, any other shape None."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    return None


def trace_id_of(event: dict[str, Any] | None) -> str | None:
    """The canonical trace id of an event: text, in lower case where it has the shape of a UUID."""
    text = text_of(event.get("traceId")) if event else None
    if not text:
        return None
    text = text.encode(errors="replace").decode()  # half a surrogate pair can be neither hashed nor shown
    return text.lower() if _UUID.fullmatch(text) else text


def key_of(name: str) -> Key:
    """The compact form of an id, equal for equal names. Only a lower-case UUID loses its text."""
    if len(name) == 36 and _UUID.fullmatch(name) and name == name.lower():
        return bytes.fromhex(name.replace("-", ""))
    return name


def name_of(key: Key) -> str:
    """The id a key stands for: the inverse of :func:`key_of`."""
    return key if isinstance(key, str) else str(uuid.UUID(bytes=key))


def attachment_urls(event: dict[str, Any]) -> list[str]:
    """The URLs under ``data.attachments`` in their order, repetitions included.

    ``data`` may be JSON text; so may ``attachments``, and it may be one URL instead of a list. Entries
    that are not text count by their JSON text; null and "" do not count.
    """
    data = event.get("data")
    if isinstance(data, str):
        data = parse(data.encode(errors="surrogatepass"))
    entries = data.get("attachments") if isinstance(data, dict) else None
    if isinstance(entries, str):
        entries = _listed(entries.strip())
    if not isinstance(entries, list):
        return []
    texts = (
        entry if isinstance(entry, str) else json.dumps(entry, separators=(",", ":"), ensure_ascii=False)
        for entry in entries
        if entry is not None
    )
    return [text for text in texts if text]


def _listed(text: str) -> list[Any]:
    """One text in place of a list: the JSON list in it, else the text itself as the only entry."""
    if text.startswith("["):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            return [text]
        if isinstance(found, list):
            return found
    return [text]


def attachment_key(trace_id: str, url: str) -> bytes:
    """The key of an attachment's id: UUIDv5 of the trace id and the URL without what signs it."""
    url = url.encode(errors="replace").decode()  # half a surrogate pair has no bytes to hash
    return uuid.uuid5(_ATTACHMENT_IDS, f"{trace_id}\n{_bare(url)}").bytes


def _bare(url: str) -> str:
    """The URL with user-info, fragment and what signs it or bounds its life cut out; the rest as it is."""
    parts = _URL.match(url)
    assert parts  # every text matches
    scheme, rest, query = parts[1] or "", parts[2], parts[3]
    pairs = [pair for pair in query.split("&") if not _signing(pair)] if query else []
    return scheme + rest + ("?" + "&".join(pairs) if pairs else "")


def _signing(pair: str) -> bool:
    name = pair.split("=", 1)[0].lower()
    return name in _SIGNING_NAMES or name.startswith(_SIGNING_PREFIXES)
