"""Pieces of Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["code", "first_sentences", "page", "table"]


def page(title: str, source: str, *parts: str) -> str:
    """A page of the reference; ``source`` says what it is generated from."""
    head = f"# {title}\n\nGenerated from {source} by `make docs`; do not edit."
    return "\n\n".join([head, *parts]) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; whatever its cells hold stays in them."""
    lines = [_row(head), "|" + "---|" * len(head)]
    return "\n".join([*lines, *map(_row, rows)])


def _row(cells: Sequence[object]) -> str:
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _cell(cell: object) -> str:
    return " ".join(str(cell).split()).replace("|", "\\|")


def code(text: object) -> str:
    """The text as code, empty where there is none."""
    return f"`{text}`" if text != "" else ""


def first_sentences(documented: object) -> str:
    """The first paragraph of a docstring, on one line."""
    text = (documented.__doc__ or "").strip().partition("\n\n")[0]
    return " ".join(text.replace("``", "`").split())
