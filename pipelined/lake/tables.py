"""Where a table of the configuration lies, and its sink."""

from __future__ import annotations

from pipelined.config.tree import Config
from pipelined.lake.schemas import TableSpec
from pipelined.lake.sink import DeltaSink, Observer
from pipelined.lake.table import TableSource

__all__ = ["sink", "source", "table_url"]


def table_url(config: Config, table: TableSpec) -> str:
    """The URL of a table: a folder of its name in ``tables.url``."""
    return f"{config.tables.url.rstrip('/')}/{table.name(config.domain)}"


def source(config: Config, table: TableSpec) -> TableSource:
    """A table, for who looks after it; nothing is opened yet."""
    return TableSource(
        table_url(config, table),
        table.schema,
        partition_by=table.partition_by,
        statistics=table.statistics,
        settings=config.tables,
    )


def sink(config: Config, table: TableSpec, *, app: str, observer: Observer | None = None) -> DeltaSink:
    """The sink of a table, not opened yet. ``app`` names the consumer for ever, its cluster included."""
    return DeltaSink(
        table_url(config, table),
        table.schema,
        app=app,
        settings=config.tables,
        partition_by=table.partition_by,
        merge_keys=table.merge_keys,
        statistics=table.statistics,
        observer=observer,
    )
