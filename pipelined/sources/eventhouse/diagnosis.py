"""What an operator has to mend: why the service refuses a query, in the words of the configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from pipelined.config.sources import Eventhouse
from pipelined.errors import ConfigError
from pipelined.sources.eventhouse.client import Client
from pipelined.sources.eventhouse.errors import RefusedError
from pipelined.sources.eventhouse.queries import Queries, parameters

__all__ = ["RESET", "check_table", "diagnose"]

RESET = "decide with `pipelinectl sources reset eventhouse --to now|beginning|TIME`"
#: What columns of these may be; any other would be handed on as something else.
_TYPES = {"trace_id": ("guid", "string"), "data": ("dynamic", "string")}


def check_table(client: Client, queries: Queries, config: Eventhouse) -> None:
    """ConfigError where the table is not there, or not as ``[eventhouse.columns]`` says."""
    table = f'"{config.table}" in database "{config.database}"'
    try:
        found = {name: kind for name, _, _, kind in client.query(queries.schema(), {}).rows}
    except RefusedError as error:
        msg = f"eventhouse.table: there is no table {table} (any more): {error}"
        raise ConfigError(msg) from error
    problems = []
    for field in dataclasses.fields(config.columns):
        name = getattr(config.columns, field.name)
        key = f"eventhouse.columns.{field.name}"
        if name not in found:
            columns = ", ".join(found)
            problems.append(f'{key}: table {table} has no column "{name}" (any more); it has {columns}')
        elif found[name] not in _TYPES.get(field.name, (found[name],)):
            expected = " or ".join(_TYPES[field.name])
            problems.append(
                f'{key}: column "{name}" of table {table} is of type {found[name]}, not {expected}'
            )
    if problems:
        raise ConfigError(problems)


def diagnose(
    client: Client, queries: Queries, config: Eventhouse, error: RefusedError, cursor: str
) -> ConfigError:
    """What is behind a refused query, found by asking for its parts one after the other."""
    check_table(client, queries, config)
    if config.filter and _refused(lambda: client.query(queries.filtered(), {})):
        return ConfigError(f"eventhouse.filter is refused: {error}")
    if cursor and not _refused(lambda: client.query(queries.poll(), parameters({"after": ""}))):
        return ConfigError(f"the database does not know the cursor {cursor} (any more): {error}; {RESET}")
    return error


def _refused(query: Callable[[], object]) -> bool:
    try:
        query()
    except RefusedError:
        return True
    return False
