"""Values on the wire, and back: SQL that makes JSON of a result's rows, and columns of ingested JSON."""

from __future__ import annotations

from collections.abc import Sequence

from pipelined.local.eventhouse.answers import Column

__all__ = ["DUCKDB_TYPES", "from_text", "kql_type", "quoted", "to_json"]

#: KQL type → the type of the column in DuckDB.
DUCKDB_TYPES = {
    "bool": "BOOLEAN",
    "int": "INTEGER",
    "long": "BIGINT",
    "real": "DOUBLE",
    "decimal": "DECIMAL(34, 14)",
    "string": "VARCHAR",
    "datetime": "TIMESTAMP_NS",
    "timespan": "INTERVAL",
    "guid": "UUID",
    "dynamic": "JSON",
}


def quoted(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def kql_type(duckdb_type: str) -> str:
    """What KQL calls a type of DuckDB."""
    from duckdb_kql.types import kusto_type

    return kusto_type(duckdb_type)


def to_json(columns: Sequence[tuple[str, str]], *, dynamic_as_text: bool) -> str:
    """An SQL expression: a row of these columns (name and DuckDB type) as a JSON array of Kusto's values."""
    values = " || ',' || ".join(_value(quoted(name), kind, dynamic_as_text) for name, kind in columns)
    return f"'[' || {values} || ']'"


def _value(name: str, duckdb_type: str, dynamic_as_text: bool) -> str:
    kind = kql_type(duckdb_type)
    if kind == "string":  # there is no null string in Kusto
        return f"coalesce(CAST(to_json(CAST({name} AS VARCHAR)) AS VARCHAR), '\"\"')"
    text = f"CAST({name} AS VARCHAR)"
    if kind in ("decimal", "guid"):
        text = f"'\"' || {text} || '\"'"
    elif kind == "datetime":
        text = _datetime(name, duckdb_type)
    elif kind == "timespan":
        text = _timespan(name)
    elif kind == "real":
        text = (
            f"CASE WHEN isnan({name}) THEN '\"NaN\"' WHEN isinf({name}) "
            f"THEN if({name} > 0, '\"Infinity\"', '\"-Infinity\"') ELSE {text} END"
        )
    elif kind == "dynamic":
        text = f"CAST(to_json({name}) AS VARCHAR)"
        if dynamic_as_text:
            text = f"CAST(to_json({text}) AS VARCHAR)"
    return f"coalesce({text}, 'null')"


def _datetime(name: str, duckdb_type: str) -> str:
    """Seven digits, without the zeros at their end: as the service writes them."""
    if duckdb_type == "TIMESTAMP_NS":
        text = f"left(strftime({name}, '%Y-%m-%dT%H:%M:%S.%n'), 27)"
    else:
        text = f"strftime(CAST({name} AS TIMESTAMP), '%Y-%m-%dT%H:%M:%S.%f')"
    return f"'\"' || rtrim(rtrim({text}, '0'), '.') || 'Z\"'"


def _timespan(name: str) -> str:
    return (
        f"list_transform([epoch_us({name})], lambda u: '\"' || if(u < 0, '-', '') || "
        "if(abs(u) >= 86400000000, (abs(u) // 86400000000) || '.', '') || "
        "lpad(CAST(abs(u) // 3600000000 % 24 AS VARCHAR), 2, '0') || ':' || "
        "lpad(CAST(abs(u) // 60000000 % 60 AS VARCHAR), 2, '0') || ':' || "
        "lpad(CAST(abs(u) // 1000000 % 60 AS VARCHAR), 2, '0') || "
        "if(abs(u) % 1000000 = 0, '', '.' || lpad(CAST(abs(u) % 1000000 AS VARCHAR), 6, '0') || '0') || "
        "'\"')[1]"
    )


def from_text(column: Column) -> str:
    """An SQL expression: the value of a column of the type from its text, or from JSON if it is dynamic.

    What is no value of the type is null, as in the service; the text of a null is NULL.
    """
    name = quoted(column.name)
    if column.type == "string":
        return f"coalesce({name}, '')"
    if column.type == "dynamic":
        return f"nullif({name}, 'null')"
    if column.type == "datetime":
        return _from_datetime(name)
    if column.type == "timespan":
        return (
            f"CASE WHEN regexp_matches({name}, '^-?\\d+\\.\\d\\d:') THEN if({name}[1] = '-', -1, 1) * "
            f"(to_days(CAST(regexp_extract({name}, '\\d+') AS INTEGER)) + "
            f"TRY_CAST(regexp_replace({name}, '^-?\\d+\\.', '') AS INTERVAL)) "
            f"ELSE TRY_CAST({name} AS INTERVAL) END"
        )
    return f"TRY_CAST({name} AS {DUCKDB_TYPES[column.type]})"


def _from_datetime(name: str) -> str:
    """The offset applied, the seventh digit kept; a year that TIMESTAMP_NS does not have is an error."""
    moment = f"TRY_CAST({name} AS TIMESTAMPTZ)"
    digit = f"coalesce(TRY_CAST(nullif(regexp_extract({name}, '\\.\\d{{6}}(\\d)', 1), '') AS INTEGER), 0)"
    return (
        f"CASE WHEN year({moment}) BETWEEN 1678 AND 2261 "
        f"THEN make_timestamp_ns(epoch_us({moment}) * 1000 + {digit} * 100) "
        f"WHEN {moment} IS NOT NULL THEN error('the local Eventhouse holds times of the years 1678 to 2261 "
        f"only, not ' || {name}) END"
    )
