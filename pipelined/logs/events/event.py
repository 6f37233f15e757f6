"""One kind of log record: its code, its sentence, what it means, and what is to be done."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Event"]


@dataclass(frozen=True, slots=True)
class Event:
    """``code`` stays as it is for good; ``sentence`` is the template that is logged, and may change with it.

    A record whose template says too little by itself ("%s") names its code: ``extra={"event": code}``; then
    the sentence here is for people. ``do`` is "" where nothing is to be done.
    """

    code: str
    sentence: str
    means: str
    do: str = ""
