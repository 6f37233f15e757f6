"""A client of the local Eventhouse, and events for it."""

from __future__ import annotations

import uuid
from typing import Any

from azure.kusto.data import ClientRequestProperties, KustoClient, KustoConnectionStringBuilder
from azure.kusto.data.response import KustoResponseDataSet

import kustoqueries as kql


class Asking:
    """A client of one database, with parameters and options as keywords."""

    def __init__(self, url: str) -> None:
        self.client = KustoClient(KustoConnectionStringBuilder.with_no_authentication(url))

    def answer(
        self, text: str, parameters: dict[str, Any] | None = None, **options: Any
    ) -> KustoResponseDataSet:
        properties = ClientRequestProperties()
        for name, value in (parameters or {}).items():
            properties.set_parameter(name, value)
        for name, value in options.items():
            properties.set_option(name, value)
        return self.client.execute("events", text, properties)

    def rows(self, text: str, parameters: dict[str, Any] | None = None, **options: Any) -> list[list[Any]]:
        answer = self.answer(text, parameters, **options)
        assert answer.errors_count == 0
        found: list[list[Any]] = answer.primary_results[0].raw_rows
        return found

    def cursor(self) -> str:
        return str(self.rows(kql.CURRENT)[0][0])


def events(count: int, **fields: Any) -> list[dict[str, Any]]:
    return [
        {
            "type": "claims.estimatePackageReceived",
            "version": number,
            "utcDateTime": "2026-01-05T14:22:31.1234567Z",
            "traceId": str(uuid.uuid4()),
            "data": {"assignmentId": f"A{number}", "note": None, "attachments": ["x"]},
            **fields,
        }
        for number in range(count)
    ]
