"""What reading by cursors and reading by times have in common: the table, and the service's clock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipelined.config.sources import Eventhouse
from pipelined.errors import ConfigError
from pipelined.messages.codec import parse_time
from pipelined.sources.eventhouse.client import Client
from pipelined.sources.eventhouse.diagnosis import RESET
from pipelined.sources.eventhouse.pages import Pages, Read
from pipelined.sources.eventhouse.position import Key
from pipelined.sources.eventhouse.queries import Bounds, Queries, parameters
from pipelined.sources.eventhouse.rows import Row, output
from pipelined.stages.contract import Output

__all__ = ["Access", "emptied", "outputs", "seconds", "sortable"]


class Access:
    """One table. ``now`` is the service's clock as of the last poll; whoever reads it sets it back."""

    def __init__(self, config: Eventhouse, client: Client) -> None:
        self.config = config
        self.client = client
        self.queries = Queries(config)
        self.pages = Pages(client, self.queries, config.page_rows)
        self.now: float | None = None

    def one(self, text: str, **given: str) -> list[Any]:
        """The one row of an answer."""
        (row,) = self.client.query(text, parameters(given)).rows
        return row

    def read(self, bounds: Bounds, key: Key | None, kind: str) -> Read:
        """The next rows; ConfigError where the ids are not of the type they were of."""
        read = self.pages.read(bounds, key)
        if kind and read.kind != kind:
            column = self.config.columns.trace_id
            msg = (
                f'eventhouse.columns.trace_id: column "{column}" was of type {kind} and is of type '
                f"{read.kind} now; what it held before may be gone; {RESET}"
            )
            raise ConfigError(msg)
        return read


def emptied(table: str, since: str) -> ConfigError:
    """The rows that were read are gone, and it was not their age."""
    return ConfigError(
        f'the table "{table}" was emptied or made anew since {since}: no row that was read is in it any '
        f"more, and what is there may have been read before; {RESET}"
    )


def outputs(rows: Sequence[Row]) -> list[Output]:
    """The events of rows."""
    return [output(row) for row in rows]


def seconds(moment: str) -> float:
    """A time of the service as Unix time."""
    return parse_time(moment).timestamp()


def sortable(moment: str) -> str:
    """Times in this form are in the order of their texts: the service writes no zeros at the end."""
    text = moment.removesuffix("Z")
    return text.rstrip("0").rstrip(".") if "." in text else text
