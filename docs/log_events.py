"""The page of the reference about log events, and the look through the package for every call that logs."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pipelined
from docs.markdown import code, page, table
from pipelined.logs.events import EVENTS

__all__ = ["Call", "calls", "log_events"]

ROOT = Path(pipelined.__file__).parent
_METHODS = ("debug", "info", "warning", "error", "critical", "exception", "log")
_LEVELS = {"exception": "ERROR", "log": "varies"}

_INTRO = """\
Every log record of the package belongs to an event, whose code stays when its sentence is put better: in
JSON it is `event`, in the journal `LOG_EVENT` (`journalctl LOG_EVENT=worker.state`), for alerts and queries.
Where the level varies, the event says when. What the fields are and where the log is:
[logs](../how-to/logs.md)."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call that logs: its template and the code that it names, None where they are not literal."""

    where: str
    level: str
    sentence: str | None
    event: str | None

    @property
    def code(self) -> str | None:
        """The code of its record."""
        if self.event is not None:
            return self.event
        return next((event.code for event in EVENTS if event.sentence == self.sentence), None)


def calls(root: Path = ROOT) -> list[Call]:
    """Every call of a logger in the package, module by module."""
    return [call for path in sorted(root.rglob("*.py")) for call in _of(path, root)]


def _of(path: Path, root: Path) -> Iterator[Call]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    loggers, texts, fields = set(), {}, {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            if ast.unparse(node.value).startswith("logging.getLogger("):
                loggers.add(node.targets[0].id)
            elif isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
                texts[node.targets[0].id] = node.value.value
            elif isinstance(node.value, ast.Dict):
                fields[node.targets[0].id] = node.value
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _METHODS:
            logger = ast.unparse(node.func.value)
            if logger in loggers or logger.startswith("logging.getLogger("):
                event = _named(node, fields)
                where = f"{path.relative_to(root)}:{node.lineno}"
                yield Call(where, _level(node.func.attr), _sentence(node, node.func.attr, texts), event)


def _level(method: str) -> str:
    return _LEVELS.get(method, method.upper())


def _sentence(node: ast.Call, method: str, texts: dict[str, str]) -> str | None:
    template = node.args[1 if method == "log" else 0]
    if isinstance(template, ast.Constant) and isinstance(template.value, str):
        return template.value
    return texts.get(template.id) if isinstance(template, ast.Name) else None


def _named(node: ast.Call, fields: dict[str, ast.Dict]) -> str | None:
    """The code in ``extra={"event": …}``, there or in a variable."""
    for keyword in node.keywords:
        if keyword.arg != "extra":
            continue
        given = fields.get(keyword.value.id) if isinstance(keyword.value, ast.Name) else keyword.value
        if isinstance(given, ast.Dict):
            for key, value in zip(given.keys, given.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "event" and isinstance(value, ast.Constant):
                    return str(value.value)
    return None


def log_events() -> str:
    """Every event, by the first part of its code."""
    levels: dict[str, set[str]] = {}
    for call in calls():
        if call.code is not None:
            levels.setdefault(call.code, set()).add(call.level)
    levels.setdefault("log.dropped", {"WARNING"})  # made by the handler itself
    parts = []
    for area in sorted({event.code.partition(".")[0] for event in EVENTS}):
        rows = [
            [code(event.code), " or ".join(sorted(levels[event.code])), event.sentence, event.means, event.do]
            for event in sorted(EVENTS, key=lambda each: each.code)
            if event.code.partition(".")[0] == area
        ]
        parts += [f"## `{area}`", table(["code", "level", "sentence", "what it means", "what to do"], rows)]
    return page("Log events", "`pipelined/logs/events`", _INTRO, *parts)
