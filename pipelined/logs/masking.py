"""What must never be shown, replaced in any text: signatures, tokens, keys, passwords.

Events carry presigned URLs, and errors of libraries repeat what they were given: so every text that
leaves the process as a log line goes through :func:`mask`, exception texts included. It errs on the
side of hiding.
"""

from __future__ import annotations

import re

__all__ = ["MASKED", "is_secret_name", "mask"]

MASKED = "***"

_WORDS = (
    r"pass(?:word|wd|phrase)|pwd|secret|token|credential|signature|authorization|api[-_]?key|"
    r"(?:shared[-_]?)?access[-_]?key(?:[-_]?id)?|account[-_]?key|private[-_]?key|shared[-_]?access[-_]?signature"
)
_SECRET_NAME = re.compile(rf"(?:{_WORDS}|(?<![a-z])sig)$", re.IGNORECASE)

_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"(-----BEGIN [A-Z ]*PRIVATE KEY-----).*?(-----END|\Z)", re.DOTALL),
        rf"\1{MASKED}\2",
    ),
    # A signature in a URL without scheme and host, as HTTP clients log a request line.
    (
        re.compile(
            r"([?&](?:amp;)?(?:x-(?:amz|goog)-[a-z-]{1,40}|sig|se|sp|sv|sr|st|skoid|policy|expires|key-pair-id)"
            r"(?:=|%3d))[^\s\"'<>&\\]+",
            re.IGNORECASE,
        ),
        rf"\1{MASKED}",
    ),
    (
        re.compile(r"\b(Bearer|Basic|SharedAccessSignature)(\s+)[A-Za-z0-9._~+/=%&-]+", re.IGNORECASE),
        rf"\1\2{MASKED}",
    ),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)*"), MASKED),
    # name="value", 'name': 'value', name=value, Name: value; also quoted once more inside a JSON text.
    (
        re.compile(
            rf"((?:{_WORDS})(?:\\*[\"'])?[ \t]*(?:=|:|%3d)[ \t]*[bf]?)(\\*[\"'])(?:(?!\2).)*?(?:\2|\Z)",
            re.IGNORECASE | re.DOTALL,
        ),
        rf"\1\2{MASKED}\2",
    ),
    (
        re.compile(
            rf"((?:{_WORDS})(?:\\*[\"'])?[ \t]*(?:=|:|%3d)[ \t]*)(?!(?:Bearer|Basic)\b)[^\s\"',;&\\)\]}}]+",
            re.IGNORECASE,
        ),
        rf"\1{MASKED}",
    ),
)

_AFTER_SCHEME = re.compile(r"://[^\s\"'<>\\]+")


def mask(text: str) -> str:
    """``text`` with everything that looks like a secret replaced by ``***``."""
    text = _AFTER_SCHEME.sub(_without_secrets, text)
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text


def _without_secrets(match: re.Match[str]) -> str:
    """What follows a URL's scheme, without its query and without a password before its host.

    Which parameters sign differs from store to store, so none is kept.
    """
    address, mark, query = match[0].partition("?")
    start, slash, path = address[3:].partition("/")
    user, at, host = start.rpartition("@")
    if ":" in user:
        user = user.partition(":")[0] + ":" + MASKED
    return f"://{user}{at}{host}{slash}{path}{mark}{MASKED if query else ''}"


def is_secret_name(name: str) -> bool:
    """Whether a field of this name holds a secret, whatever its value looks like."""
    return bool(_SECRET_NAME.search(name))
