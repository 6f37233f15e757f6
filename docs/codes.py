"""The codes of failures, read from the source: whoever adds one has documented it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pipelined
from pipelined.errors import Category, RecordError

__all__ = ["Code", "codes"]

_PACKAGE = Path(pipelined.__file__).parent
_CATEGORIES = {error.__name__: error.category for error in RecordError.__subclasses__()}
_CODE = re.compile(r"[a-z]+(_[a-z0-9…]+)*")
#: Here codes and their texts stand in pairs, and become an error elsewhere in the same module.
_PAIRS = {"fetch/answers.py": Category.TRANSIENT, "fetch/policy.py": Category.PERMANENT}


class Code(NamedTuple):
    """One code: whose it is, what it says (``…`` for what varies), and the module that gives it."""

    category: Category
    code: str
    message: str
    module: str


def codes() -> list[Code]:
    """Every code that the package gives, by category and name."""
    found = {code for path in _PACKAGE.rglob("*.py") for code in _in(path)}
    order = list(Category)
    return sorted(found, key=lambda code: (order.index(code.category), *code[1:]))


def _in(path: Path) -> Iterator[Code]:
    module = path.relative_to(_PACKAGE).as_posix()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    texts = _texts(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) >= 2:
            category = _CATEGORIES.get(node.func.id)
            pair = node.args[:2]
        elif isinstance(node, ast.Tuple) and len(node.elts) == 2:
            category = _PAIRS.get(module)
            pair = node.elts
        else:
            continue
        code, message = (_text(each, texts, node.lineno) for each in pair)
        if category is not None and code and message and " " in message and _CODE.fullmatch(code):
            yield Code(category, code, message, module)


def _texts(tree: ast.Module) -> list[tuple[str, int, ast.expr]]:
    """Every assignment of a text to a name, with its line: messages often stand above their error."""
    return [
        (node.targets[0].id, node.lineno, node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    ]


def _text(node: ast.expr, texts: list[tuple[str, int, ast.expr]], line: int) -> str:
    """The text of an expression with ``…`` for what is filled in; empty where it is no text."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        parts = (str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        return "".join(parts)
    if isinstance(node, ast.Name):
        above = [(at, value) for name, at, value in texts if name == node.id and at <= line]
        return _text(max(above, key=lambda each: each[0])[1], [], line) if above else ""
    if isinstance(node, ast.IfExp):
        return _text(node.body, texts, line)
    return ""
