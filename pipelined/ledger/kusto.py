"""Asking an Eventhouse: the ledger's own few lines of the protocol, without the client of the workers."""

from __future__ import annotations

import json
import time
from typing import Any, Final
from urllib.parse import urlsplit

import urllib3

from pipelined.auth import provider
from pipelined.config.tree import Config
from pipelined.errors import RecordError, UnavailableError

__all__ = ["Kusto"]

_TIMEOUT_S: Final = 120.0
_ATTEMPTS: Final = 8
_PAUSE_S: Final = 1.0
_WORTH_ANOTHER: Final = frozenset({429, 500, 502, 503, 504, 520})
_ERROR_LEVEL: Final = 2
_SCOPE: Final = "https://kusto.kusto.windows.net/.default"


class Kusto:
    """The database of a configuration. ``UnavailableError`` when it does not answer, or not whole."""

    def __init__(self, config: Config) -> None:
        self._where = config.eventhouse
        self._http = urllib3.PoolManager(timeout=_TIMEOUT_S, retries=False)
        host = urlsplit(self._where.url).hostname or ""
        self._login = provider(self._where.auth, _SCOPE, section="eventhouse.auth", host=host)

    def close(self) -> None:
        """Close the connections, and renew no token any more."""
        self._http.clear()
        self._login.close()

    def rows(self, query: str) -> list[list[Any]]:
        """All rows of the result, values as JSON has them; a passing refusal is waited for."""
        for attempt in range(1, _ATTEMPTS + 1):
            status, body, reason = self._post(query)
            if status == 200:
                return self._primary(body)
            if attempt == _ATTEMPTS or (status and status not in _WORTH_ANOTHER):
                break
            time.sleep(_PAUSE_S)
        raise self._unavailable(reason or f"HTTP {status}: {body[:300].decode(errors='replace')}")

    def _post(self, query: str) -> tuple[int, bytes, str]:
        """Status, body, and what went wrong where there is no status."""
        request = {
            "db": self._where.database,
            "csl": query,
            "properties": json.dumps({"Options": {"notruncation": True, "request_readonly": True}}),
        }
        headers = {"Content-Type": "application/json; charset=utf-8", "Accept": "application/json"}
        try:
            token = self._login.token()
        except RecordError as error:
            raise self._unavailable(str(error)) from error
        if token:
            headers["Authorization"] = f"Bearer {token}"
        url = self._where.url.rstrip("/") + "/v2/rest/query"
        try:
            answer = self._http.request(
                "POST", url, body=json.dumps(request), headers=headers, redirect=False
            )
        except urllib3.exceptions.HTTPError as error:
            return 0, b"", str(error)
        return answer.status, answer.data, ""

    def _primary(self, body: bytes) -> list[list[Any]]:
        try:
            frames: list[dict[str, Any]] = json.loads(body)
            (primary,) = (frame for frame in frames if frame.get("TableKind") == "PrimaryResult")
            end = frames[-1]
        except (ValueError, AttributeError, IndexError) as error:
            raise self._unavailable(f"its answer is none: {body[:300].decode(errors='replace')}") from error
        rows: list[list[Any]] = primary["Rows"]
        whole = end.get("FrameType") == "DataSetCompletion" and not end.get("HasErrors")
        if not whole or any(isinstance(row, dict) for row in rows) or _told_error(frames):
            raise self._unavailable(f"its answer is not whole: {json.dumps(end)[:300]}")
        return rows

    def _unavailable(self, reason: str) -> UnavailableError:
        return UnavailableError(
            f"the Eventhouse {self._where.url} does not answer the ledger: {reason}. Check eventhouse.url, "
            "the database and the login, or leave the sources out with --without-sources"
        )


def _told_error(frames: list[dict[str, Any]]) -> bool:
    """Whether the information about the query tells of an error."""
    for frame in frames:
        if frame.get("TableKind") == "QueryCompletionInformation":
            names = [column["ColumnName"] for column in frame["Columns"]]
            level = names.index("Level") if "Level" in names else None
            if level is not None and any(row[level] <= _ERROR_LEVEL for row in frame["Rows"]):
                return True
    return False
