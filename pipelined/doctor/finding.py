"""What a check found: how it is, what it is, and the fix where it is not as it should be."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from pipelined.logs.masking import mask

__all__ = ["Finding", "Outcome", "failed", "fine", "warned"]


class Outcome(enum.StrEnum):
    """``FAIL``: the daemon cannot do its work like that. ``warn``: it can, and somebody should look."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report, without secrets. ``fix`` is one phrase; empty where there is nothing to do."""

    outcome: Outcome
    found: str
    fix: str = ""

    def __post_init__(self) -> None:
        for name in ("found", "fix"):
            object.__setattr__(self, name, mask(" ".join(getattr(self, name).split())))


def fine(found: str) -> Finding:
    """It is as it should be."""
    return Finding(Outcome.OK, found)


def warned(found: str, fix: str) -> Finding:
    """It works, and somebody should look."""
    return Finding(Outcome.WARN, found, fix)


def failed(found: str, fix: str) -> Finding:
    """It does not work like that."""
    return Finding(Outcome.FAIL, found, fix)
