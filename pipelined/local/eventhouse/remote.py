"""A local Eventhouse that runs somewhere on this machine, as its feeder and its tests speak to it."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec

from pipelined.errors import UnavailableError, UsageError

__all__ = ["BATCH_ROWS", "Remote"]

_ANSWER_S = 300.0
#: Rows that are handed over at once; each such batch has its own ingestion time and cursor.
BATCH_ROWS = 100_000


class Remote:
    """The server at ``url``, and what can be ordered from it.

    All methods raise UnavailableError where it does not answer, and UsageError for what it refuses.
    """

    def __init__(self, url: str, database: str) -> None:
        #: http://127.0.0.1:port, for clients
        self.url = url
        self.database = database

    def command(self, text: str) -> list[list[Any]]:
        """Run a command such as ``.create table``; the rows of its result. UsageError if it is refused."""
        body = msgspec.json.encode({"db": self.database, "csl": text})
        token = (self.change_settings()["tokens"] or [""])[0]
        answer = self._call("POST", "/v1/rest/mgmt", body, {"Authorization": f"Bearer {token}"})
        rows: list[list[Any]] = answer["Tables"][0]["Rows"]
        return rows

    def ingest(
        self,
        table: str,
        rows: Iterable[Mapping[str, Any]],
        *,
        ingested: int | None = None,
        delay: float | None = 0.0,
        cursor_lag: float | None = 0.0,
    ) -> list[int]:
        """Put rows into a table; the numbers of their batches, of at most BATCH_ROWS rows each.

        The rows of a batch share one ingestion time: ``ingested`` in nanoseconds since the epoch, or the time
        they are handed over. They are visible ``delay`` seconds later and have their cursor ``cursor_lag``
        seconds after that; with None they wait for ``reveal`` and ``seal``.
        """
        told = {"table": table, "delay": json.dumps(delay), "lag": json.dumps(cursor_lag)}
        if ingested is not None:
            told["ingested"] = str(ingested)
        path = "/local/ingest?" + urlencode(told)
        batches, lines = [], []
        for row in rows:
            lines.append(row)
            if len(lines) == BATCH_ROWS:
                batches.append(self._call("POST", path, msgspec.json.Encoder().encode_lines(lines))["batch"])
                lines = []
        if lines:
            batches.append(self._call("POST", path, msgspec.json.Encoder().encode_lines(lines))["batch"])
        return batches

    def fault(self, kind: str, **fields: Any) -> None:
        """Order a fault: a kind of faults.FAULTS, the fields of faults.Fault. UsageError if it is none."""
        self._call("POST", "/local/faults", msgspec.json.encode({"kind": kind, **fields}))

    def clear_faults(self) -> None:
        """Forget all faults that are ordered; what hangs goes on."""
        self._call("DELETE", "/local/faults")

    def change_settings(self, **settings: Any) -> dict[str, Any]:
        """Change settings while it runs; all of them, as they are then."""
        changed: dict[str, Any] = self._call("POST", "/local/settings", msgspec.json.encode(settings))
        return changed

    def reveal(self, batch: int | None = None) -> None:
        """Make the rows of a batch visible, or of all that wait."""
        self._call("POST", "/local/reveal", msgspec.json.encode({"batch": batch}))

    def seal(self, batch: int | None = None) -> None:
        """Give the rows of a batch, or of all that are visible, their cursor."""
        self._call("POST", "/local/seal", msgspec.json.encode({"batch": batch}))

    def restart_cursors(self) -> None:
        """Let the cursors begin anew, so that none that was read before is known: a database made again."""
        self._call("POST", "/local/restart-cursors")

    def requests(self) -> list[dict[str, Any]]:
        """What was asked so far, in order: endpoint, database, text, options, parameters, headers, fault and
        connection (the client's port).
        """
        asked: list[dict[str, Any]] = self._call("GET", "/local/requests")
        return asked

    def forget_requests(self) -> None:
        """Begin the list of ``requests`` anew."""
        self._call("DELETE", "/local/requests")

    def _call(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] = {}) -> Any:
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=_ANSWER_S)
        try:
            connection.request(method, path, body, dict(headers))
            answer = connection.getresponse()
            told = json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise UnavailableError(
                f"the local Eventhouse at {self.url} does not answer: {error!r}"
            ) from error
        finally:
            connection.close()
        if answer.status != http.client.OK:
            raise UsageError(f"the local Eventhouse refused {path}: {told['error']['@message']}")
        return told
