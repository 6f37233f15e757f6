"""Whatever Microsoft's client raises is one of our errors, with what to do about it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests
from azure.kusto.data.exceptions import (
    KustoApiError,
    KustoMultiApiError,
    KustoNetworkError,
    KustoServiceError,
    KustoThrottlingError,
)
from urllib3.exceptions import MaxRetryError, NameResolutionError, NewConnectionError, ProtocolError

from pipelined.errors import AuthError, ConfigError, DependencyError, PipelinedError, TransientError
from pipelined.sources.eventhouse.errors import (
    LimitError,
    LostError,
    RefusedError,
    classify,
    partial_failure,
)


def answer(status: int, body: bytes = b"", **headers: str) -> requests.Response:
    response = requests.Response()
    response.status_code = status
    response._content = body
    response.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    return response


def told(status: int, code: str, text: str, **more: Any) -> KustoApiError:
    error = {"error": {"code": code, "message": text, "@message": text, **more}}
    return KustoApiError(error, http_response=answer(status))


def network(cause: BaseException) -> KustoNetworkError:
    error = KustoNetworkError("https://h/v2/rest/query")
    error.__cause__ = cause
    return error


def unreachable(reason: Exception) -> KustoNetworkError:
    return network(requests.ConnectionError(MaxRetryError(None, "/v2", reason)))  # type: ignore[arg-type]  # none of it is looked at


CASES: list[tuple[Exception, type[PipelinedError], str]] = [
    (KustoThrottlingError("throttled", answer(429)), TransientError, "throttled"),
    (KustoThrottlingError("throttled"), TransientError, "throttled"),
    (unreachable(NewConnectionError(None, "refused")), DependencyError, "unreachable"),  # type: ignore[arg-type]  # none of it is looked at
    (unreachable(NameResolutionError("h", None, OSError("no"))), DependencyError, "unreachable"),  # type: ignore[arg-type]  # none of it is looked at
    (network(requests.ConnectTimeout()), DependencyError, "unreachable"),
    (network(requests.exceptions.SSLError("bad certificate")), DependencyError, "tls"),
    (network(requests.exceptions.ProxyError("no")), DependencyError, "proxy"),
    (network(requests.ReadTimeout()), TransientError, "timeout"),
    (network(requests.ConnectionError(ProtocolError("closed"))), LostError, "connection_lost"),
    (network(requests.exceptions.ChunkedEncodingError("cut")), LostError, "connection_lost"),
    (KeyError("error"), TransientError, "odd_answer"),
    (TypeError("x"), TransientError, "odd_answer"),
    (json.JSONDecodeError("x", "", 0), TransientError, "odd_answer"),
    (KustoServiceError("401", answer(401)), AuthError, "unauthorized"),
    (KustoServiceError("no", answer(403)), AuthError, "forbidden"),
    (told(403, "Forbidden", "no role"), AuthError, "forbidden"),
    (KustoServiceError("no", answer(404)), ConfigError, "eventhouse.url"),
    (KustoServiceError("<html>", answer(200, b"<html>")), DependencyError, "not_the_service"),
    (KustoServiceError("", answer(302)), DependencyError, "not_the_service"),
    (KustoServiceError("", answer(413, b"<html>")), DependencyError, "not_the_service"),
    (told(413, "PayloadTooLarge", "too large", **{"@permanent": True}), DependencyError, "too_large"),
    (KustoServiceError("[", answer(200, b"[{")), TransientError, "odd_answer"),
    (KustoServiceError("", answer(200)), TransientError, "odd_answer"),
    (KustoServiceError("", answer(503)), TransientError, "service"),
    (told(504, "RequestExecutionTimeout", "timed out", **{"@permanent": False}), TransientError, "service"),
    (told(400, "General_BadRequest", "SEM0100", **{"@permanent": True}), RefusedError, "SEM0100"),
    (told(400, "General_BadRequest", "SEM0100"), RefusedError, "SEM0100"),
    (told(400, "Odd", "for now", **{"@permanent": False}), TransientError, "service"),
    (
        told(400, "BadRequest_DatabaseNotExist", "no such", **{"@permanent": True}),
        ConfigError,
        "eventhouse.database",
    ),
    (told(400, "LimitsExceeded", "too much", **{"@permanent": False}), LimitError, "limit"),
    (told(400, "x", "E_RUNAWAY_QUERY", **{"@permanent": True}), LimitError, "limit"),
    (
        KustoMultiApiError(
            [{"OneApiErrors": [{"error": {"code": "LimitsExceeded", "message": "m", "@message": "m"}}]}]
        ),
        LimitError,
        "limit",
    ),
    (
        KustoMultiApiError([{"OneApiErrors": [{"error": {"code": "Odd", "message": "m", "@message": "m"}}]}]),
        TransientError,
        "service",
    ),
    (KustoMultiApiError([{"n": 1}]), TransientError, "odd_answer"),
    (partial_failure(["E_QUERY_RESULT_SET_TOO_LARGE"], "h"), LimitError, "limit"),
    (partial_failure(["a node was lost"], "h"), TransientError, "service"),
]


@pytest.mark.parametrize(("error", "kind", "code"), CASES)
def test_an_error_of_the_client_is_one_of_ours(
    error: Exception, kind: type[PipelinedError], code: str
) -> None:
    found = classify(error, "h")
    assert type(found) is kind
    assert code == getattr(found, "code", code)
    assert code in str(found) or hasattr(found, "code")


@pytest.mark.parametrize(
    ("header", "seconds"), [("30", 30.0), ("-1", 0.0), ("Wed, 21 Oct 2026 07:28:00 GMT", None), ("", None)]
)
def test_retry_after_is_a_number_of_seconds(header: str, seconds: float | None) -> None:
    found = classify(KustoThrottlingError("x", answer(429, Retry_After=header)), "h")
    assert isinstance(found, TransientError)
    assert found.retry_after == seconds


def test_a_long_reason_is_cut() -> None:
    assert len(str(classify(KustoServiceError("x" * 100_000, answer(500)), "h"))) < 1000
