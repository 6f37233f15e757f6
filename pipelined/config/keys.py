"""How one configuration key is declared: its default, meaning, unit and limits, beside its type."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

__all__ = ["SECRET_HELP", "key", "section", "spec_of"]

SECRET_HELP = 'A reference, never the secret itself: "env:NAME" or "file:/path"; "" for none.'


@dataclasses.dataclass(frozen=True, slots=True)
class Spec:
    """The declaration of one key as the loader, the reference and ``etc/pipelined.toml`` read it."""

    help: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    secret: bool = False

    def allowed(self) -> str:
        """What values are allowed beyond the type, in words; empty where there is no limit."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.low is not None and self.high is not None:
            return f"{self.low:.15g} to {self.high:.15g}"
        if self.low is not None:
            return f"at least {self.low:.15g}"
        if self.high is not None:
            return f"at most {self.high:.15g}"
        return ""


def key(
    default: Any,
    help: str,  # noqa: A002 - reads as the field's standard term at every call
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    secret: bool = False,
) -> Any:
    """Declare a leaf of the tree. Returns what ``dataclasses.field`` returns."""
    spec = Spec(help=help, unit=unit, low=low, high=high, choices=choices, secret=secret)
    return dataclasses.field(default=default, metadata={"spec": spec})


def section(factory: Any, help: str) -> Any:  # noqa: A002
    """Declare a section of the tree, built by ``factory`` with its own defaults."""
    return dataclasses.field(default_factory=factory, metadata={"help": help})


def spec_of(metadata: Mapping[str, Any]) -> Spec:
    """The :class:`Spec` of a leaf's field metadata."""
    spec = metadata["spec"]
    assert isinstance(spec, Spec)
    return spec
