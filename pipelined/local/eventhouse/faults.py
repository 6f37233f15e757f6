"""Faults to order: what may befall a request, and which one.

A fault befalls the requests that fit it, ``times`` of them after ``skip`` that it lets pass. The first that
fits is the one; those that are used up are forgotten.
"""

from __future__ import annotations

import threading
from typing import Final, Literal

import msgspec

from pipelined.local.eventhouse.refusals import error_body

__all__ = ["FAULTS", "Fault", "Faults", "refusal"]

FAULTS: Final = {
    # answers instead of the right one
    "throttled": "429 with the service's JSON; Retry-After where the fault says so",
    "throttled-empty": "429 without a body",
    "throttled-html": "429 with a page",
    "bad-gateway": "502 with a page",
    "unavailable": "503 with plain text",
    "unavailable-empty": "503 without a body",
    "too-large": "413 with a page",
    "redirect": "302 to a page to log in",
    "timeout": "504 with the service's JSON",
    "internal": "500 with the service's JSON, not permanent",
    "service-error": "520 with the service's JSON, not permanent",
    "no-error": "500 with JSON of another form",
    "list": "500 with a list of JSON",
    "semantic": "400, the query does not fit the table",
    "syntax": "400, the query is no KQL",
    "unauthorized": "401 without a body, as for an expired token",
    "unauthorized-json": "401 with JSON",
    "forbidden": "403 with the service's JSON",
    "not-found": "404 with the service's JSON",
    "empty": "200 without a body",
    "login-page": "200 with the page of a proxy",
    "error-object": "200 with an error in place of the frames",
    "answer": "any status, body and headers, as the fault says",
    # the connection
    "delay": "the right answer, after `seconds`",
    "hang": "no answer for `seconds`, then the connection is closed; 0: until the client goes",
    "close": "the connection is closed without an answer",
    "reset": "the connection is reset without an answer",
    "reset-after-head": "the connection is reset after the status and headers",
    "close-idle": "the right answer, and the connection is closed after it without a word",
    # within the rows of an answer
    "cut": "the connection is closed after `rows` rows",
    "short": "the answer ends in order, in the middle of its JSON, after `rows` rows",
    "slow": "`seconds` before each row",
    "error-in-rows": "an error of the service after `rows` rows",
    "error-at-end": "`rows` rows, and an error that only the last frame tells",
    "partial": "`rows` rows, and a partial failure in QueryCompletionInformation",
}

_PAGE: Final = "<!DOCTYPE html><html><head><title>{0}</title></head><body><h1>{0}</h1></body></html>"
_HTML, _TEXT, _JSON = "text/html; charset=utf-8", "text/plain", "application/json; charset=utf-8"
_NAMESPACE = "Kusto.Data.Exceptions."
#: Kind of fault → status, type and body.
_PLAIN: Final = {
    "throttled-empty": (429, _TEXT, ""),
    "throttled-html": (429, _HTML, _PAGE.format("Too many requests")),
    "bad-gateway": (502, _HTML, _PAGE.format("502 Bad Gateway")),
    "unavailable": (503, _TEXT, "The service is unavailable."),
    "unavailable-empty": (503, _TEXT, ""),
    "too-large": (413, _HTML, _PAGE.format("413 Request Entity Too Large")),
    "redirect": (302, _TEXT, ""),
    "no-error": (500, _JSON, '{"Message": "An error has occurred."}'),
    "list": (500, _JSON, '["An error has occurred."]'),
    "unauthorized": (401, _TEXT, ""),
    "unauthorized-json": (401, _JSON, '{"error": {"code": "Unauthorized", "message": "no"}}'),
    "empty": (200, _JSON, ""),
    "login-page": (200, _HTML, _PAGE.format("Log in to the network")),
}
#: Kind of fault → status, code, exception, text and whether it is permanent.
_ERRORS: Final = {
    "throttled": (
        429,
        "Too many requests",
        _NAMESPACE + "QueryThrottledException",
        "The query was aborted due to throttling. Retrying after some backoff might succeed. "
        "Capacity: 50, Origin: 'RequestRateLimitPolicy/WorkloadGroup/default'.",
        False,
    ),
    "timeout": (
        504,
        "RequestExecutionTimeout",
        _NAMESPACE + "KustoServiceTimeoutException",
        "Request execution has timed-out on the service side.",
        False,
    ),
    "internal": (
        500,
        "General_InternalServerError",
        _NAMESPACE + "KustoServiceException",
        "An internal service error occurred.",
        False,
    ),
    "service-error": (
        520,
        "ServiceError",
        _NAMESPACE + "KustoServiceException",
        "The service failed to run the query.",
        False,
    ),
    "semantic": (
        400,
        "General_BadRequest",
        _NAMESPACE + "SemanticException",
        "Semantic error: SEM0100: 'where' operator: Failed to resolve table or column expression",
        True,
    ),
    "syntax": (
        400,
        "BadRequest_SyntaxError",
        _NAMESPACE + "SyntaxException",
        "Syntax error: SYN0002: A recognition or parsing error occurred.",
        True,
    ),
    "forbidden": (
        403,
        "Forbidden",
        _NAMESPACE + "KustoRequestDeniedException",
        "Principal 'aadapp=0' is not authorized to read database.",
        True,
    ),
    "not-found": (
        404,
        "NotFound",
        _NAMESPACE + "KustoServiceNotFoundException",
        "The path is not found.",
        True,
    ),
    "error-object": (
        200,
        "General_BadRequest",
        _NAMESPACE + "KustoBadRequestException",
        "Request is invalid.",
        True,
    ),
}


class Fault(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """An order: ``kind`` is one of FAULTS. ValueError if a field does not fit."""

    kind: str
    #: What befalls which requests: of this endpoint, with this text in it.
    endpoint: Literal["query", "mgmt", "ingest", "metadata", "any"] = "query"
    contains: str = ""
    skip: int = 0
    #: None: until it is cleared.
    times: int | None = 1
    seconds: float = 0.0
    rows: int = 0
    retry_after: str | None = None
    #: The text of an error in the rows; its code is LimitsExceeded.
    text: str = "Query result set has exceeded the internal record count limit (E_QUERY_RESULT_SET_TOO_LARGE)"
    status: int = 200
    body: str = ""
    headers: dict[str, str] = {}

    def __post_init__(self) -> None:
        if self.kind not in FAULTS:
            raise ValueError(f"there is no fault {self.kind!r}; there are: {', '.join(FAULTS)}")

    def fits(self, endpoint: str, text: str) -> bool:
        """Whether it is meant for such a request."""
        return self.endpoint in (endpoint, "any") and self.contains in text


class Faults:
    """Those that are ordered. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ordered: list[Fault] = []
        #: Grows with every ``clear``; what hangs until then looks here.
        self.cleared = threading.Event()

    def order(self, fault: Fault) -> None:
        """Order one, after those that are ordered already."""
        with self._lock:
            self._ordered.append(fault)

    def clear(self) -> None:
        """Forget all, and let go of what hangs."""
        with self._lock:
            self._ordered.clear()
            released, self.cleared = self.cleared, threading.Event()
        released.set()

    def take(self, endpoint: str, text: str) -> Fault | None:
        """The fault that befalls this request, which uses it up by one; None for most requests."""
        with self._lock:
            for fault in self._ordered:
                if not fault.fits(endpoint, text):
                    continue
                if fault.skip > 0:
                    fault.skip -= 1
                    continue
                if fault.times is not None:
                    fault.times -= 1
                    if fault.times <= 0:
                        self._ordered.remove(fault)
                return fault
        return None


def refusal(fault: Fault, request_id: str) -> tuple[int, dict[str, str], bytes] | None:
    """Status, headers and body of a fault that is an answer of its own; None if it is another kind."""
    headers = {"Retry-After": fault.retry_after} if fault.retry_after is not None else {}
    if fault.kind == "answer":
        return fault.status, {"Content-Type": _JSON, **headers, **fault.headers}, fault.body.encode()
    if fault.kind in _PLAIN:
        status, kind, text = _PLAIN[fault.kind]
        if status == 401:
            headers["WWW-Authenticate"] = 'Bearer authorization_uri="https://login.microsoftonline.com"'
        if status == 302:
            headers["Location"] = "/login"
        return status, {"Content-Type": kind, **headers}, text.encode()
    if fault.kind in _ERRORS:
        status, code, exception, text, permanent = _ERRORS[fault.kind]
        message = "Request is denied due to throttling." if status == 429 else text
        body = error_body(code, exception, text, request_id, permanent=permanent, message=message)
        return status, {"Content-Type": _JSON, **headers}, msgspec.json.encode(body)
    return None
