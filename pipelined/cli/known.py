"""What is given on the command line is one of what there is."""

from __future__ import annotations

from collections.abc import Sequence

from pipelined.config.tree import WORKER_TYPES
from pipelined.errors import UsageError

__all__ = ["known_type"]


def known_type(name: str, types: Sequence[str] = WORKER_TYPES) -> str:
    """``name``, one of these worker types; raises UsageError, which names them all."""
    if name not in types:
        raise UsageError(f"there is no worker type {name!r}; there are {', '.join(types)}")
    return name
