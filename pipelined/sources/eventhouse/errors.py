"""What an answer of the service that is none means: one judgement for everything the client may raise.

    what came                                     becomes
    --------------------------------------------  ---------------------------------------------------------
    connection lost, cut, no answer in time;      TransientError: the same query again, soon
    429, 408, 500, 502, 503, 504, 520; an error
    the service calls passing; no JSON of its own
    name not found, refused, TLS, a proxy; a      DependencyError: again after a pause
    page to log in, a redirect, 413
    401 (after one fresh token), 403              AuthError
    LimitsExceeded, low memory, runaway query     LimitError: a smaller page
    404, a database that is not there             ConfigError
    400: the query does not fit the table         RefusedError, which the source looks into

The client raises more than its own errors (KeyError, TypeError, JSONDecodeError, urllib3's): all of
``Exception`` is judged here.
"""

from __future__ import annotations

import contextlib

from azure.kusto.data.exceptions import (
    KustoApiError,
    KustoMultiApiError,
    KustoNetworkError,
    KustoServiceError,
    KustoThrottlingError,
    OneApiError,
)
from requests import Response, exceptions

from pipelined.errors import AuthError, ConfigError, DependencyError, PipelinedError, TransientError

__all__ = ["LimitError", "LostError", "RefusedError", "classify", "partial_failure"]

_PASSING = frozenset((408, 500, 502, 503, 504, 520))
_LIMITS = (
    "LimitsExceeded",
    "LowMemoryCondition",
    "E_QUERY_RESULT_SET_TOO_LARGE",
    "E_RUNAWAY_QUERY",
    "E_LOW_MEMORY_CONDITION",
    "80DA0003",
)
_SHOWN = 300


class LimitError(TransientError):
    """The answer was cut at a limit of the service, or of ours: all of it is void, ask for less."""


class LostError(TransientError):
    """A connection that had stood was lost; one that lay idle for too long is, so ask again at once."""


class RefusedError(ConfigError):
    """The service refused the query as it is: the table, a column, the filter or the cursor do not fit."""


def classify(error: Exception, host: str) -> PipelinedError:
    """The error of ours for whatever the client raised for a query to ``host``."""
    if isinstance(error, PipelinedError):
        return error
    if isinstance(error, KustoNetworkError):
        return _network(error.__cause__ or error, host)
    if isinstance(error, KustoThrottlingError):
        response = error.args[1] if len(error.args) > 1 else None
        text = f"{host} takes no more queries for now (429)"
        return TransientError("throttled", text, http_status=429, retry_after=_retry_after(response))
    if isinstance(error, KustoMultiApiError):
        return _service(error.errors[0], None, host) if error.errors else _odd(error, host)
    if isinstance(error, KustoApiError):
        return _service(error.error, error.http_response, host)
    if isinstance(error, KustoServiceError):
        return _answered(error, host)
    return _odd(error, host)


def partial_failure(texts: list[str], host: str) -> PipelinedError:
    """The error for an answer that came with some of its rows, and says so in its completion."""
    text = "; ".join(texts)
    told = OneApiError(code="PartialFailure", message=text, description=text, permanent=False)
    return _service(told, None, host)


def _odd(error: Exception, host: str) -> PipelinedError:
    text = f"{host} answered with something the client cannot read ({type(error).__name__}: {_short(error)})"
    return TransientError("odd_answer", text)


def _network(cause: BaseException, host: str) -> PipelinedError:
    if isinstance(cause, exceptions.ReadTimeout):
        return TransientError("timeout", f"{host} did not answer in time")
    if isinstance(cause, exceptions.SSLError):
        return DependencyError("tls", f"no trusted connection to {host}: {_short(cause)}")
    if isinstance(cause, exceptions.ProxyError):
        return DependencyError("proxy", f"the proxy does not lead to {host}: {_short(cause)}")
    # A MaxRetryError wraps what happened before there was a connection.
    reason = getattr(cause.args[0], "reason", None) if cause.args else None
    if isinstance(cause, exceptions.ConnectTimeout) or reason is not None:
        return DependencyError("unreachable", f"{host} cannot be reached: {_short(reason or cause)}")
    return LostError("connection_lost", f"the connection to {host} was lost: {_short(cause)}")


def _service(told: OneApiError, response: Response | None, host: str) -> PipelinedError:
    """What the service says in its own form."""
    status = response.status_code if response is not None else None
    code, text = told.code or "", told.description or told.message or "no reason given"
    said = f"{host}: {_short(text)}"
    if any(word in part for word in _LIMITS for part in (code, told.type or "", text)):
        return LimitError("limit", said, http_status=status)
    if status == 403 or code == "Forbidden":
        return AuthError("forbidden", f"{said} Give the login the role of a viewer there", http_status=status)
    if "Database" in code and ("NotExist" in code or "NotFound" in code):
        return ConfigError(f"eventhouse.database: {said}")
    if status == 413:
        return DependencyError("too_large", said, http_status=status)
    if status in _PASSING or status in (None, 200) or told.permanent is False:
        return TransientError("service", said, http_status=status)
    return RefusedError(said)


def _answered(error: KustoServiceError, host: str) -> PipelinedError:
    """An answer without the service's own form: of something in between, as a rule."""
    response = error.http_response
    status = response.status_code if response is not None else None
    if status == 401:
        return AuthError("unauthorized", f"{host} does not accept the login (401)", http_status=401)
    if status == 403:
        return AuthError("forbidden", f"{host} refuses the login (403)", http_status=403)
    if status == 404:
        return ConfigError(f"eventhouse.url: there is no Eventhouse at {host} (404)")
    if status in _PASSING:
        return TransientError("service", f"{host} answered {status}: {_short(error)}", http_status=status)
    if status == 200 and response is not None and not response.content:
        return TransientError("odd_answer", f"{host} answered with nothing at all", http_status=200)
    if status == 200 and response is not None and response.content.lstrip()[:1] in (b"[", b"{"):
        return TransientError("odd_answer", f"{host} answered with half an answer", http_status=200)
    text = (
        f"what answers at {host} is not the Eventhouse ({status}): {_short(error)}; a proxy or a login page?"
    )
    return DependencyError("not_the_service", text, http_status=status)


def _retry_after(response: Response | None) -> float | None:
    """Seconds, where the answer names a number of them."""
    told = response.headers.get("Retry-After", "") if response is not None else ""
    with contextlib.suppress(ValueError):
        return max(0.0, float(told))
    return None


def _short(what: object) -> str:
    text = " ".join(str(what).split())
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
