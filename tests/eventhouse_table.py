"""A table of an Eventhouse to poll, local or real, and a poller that is judged against it.

The tests run against a local Eventhouse, or against a real cluster where PIPELINED_EVENTHOUSE_URL and
PIPELINED_EVENTHOUSE_DATABASE name one: each test makes a table of its own there and drops it. The login is
configured in the same way (PIPELINED_EVENTHOUSE_AUTH_METHOD and so on, see docs/how-to/login.md), and has to
be an admin of the database.
"""

from __future__ import annotations

import dataclasses
import json
import os
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from azure.kusto.data import ClientRequestProperties, KustoClient, KustoConnectionStringBuilder

from pipelined.auth import provider
from pipelined.config import Config, load
from pipelined.config.sources import Columns
from pipelined.config.sources import Eventhouse as Section
from pipelined.errors import TransientError
from pipelined.local.eventhouse import Eventhouse
from pipelined.sources.contract import Page
from pipelined.sources.eventhouse import EventhouseSource
from pipelined.sources.eventhouse.source import SCOPE
from pipelined.stages.contract import Output
from waiting import until

REAL_URL = os.environ.get("PIPELINED_EVENTHOUSE_URL", "")
COLUMNS = {
    "type": "string",
    "version": "long",
    "utcDateTime": "datetime",
    "traceId": "guid",
    "data": "dynamic",
}
Event = dict[str, Any]


def events(count: int, **fields: Any) -> list[Event]:
    return [
        {
            "type": "claims.property.estimatePackageReceived",
            "version": number,
            "utcDateTime": "2026-01-05T14:22:31.1234567Z",
            "traceId": str(uuid.uuid4()),
            "data": {"assignmentId": f"A{number}", "note": None, "attachments": ["x"], "n": 1.5},
            **fields,
        }
        for number in range(count)
    ]


def real_section() -> Section:
    """The real cluster, as the environment configures it."""
    told = {name: value for name, value in os.environ.items() if name.startswith("PIPELINED_EVENTHOUSE_")}
    return load(None, (), told).config.eventhouse


class Table:
    """A table of its own for a test. ``local`` is the local Eventhouse, None for a real cluster."""

    def __init__(self, local: Eventhouse | None, columns: dict[str, str] | None = None) -> None:
        self.local = local
        self.name = f"pipelined_{uuid.uuid4().hex[:12]}"
        self.columns = columns or COLUMNS
        section = Section(url=local.url, database=local.database) if local else real_section()
        self.section = dataclasses.replace(section, table=self.name, page_rows=100, timeout_s=60.0)
        self.client = self._client()
        self.create()

    def _client(self) -> KustoClient:
        auth, url = self.section.auth, self.section.url
        if auth.method == "none":
            client = KustoClient(KustoConnectionStringBuilder.with_no_authentication(url))
            client._session.trust_env = False
            return client
        login = provider(auth, SCOPE, host=urlsplit(url).hostname or "")
        return KustoClient(KustoConnectionStringBuilder.with_token_provider(url, login.token))

    def create(self) -> None:
        columns = ", ".join(f"['{name}']:{kind}" for name, kind in self.columns.items())
        self.command(f".create table ['{self.name}'] ({columns})")

    def command(self, text: str) -> None:
        self.client.execute_mgmt(self.section.database, text)

    def drop(self) -> None:
        self.command(f".drop table ['{self.name}'] ifexists")

    def ingest(self, rows: Iterable[Event], **options: Any) -> None:
        """Put rows in; with options only a local Eventhouse can."""
        if self.local is not None:
            self.local.ingest(self.name, rows, **options)
            return
        assert not options, "only a local Eventhouse can be told how to ingest"
        lines = "\n".join(json.dumps(row) for row in rows)
        mapping = json.dumps([{"column": name, "path": f"$['{name}']"} for name in self.columns])
        self.command(
            f".ingest inline into table ['{self.name}'] with (format='json', "
            f"ingestionMapping='{mapping.replace(chr(39), chr(92) + chr(39))}', "
            f"ingestionMappingType='json') <|\n{lines}"
        )

    def rows(self, text: str) -> list[list[Any]]:
        properties = ClientRequestProperties()
        properties.set_option("notruncation", True)
        found: list[list[Any]] = (
            self.client.execute_query(self.section.database, text, properties).primary_results[0].raw_rows
        )
        return found

    def content(self) -> Counter[str]:
        """What is in the table, row for row, as events."""
        names = ", ".join(f"['{name}']" for name in self.columns)
        return Counter(
            _text(dict(zip(COLUMNS, row, strict=True)))
            for row in self.rows(f"['{self.name}'] | project {names}")
        )

    def config(self, **changes: Any) -> Config:
        return dataclasses.replace(Config(), eventhouse=dataclasses.replace(self.section, **changes))

    def close(self) -> None:
        if self.local is not None:
            self.local.clear_faults()
        self.drop()
        self.client.close()


def _text(event: Event) -> str:
    """An event in a form to compare: text that is an object is that object, nothing is nothing."""
    data = event["data"]
    if isinstance(data, str):
        try:
            told = json.loads(data)
        except ValueError:
            told = None
        event["data"] = told if isinstance(told, dict) else data
    elif data is not None and not isinstance(data, dict):
        event["data"] = json.dumps(data, separators=(",", ":"))
    return json.dumps({name: event[name] or None for name in COLUMNS}, sort_keys=True)


class Poller:
    """A source and its committed position; ``outputs`` are those of committed pages only."""

    def __init__(self, table: Table, /, **changes: Any) -> None:
        self.table = table
        self.changes = changes
        self.position: bytes | None = None
        self.outputs: list[Output] = []
        self.pages: list[Page] = []
        self.source = self._begun()

    def _begun(self) -> EventhouseSource:
        source = EventhouseSource(self.table.config(**self.changes))
        source.resume(self.position)
        return source

    def again(self, **changes: Any) -> None:
        """Another process takes over: what was not committed is gone."""
        self.source.close()
        self.changes |= changes
        self.source = self._begun()

    def step(self) -> Page | None:
        """One fetch, committed."""
        page = self.source.fetch(1.0)
        if page is not None:
            self.commit(page)
        return page

    def commit(self, page: Page) -> None:
        self.position = page.position
        self.outputs += page.outputs
        self.pages.append(page)
        self.source.committed(page)

    def drain(self, *, patient: bool = False) -> int:
        """Poll until there is nothing; how many events came. ``patient``: what passes is waited for."""
        before = len(self.outputs)
        while True:
            try:
                if self.step() is None:
                    return len(self.outputs) - before
            except TransientError:
                if not patient:
                    raise

    def events(self) -> Counter[str]:
        return Counter(_text(json.loads(output.value)) for output in self.outputs)

    def settle(self) -> None:
        """Poll until the table's rows are all there; the cursors of a real cluster may lag."""
        until(lambda: self.drain() == 0 and self.events() == self.table.content(), patience=90)

    def judge(self) -> None:
        """All rows of the table, and nothing else, each once."""
        if self.table.local is None:
            self.settle()
        self.drain()
        assert self.events() == self.table.content()

    def close(self) -> None:
        self.source.close()


@contextmanager
def standing() -> Iterator[Eventhouse | None]:
    """A local Eventhouse, or None where the tests run against a real cluster."""
    if REAL_URL:
        yield None
        return
    with Eventhouse() as house:
        yield house


@contextmanager
def lent(house: Eventhouse | None) -> Iterator[Table]:
    """A table of its own; the local Eventhouse is as it was when it is given back."""
    table = Table(house)
    started_with = house.change_settings() if house else {}
    try:
        yield table
    finally:
        if house:
            house.clear_faults()
            house.change_settings(**started_with)
        table.close()


@contextmanager
def polling(table: Table, /, **changes: Any) -> Iterator[Poller]:
    poller = Poller(table, **changes)
    try:
        yield poller
    finally:
        poller.close()


def raised(call: Callable[[], object]) -> Exception:
    """What a call raises."""
    try:
        call()
    except Exception as error:  # noqa: BLE001 - whatever it is, the test looks at it
        return error
    raise AssertionError("nothing was raised")


__all__ = [
    "COLUMNS",
    "REAL_URL",
    "Columns",
    "Poller",
    "Table",
    "events",
    "lent",
    "polling",
    "raised",
    "standing",
]
