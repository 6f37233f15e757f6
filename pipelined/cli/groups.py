"""A command that has commands: its help shows what each of them is for, in a whole sentence."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

__all__ = ["Commands"]


class Commands(click.Group):
    """A group of commands. ``sections`` are headings, each with the commands that stand below it in the help;
    without any, the commands that are added stand below "Commands".
    """

    def __init__(
        self, *arguments: Any, sections: Mapping[str, Sequence[click.Command]] | None = None, **more: Any
    ) -> None:
        super().__init__(*arguments, **more)
        self._sections = {head: list(below) for head, below in (sections or {}).items()}
        for below in self._sections.values():
            for command in below:
                self.add_command(command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each command with the first sentence of its help, which click would cut off at the margin."""
        del ctx
        everything = [each for _, each in sorted(self.commands.items())]
        sections = self._sections or {"Commands": everything}
        widest = max((len(each.name or "") for each in everything), default=0)
        for head, below in sections.items():
            with formatter.section(head):
                formatter.write_dl(
                    [
                        ((each.name or "").ljust(widest), each.get_short_help_str(sys.maxsize))
                        for each in below
                    ]
                )
