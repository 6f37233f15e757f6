"""All parts of a local Eventhouse together: what a request comes to, whatever it came by."""

from __future__ import annotations

import gzip
from collections import deque
from pathlib import Path
from typing import Any

import msgspec

from pipelined.local.eventhouse.answers import Result
from pipelined.local.eventhouse.batches import Batches
from pipelined.local.eventhouse.commands import Commands
from pipelined.local.eventhouse.engine import Engine
from pipelined.local.eventhouse.faults import Faults
from pipelined.local.eventhouse.refusals import RefusedError, limits_error
from pipelined.local.eventhouse.requests import Request
from pipelined.local.eventhouse.settings import Settings
from pipelined.local.eventhouse.storage import Storage

__all__ = ["Service"]

#: What the service takes for the name of the database where a client gives none.
_NO_NAME = "NetDefaultDB"
_REQUESTS_KEPT = 10_000


class Service:
    """A cluster with one database, in a folder. UnavailableError if the folder is in use. Thread-safe."""

    def __init__(self, directory: Path, database: str, settings: Settings) -> None:
        self.database = database
        self.settings = settings
        self.faults = Faults()
        #: What was asked, in order: for tests to look at.
        self.requests: deque[dict[str, Any]] = deque(maxlen=_REQUESTS_KEPT)
        self.storage = Storage(directory)
        self.batches = Batches(self.storage, lambda: self.settings)
        self._engine = Engine(self.storage, self.batches, lambda: self.settings)
        self._commands = Commands(self.storage, self.batches, self._engine, database)

    def close(self) -> None:
        """Let go of the folder."""
        self.storage.close()

    def admit(self, authorization: str | None) -> bool:
        """Whether a request with this header is let in."""
        accepted = self.settings.tokens
        return accepted is None or authorization in [f"Bearer {token}" for token in accepted]

    def metadata(self) -> dict[str, Any]:
        """Where to log in, as the cluster's metadata has it."""
        login = self.settings.login_endpoint
        return {
            "AzureAD": {
                "LoginEndpoint": login,
                "LoginMfaRequired": False,
                "KustoClientAppId": "db662dc1-0cfe-4e1c-a843-19a68e65be58",
                "KustoClientRedirectUri": "http://localhost",
                "KustoServiceResourceId": "https://kusto.kusto.windows.net",
                "FirstPartyAuthorityUrl": f"{login}/f8cdef31-a31e-4b4a-93e4-5f571e91255a",
            }
        }

    def query(self, request: Request) -> Result:
        """The result of a query, with the error of a limit where the request wants it."""
        self._check(request.database)
        if request.text.lstrip().startswith("."):
            raise RefusedError.bad_request("A command was sent to the endpoint of queries.")
        result = self._engine.run(request)
        if result.cut:
            result.error = limits_error(result.cut, request.id)
            result.placement = "deferred" if request.asks("deferpartialqueryfailures") else "rows"
            if request.options.get("results_error_reporting_placement") in ("end_of_table", "end_of_dataset"):
                result.placement = "end"
        return result

    def command(self, request: Request) -> Result:
        """The result of a command."""
        self._check(request.database)
        return self._commands.run(request)

    def stream(self, request: Request, database: str, table: str, kind: str, body: bytes) -> Result:
        """Streaming ingestion: the rows are visible at once, and their cursors may lag."""
        self._check(database)
        if kind.lower() not in ("json", "multijson", "singlejson"):
            raise RefusedError.bad_request(f"the local Eventhouse takes no streams of format {kind}")
        if request.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self.take(table, body, delay=0.0, lag=self.settings.streaming_cursor_lag_s)
        return Result.of("ConsumptionMode:string")

    def take(
        self,
        table: str,
        rows: bytes,
        *,
        ingested: int | None = None,
        delay: float | None = 0.0,
        lag: float | None = 0.0,
    ) -> int:
        """Ingest JSON lines; the number of the batch. As ``Batches.take``."""
        found = self.storage.table(table)
        path = self.batches.new_file()
        path.write_bytes(rows)
        return self.batches.take(found, path, ingested=ingested, delay=delay, lag=lag)

    def change(self, told: dict[str, Any]) -> Settings:
        """Change some of the settings; all of them, as they are then. RefusedError if one does not fit."""
        try:
            self.settings = msgspec.convert(msgspec.to_builtins(self.settings) | told, Settings)
        except msgspec.ValidationError as error:
            raise RefusedError.bad_request(f"no settings: {error}") from error
        return self.settings

    def _check(self, database: str) -> None:
        if database not in (self.database, _NO_NAME):
            raise RefusedError.no_database(database)
