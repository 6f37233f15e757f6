"""Long lists of values in a query, taken out of its text: the parser needs half a millisecond for each item.

``in (...)`` with many literals, and ``in (p)`` with a parameter of many, become a table of values to look in.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["COLUMN", "LONG", "lifted"]

#: A list of fewer stays where it is.
LONG: Final = 50
#: The column of a table of values.
COLUMN: Final = "v"

_IN: Final = re.compile(r"\bin~?\s*\(\s*(dynamic\s*\(\s*\[)?", re.IGNORECASE)
_ITEM: Final = re.compile(r"\s*(?P<item>\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|-?\d+)\s*(?P<comma>,)?")
_IN_NAME: Final = re.compile(r"(\bin~?\s*)\(\s*(\w+)\s*\)", re.IGNORECASE)

Values = list[str] | list[int]


def lifted(text: str, parameters: Mapping[str, Any]) -> tuple[str, dict[str, Values]]:
    """The query with each long list replaced by a table, and the values of those tables by their names."""
    tables: dict[str, Values] = {}
    pieces, at = [], 0
    for match in _IN.finditer(text):
        values, end = _items(text, match.end())
        closing = re.compile(r"\s*\]\s*\)\s*\)" if match[1] else r"\s*\)").match(text, end)
        if match.start() < at or len(values) < LONG or not closing:
            continue
        name = f"__list{len(tables)}"
        tables[name] = values
        pieces += [text[at : match.start()], match[0].partition("(")[0], f"({name} | project {COLUMN})"]
        at = closing.end()
    text = "".join(pieces) + text[at:]

    def named(match: re.Match[str]) -> str:
        values = _array(parameters.get(match[2]))
        if values is None:
            return match[0]
        tables[f"__list_{match[2]}"] = values
        return f"{match[1]}(__list_{match[2]} | project {COLUMN})"

    return _IN_NAME.sub(named, text), tables


def _items(text: str, at: int) -> tuple[Values, int]:
    """The literals that follow in the text, all texts or all numbers, and where they end."""
    items: list[str] = []
    while match := _ITEM.match(text, at):
        items.append(match["item"])
        at = match.end()
        if not match["comma"]:
            break
    return _alike([ast.literal_eval(item) for item in items]) or [], at


def _array(value: object) -> Values | None:
    """The values of a dynamic parameter that is a long array of texts or numbers, else None."""
    if not isinstance(value, str) or len(value) < 2 * LONG:
        return None
    try:
        told = json.loads(re.sub(r"^\s*dynamic\s*\((.*)\)\s*$", r"\1", value, flags=re.DOTALL))
    except ValueError:
        return None
    return _alike(told) if isinstance(told, list) and len(told) >= LONG else None


def _alike(values: list[Any]) -> Values | None:
    return values if {type(value) for value in values} in ({str}, {int}) else None
