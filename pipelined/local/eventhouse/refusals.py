"""How the service says no: the statuses, codes and exception names it answers with."""

from __future__ import annotations

import datetime
import uuid
from typing import Any

from pipelined.errors import PipelinedError

__all__ = ["LIMITS", "RefusedError", "error_body", "limits_error"]

INVALID = "Request is invalid and cannot be executed."
LIMITS = "Kusto.Data.Exceptions.KustoServicePartialQueryFailureLimitsExceededException"


class RefusedError(PipelinedError):
    """A request that is answered with an error; ``body`` words it as the service does."""

    def __init__(
        self, status: int, code: str, kind: str, text: str, *, permanent: bool = True, message: str = INVALID
    ) -> None:
        super().__init__(text)
        self.status = status
        self.code = code
        self.kind = kind
        self.permanent = permanent
        self.message = message

    def body(self, request_id: str) -> dict[str, Any]:
        """The JSON of the answer."""
        return error_body(
            self.code, self.kind, str(self), request_id, permanent=self.permanent, message=self.message
        )

    @classmethod
    def syntax(cls, text: str) -> RefusedError:
        """The text is no KQL, or no command."""
        kind = "Kusto.Data.Exceptions.SyntaxException"
        return cls(400, "BadRequest_SyntaxError", kind, f"Syntax error: {text}")

    @classmethod
    def semantic(cls, text: str) -> RefusedError:
        """It is KQL, and does not fit the tables."""
        kind = "Kusto.Data.Exceptions.SemanticException"
        return cls(400, "General_BadRequest", kind, f"Semantic error: {text}")

    @classmethod
    def bad_request(cls, text: str) -> RefusedError:
        """Anything else about the request that is wrong."""
        return cls(400, "General_BadRequest", "Kusto.Data.Exceptions.KustoBadRequestException", text)

    @classmethod
    def no_database(cls, name: str) -> RefusedError:
        """The database is not here."""
        kind = "Kusto.Data.Exceptions.DatabaseNotFoundException"
        return cls(400, "BadRequest_DatabaseNotExist", kind, f"Database '{name}' could not be found.")

    @classmethod
    def no_table(cls, name: str) -> RefusedError:
        """A command names a table that is not here."""
        kind = "Kusto.Data.Exceptions.EntityNotFoundException"
        text = f"Entity ID '{name}' of kind 'Table' was not found."
        return cls(400, "BadRequest_EntityNotFound", kind, text)

    @classmethod
    def forbidden(cls, text: str) -> RefusedError:
        """Not with these rights."""
        kind = "Kusto.Data.Exceptions.KustoRequestDeniedException"
        return cls(403, "Forbidden", kind, text, message="Caller is not authorized to perform this action")

    @classmethod
    def timed_out(cls, seconds: float) -> RefusedError:
        """The query took longer than its server timeout."""
        kind = "Kusto.Data.Exceptions.KustoServiceTimeoutException"
        text = f"Request execution has timed-out on the service side (timeout: {seconds} s)."
        return cls(504, "RequestExecutionTimeout", kind, text, permanent=False, message="Request timed out")


def error_body(
    code: str, kind: str, text: str, request_id: str, *, permanent: bool, message: str = INVALID
) -> dict[str, Any]:
    """One error of the service, under the key ``error``."""
    activity = str(uuid.uuid4())
    return {
        "error": {
            "code": code,
            "message": message,
            "@type": kind,
            "@message": text,
            "@context": {
                "timestamp": datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "0Z"),
                "serviceAlias": "LOCAL",
                "machineName": "LOCAL000000",
                "processName": "Kusto.WinSvc.Svc",
                "processId": 1,
                "threadId": 1,
                "clientRequestId": request_id,
                "activityId": activity,
                "subActivityId": activity,
                "activityType": "GW.Http.CallContext",
                "parentActivityId": activity,
                "activityStack": f"(Activity stack: CRID={request_id} ARID={activity})",
            },
            "@permanent": permanent,
        }
    }


def limits_error(text: str, request_id: str) -> dict[str, Any]:
    """A result that was cut at a limit: not permanent, yet the same query again is cut again."""
    text = f"Query execution has exceeded the allowed limits (80DA0003): {text}."
    return error_body("LimitsExceeded", LIMITS, text, request_id, permanent=False)
