"""What a file host answered, and what that means for the record: libcurl's codes and HTTP statuses."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import pycurl

from pipelined.errors import PermanentError, RecordError, TransientError

__all__ = ["REDIRECTS", "Answer", "judge_code", "judge_status", "read_answer"]

REDIRECTS = frozenset({301, 302, 303, 307, 308})
#: 4xx that say "not now" instead of "no".
_LATER = frozenset({408, 425, 429})
#: A host that asks for more than a day is asked again after a day.
_LONGEST_WAIT = 86_400.0

#: First bytes of the lines that matter: HTTP/…, Content-…, Transfer-Encoding, Location, and the empty one.
_FIRST = frozenset(b"HCcTtLl\r\n")

_CODES = {
    pycurl.E_COULDNT_RESOLVE_HOST: ("dns", "the host's name could not be resolved"),
    pycurl.E_COULDNT_CONNECT: ("connect", "no connection to the host"),
    pycurl.E_OPERATION_TIMEDOUT: ("timeout", "the host was too slow"),
    pycurl.E_PARTIAL_FILE: ("short_body", "the body ended before its announced length"),
    pycurl.E_SSL_CONNECT_ERROR: ("tls", "no TLS connection to the host"),
    pycurl.E_PEER_FAILED_VERIFICATION: ("certificate", "the host's certificate was not accepted"),
    pycurl.E_GOT_NOTHING: ("empty_reply", "the host closed the connection without an answer"),
    pycurl.E_SEND_ERROR: ("connection_lost", "the connection was lost"),
    pycurl.E_RECV_ERROR: ("connection_lost", "the connection was lost"),
    # What is neither HTTP/1 nor HTTP/2 counts as HTTP/0.9, which is not allowed.
    pycurl.E_UNSUPPORTED_PROTOCOL: ("bad_response", "the host's answer is not HTTP"),
    8: ("bad_response", "the host's answer is not HTTP"),  # CURLE_WEIRD_SERVER_REPLY; pycurl has no such name
}


class Answer(NamedTuple):
    """The head of an HTTP answer. ``bounded``: its end can be told from a lost connection.

    ``location`` is as the host wrote it: a reference, perhaps relative, perhaps with user-info.
    """

    status: int = 0
    content_type: str | None = None
    bounded: bool = False
    location: str | None = None


def read_answer(lines: Iterable[bytes]) -> Answer:
    """The last answer among header lines as libcurl hands them over, status lines included."""
    status = 0
    content_type = location = None
    bounded = body = False
    for line in lines:
        if line[0] not in _FIRST:
            continue  # most lines, passed over quickly
        if line.startswith(b"HTTP/"):
            parts = line.split(None, 2)
            status = int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else 0
            content_type = location = None
            bounded = body = False
        elif line in (b"\r\n", b"\n"):
            body = True  # what follows are trailers
        elif not body:
            name, _, value = line.partition(b":")
            name = name.lower()
            if name == b"content-type":
                content_type = value.strip().decode("latin-1")
            elif name == b"content-length" or (name == b"transfer-encoding" and b"chunked" in value.lower()):
                bounded = True
            elif name == b"location":
                location = value.strip().decode("utf-8", "replace")
    return Answer(status, content_type, bounded, location)


def judge_status(status: int, retry_after: float) -> RecordError | None:
    """What a final status means: None for 200. ``retry_after`` in seconds, 0 where the host did not say."""
    if status == 200:
        return None
    code = f"http_{status}"
    text = f"the host answered {status}"
    if status in _LATER or status >= 500:
        wait = min(retry_after, _LONGEST_WAIT) if retry_after > 0 else None
        return TransientError(code, text, http_status=status, retry_after=wait)
    if 200 <= status < 300:
        # Accepted, partial, empty: not the file, but nothing says that it will not be there later.
        return TransientError(code, f"{text} instead of 200 and the file", http_status=status)
    return PermanentError(code, text, http_status=status)


def judge_code(number: int, detail: str, *, max_bytes: int, http_status: int | None) -> RecordError:
    """What a transfer means that libcurl gave up with code ``number``."""
    if number == pycurl.E_FILESIZE_EXCEEDED:
        return PermanentError(
            "too_large", f"the file is larger than files.max_bytes = {max_bytes}", http_status=http_status
        )
    if number == pycurl.E_URL_MALFORMAT:
        return PermanentError("url_malformed", "the URL cannot be fetched as it is written")
    code, text = _CODES.get(number, (f"curl_{number}", "the transfer failed"))
    return TransientError(code, f"{text} ({detail})" if detail else text, http_status=http_status)
