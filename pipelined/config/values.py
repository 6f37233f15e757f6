"""One value of a key: from text or TOML to its type, within its limits; and how it is written."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from pipelined.config.leaves import Leaf
from pipelined.config.secrets import is_reference

__all__ = ["ValueRefusedError", "expected", "from_json", "from_text", "from_toml", "written"]

_NOUNS = {str: "one line of text", int: "a whole number", float: "a number", bool: "true or false"}
_PLURALS = {str: "texts", int: "whole numbers", float: "numbers", bool: "true or false"}
_SHOWN = 80
_HUGE = 2**63


class ValueRefusedError(ValueError):
    """A value that its key does not allow. The text never repeats the value of a secret."""


def expected(leaf: Leaf) -> str:
    """What a value of this key may be, in words."""
    if leaf.spec.secret:
        return '"env:NAME", "file:/path" or ""'
    words = f"a list of {_PLURALS[leaf.kind]}" if leaf.many else _NOUNS[leaf.kind]
    unit = f" of {leaf.spec.unit}" if leaf.spec.unit else ""
    allowed = leaf.spec.allowed()
    if leaf.spec.choices and not leaf.many:
        return allowed
    return f"{words}{unit}, {allowed}" if allowed else words + unit


def from_text(leaf: Leaf, text: str) -> Any:
    """The value that ``text`` (environment, command line) stands for. Lists are comma separated.

    Raises :class:`ValueRefusedError`.
    """
    if not leaf.many:
        return _limited(leaf, text, [_parsed(leaf, text)])[0]
    items = [item.strip() for item in text.split(",")] if text.strip() else []
    return tuple(_limited(leaf, text, [_parsed(leaf, item) for item in items]))


def from_toml(leaf: Leaf, value: object) -> Any:
    """The value that a TOML value stands for. Raises :class:`ValueRefusedError`."""
    if not leaf.many:
        return _limited(leaf, value, [_typed(leaf, value)])[0]
    if not isinstance(value, list):
        raise _problem(leaf, value)
    return tuple(_limited(leaf, value, [_typed(leaf, item) for item in value]))


def from_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by the paths of their keys that went through JSON, which has no tuples."""
    return {path: tuple(value) if isinstance(value, list) else value for path, value in values.items()}


def written(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, tuple | list):
        return "[" + ", ".join(written(item) for item in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return repr(value)


def _problem(leaf: Leaf, value: object) -> ValueRefusedError:
    if leaf.spec.secret:
        return ValueRefusedError(
            f"a secret goes by reference, never as itself (not shown here): expected {expected(leaf)}"
        )
    shown = written(value)
    if len(shown) > _SHOWN:
        shown = shown[:_SHOWN] + " …"
    return ValueRefusedError(f"{shown} is not allowed: expected {expected(leaf)}")


def _parsed(leaf: Leaf, text: str) -> Any:
    if leaf.kind is bool:
        if text.strip().lower() not in ("true", "false"):
            raise _problem(leaf, text)
        return text.strip().lower() == "true"
    convert: Callable[[str], Any] = leaf.kind
    try:
        return convert(text)
    except ValueError:
        raise _problem(leaf, text) from None


def _typed(leaf: Leaf, value: object) -> Any:
    if leaf.kind is float and type(value) is int:
        return float(value) if abs(value) < _HUGE else math.inf
    if type(value) is not leaf.kind:
        raise _problem(leaf, value)
    return value


def _limited(leaf: Leaf, given: object, items: list[Any]) -> list[Any]:
    if not all(_within(leaf, item) for item in items):
        raise _problem(leaf, given)
    return items


def _within(leaf: Leaf, item: Any) -> bool:
    spec = leaf.spec
    if isinstance(item, str):
        if spec.secret:
            return is_reference(item)
        if leaf.many and not item:
            return False
        return item.isprintable() and (not spec.choices or item in spec.choices)
    if not abs(item) < _HUGE:  # beyond it, or not a number at all
        return False
    return (spec.low is None or item >= spec.low) and (spec.high is None or item <= spec.high)
