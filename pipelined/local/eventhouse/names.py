"""Names in the wrong case: DuckDB takes them, Kusto does not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from pipelined.local.eventhouse.storage import Table

__all__ = ["misspelt"]

_PASSED_OVER: Final = re.compile(
    r"""//[^\n]*|h?@"(?:""|[^"])*"|h?@'(?:''|[^'])*'|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'"""
)
#: ``['name']`` after a value reads a property of it; elsewhere it is a name.
_PROPERTY: Final = re.compile(r"(?<=[\w\])])\[\s*['\"]\w+['\"]\s*\]")
_BRACKETED: Final = re.compile(r"(?<!dynamic\()\[\s*['\"](\w+)['\"]\s*\]")
_NAME: Final = re.compile(r"(?<![\w.$])([A-Za-z_]\w*)(?!\w)(?!\s*\()")
#: ``name =``, ``name:type``, ``let name``: the query gives the name itself.
_GIVEN: Final = re.compile(r"\b([A-Za-z_]\w*)\s*(?:=(?![=~])|:)")
_WORDS: Final = frozenset(
    "asc ascending by count desc descending distinct extend first getschema in inner join kind last leftanti "
    "limit lookup nulls on order or and not "
    "project range sort summarize take to top type union where with".split()
)


def misspelt(text: str, tables: Mapping[str, Table]) -> str | None:
    """A name of the query that is a table's or a column's in all but its case, None if there is none."""
    known = {column.name for table in tables.values() for column in table.columns} | set(tables)
    folded = {name.casefold() for name in known}
    bare = _BRACKETED.sub(r" \1 ", _PROPERTY.sub(" ", text))
    plain = _PASSED_OVER.sub(" ", bare)
    known |= {match[1] for match in _GIVEN.finditer(plain)} | _WORDS
    for match in _NAME.finditer(plain):
        if match[1] not in known and match[1].casefold() in folded:
            return match[1]
    return None
