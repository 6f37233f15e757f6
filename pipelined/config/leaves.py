"""The leaves of the configuration tree: every key with its path, type, declaration and default."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipelined.config.keys import Spec, spec_of
from pipelined.config.tree import Config

__all__ = ["VARIABLE_PREFIX", "Leaf", "Section", "built", "leaves", "sections"]

VARIABLE_PREFIX = "PIPELINED_"


@dataclass(frozen=True, slots=True)
class Leaf:
    """One key. ``kind`` is str, int, float or bool; ``many`` says whether it is a tuple of these."""

    path: str
    kind: type
    many: bool
    spec: Spec
    default: Any

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition(".")[2]

    @property
    def variable(self) -> str:
        """The environment variable that sets this key."""
        return VARIABLE_PREFIX + self.path.replace(".", "_").upper()


@dataclass(frozen=True, slots=True)
class Section:
    """One section. ``path`` and ``help`` are empty for the root; ``leaves`` are those directly in it."""

    path: str
    help: str
    type_name: str
    leaves: tuple[Leaf, ...]


def _leaf(path: str, annotation: Any, spec: Spec, default: Any) -> Leaf:
    many = typing.get_origin(annotation) is tuple
    kind = typing.get_args(annotation)[0] if many else annotation
    if kind not in (str, int, float, bool):
        raise TypeError(f"{path}: a key of type {annotation} is not supported")
    return Leaf(path, kind, many, spec, default)


#: The types of the keys of each section: evaluating them takes most of the time of a walk, and the supervisor
#: walks as well, which must not stand still for long.
_hints: dict[type, dict[str, Any]] = {}


def _walk(node: Any, path: str, help_text: str) -> Iterator[Section]:
    hints = _hints.get(type(node))
    if hints is None:
        hints = _hints[type(node)] = typing.get_type_hints(type(node))
    own: list[Leaf] = []
    below: list[Iterator[Section]] = []
    for field in dataclasses.fields(node):
        value = getattr(node, field.name)
        full = f"{path}.{field.name}" if path else field.name
        if dataclasses.is_dataclass(value):
            below.append(_walk(value, full, field.metadata["help"]))
        else:
            own.append(_leaf(full, hints[field.name], spec_of(field.metadata), value))
    yield Section(path, help_text, type(node).__name__, tuple(own))
    for each in below:
        yield from each


def sections(config: Config | None = None) -> tuple[Section, ...]:
    """Every section in the order of its declaration, the root first, with the values of ``config``."""
    return tuple(_walk(config or Config(), "", ""))


def leaves(config: Config | None = None) -> tuple[Leaf, ...]:
    """Every key; ``default`` is its value in ``config``, or its default without one."""
    return tuple(leaf for section in sections(config) for leaf in section.leaves)


def built(values: Mapping[str, Any]) -> Config:
    """The tree with ``values`` (by path) in the place of the defaults."""
    config = _replaced(Config(), "", values)
    assert isinstance(config, Config)
    return config


def _replaced(node: Any, path: str, values: Mapping[str, Any]) -> Any:
    changes = {}
    for field in dataclasses.fields(node):
        full = f"{path}.{field.name}" if path else field.name
        value = getattr(node, field.name)
        if dataclasses.is_dataclass(value):
            changes[field.name] = _replaced(value, full, values)
        elif full in values:
            changes[field.name] = values[full]
    return dataclasses.replace(node, **changes)
