"""The answers of the service: the frames of v2 queries, the tables of v1 commands."""

from __future__ import annotations

import datetime
import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["Column", "Result", "v1", "v2"]

#: Rows that go out in one piece.
PIECE_ROWS = 1000
_VISUALIZATION: Final = json.dumps(
    dict.fromkeys(
        "Visualization Title XColumn Series YColumns AnomalyColumns XTitle YTitle XAxis YAxis Legend "
        "YSplit".split()
    )
    | {"Accumulate": False, "IsQuerySorted": False, "Kind": None, "Ymin": "NaN", "Ymax": "NaN"}
)
_COMPLETION: Final = [
    ("Timestamp", "datetime"),
    ("ClientRequestId", "string"),
    ("ActivityId", "guid"),
    ("SubActivityId", "guid"),
    ("ParentActivityId", "guid"),
    ("Level", "int"),
    ("LevelName", "string"),
    ("StatusCode", "int"),
    ("StatusCodeName", "string"),
    ("EventType", "int"),
    ("EventTypeName", "string"),
    ("Payload", "string"),
]
#: KQL type → what a v1 answer calls it.
_NET: Final = {
    "bool": "SByte",
    "int": "Int32",
    "long": "Int64",
    "real": "Double",
    "decimal": "SqlDecimal",
    "string": "String",
    "datetime": "DateTime",
    "timespan": "TimeSpan",
    "guid": "Guid",
    "dynamic": "Object",
}
#: E_QUERY_RESULT_SET_TOO_LARGE as the number it is.
_TOO_LARGE: Final = -2133196797


@dataclass(frozen=True)
class Column:
    """A column of a result: its name and KQL type."""

    name: str
    type: str


@dataclass
class Result:
    """What a query or a command came to. ``rows`` are JSON arrays, as text.

    ``cut`` says, in the service's words, which limit left rows out. ``error`` is what went wrong on the way;
    ``placement`` where it is told: after the rows, only at the end of the data set, or as the partial
    failure of a request that wanted those deferred.
    """

    columns: list[Column]
    rows: list[str] = field(default_factory=list)
    cut: str = ""
    error: dict[str, Any] | None = None
    placement: str = "rows"

    @classmethod
    def of(cls, columns: str, rows: Sequence[Sequence[object]] = ()) -> Result:
        """A result of plain values; ``columns`` as in ``Name:string, Rows:long``."""
        pairs = (column.strip().split(":") for column in columns.split(","))
        return cls([Column(name, kind) for name, kind in pairs], [json.dumps(list(row)) for row in rows])


def v1(result: Result) -> bytes:
    """The answer to a command."""
    columns = [
        {"ColumnName": c.name, "DataType": _NET.get(c.type, "String"), "ColumnType": c.type}
        for c in result.columns
    ]
    head = f'{{"Tables":[{{"TableName":"Table_0","Columns":{json.dumps(columns)},"Rows":['
    return f"{head}{','.join(result.rows)}]}}]}}".encode()


def v2(result: Result, request_id: str, *, pieces: int = PIECE_ROWS) -> Iterator[bytes]:
    """The answer to a query, in pieces of ``pieces`` rows: the frames before, the rows, the frames after."""
    head = {"FrameType": "DataSetHeader", "IsProgressive": False, "Version": "v2.0"}
    properties = _table(
        0,
        "QueryProperties",
        "@ExtendedProperties",
        [("TableId", "int"), ("Key", "string"), ("Value", "dynamic")],
        [[1, "Visualization", _VISUALIZATION]],
    )
    columns = [(column.name, column.type) for column in result.columns]
    opened = json.dumps(_table(1, "PrimaryResult", "PrimaryResult", columns, []))
    yield f"[{json.dumps(head)},{json.dumps(properties)},{opened[: -len(']}')]}".encode()
    for start in range(0, len(result.rows), pieces):
        yield ("," * (start > 0) + ",".join(result.rows[start : start + pieces])).encode()
    yield _end(result, request_id).encode()


def _end(result: Result, request_id: str) -> str:
    """All that comes after the rows."""
    completion: dict[str, Any] = {"FrameType": "DataSetCompletion", "HasErrors": False, "Cancelled": False}
    errors = [result.error] if result.error else []
    if errors and result.placement != "deferred":
        completion |= {"HasErrors": True, "OneApiErrors": errors}
    if errors and result.placement == "rows":
        comma = "," if result.rows else ""
        return f"{comma}{json.dumps({'OneApiErrors': errors})}]}},{json.dumps(completion)}]"
    information = _table(
        2,
        "QueryCompletionInformation",
        "QueryCompletionInformation",
        _COMPLETION,
        _information(result, request_id),
    )
    return f"]}},{json.dumps(information)},{json.dumps(completion)}]"


def _information(result: Result, request_id: str) -> list[list[object]]:
    now = datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "0Z")
    activity = str(uuid.uuid4())
    common = [now, request_id, activity, activity, activity]
    if result.error and result.placement == "deferred":
        text = result.error["error"]["@message"]
        name = f"Query result set too large (E_QUERY_RESULT_SET_TOO_LARGE). ({_TOO_LARGE})"
        payload = json.dumps({"Count": 1, "Text": text})
        first = [*common, 2, "Error", _TOO_LARGE, name, 1, "QueryLimitsExceeded", payload]
    else:
        payload = json.dumps({"Count": 1, "Text": "Query completed successfully"})
        first = [*common, 4, "Info", 0, "S_OK (0)", 4, "QueryInfo", payload]
    size = sum(map(len, result.rows))
    used = {"dataset_statistics": [{"table_row_count": len(result.rows), "table_size": size}]}
    last = [*common, 6, "Stats", 0, "S_OK (0)", 0, "QueryResourceConsumption", json.dumps(used)]
    return [first, last]


def _table(
    number: int, kind: str, name: str, columns: Sequence[tuple[str, str]], rows: list[list[object]]
) -> dict[str, Any]:
    return {
        "FrameType": "DataTable",
        "TableId": number,
        "TableKind": kind,
        "TableName": name,
        "Columns": [{"ColumnName": name, "ColumnType": kind} for name, kind in columns],
        "Rows": rows,
    }
