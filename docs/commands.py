"""The page of the reference about commands: what each is for, and its own help."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click

from docs.markdown import code, page, table
from pipelined.cli.pipelinectl import pipelinectl
from pipelined.cli.pipelined import pipelined

__all__ = ["cli", "commands", "purpose"]

_WIDTH = 96

_INTRO = """\
`pipelined` is the daemon, in the foreground; `pipelinectl` operates it. `--config` and `--set` stand before
the command's name: `pipelinectl --config FILE status`. Data goes to the standard output, prose and errors to
the standard error stream. In a shell: [completion](../how-to/install.md#completion-in-the-shell).

Every command ends with 0 where it did what it is for, 64 where it was called wrongly, 69 where something that
it needs does not answer, 78 where the configuration is wrong, 130 on Ctrl-C. What else it may end with stands
in its help; what each code means: [exit codes](failures.md#exit-codes)."""


def commands(command: click.Command, context: click.Context) -> Iterator[click.Context]:
    """The context of a command and of every command below it, in order."""
    yield context
    if isinstance(command, click.Group):
        for name, below in sorted(command.commands.items()):
            yield from commands(below, _context(below, name, context))


def _context(command: click.Command, name: str, parent: click.Context | None = None) -> click.Context:
    return click.Context(
        command, info_name=name, parent=parent, terminal_width=_WIDTH, max_content_width=_WIDTH
    )


def purpose(command: click.Command) -> str:
    """The first sentence of a command's help: what it is for."""
    first = " ".join((command.help or "").partition("\n\n")[0].split())
    return re.split(r"(?<=[.:;]) (?=[A-Z])", first)[0].rstrip(".")


def cli() -> str:
    """Every command with what it is for, and its own help."""
    found = [
        context
        for group in (pipelined, pipelinectl)
        for context in commands(group, _context(group, group.name or ""))
    ]
    rows = [
        [f"[{code(each.command_path)}](#{each.command_path.replace(' ', '-')})", purpose(each.command)]
        for each in found
        if not isinstance(each.command, click.Group)
    ]
    sections = (f"## {each.command_path}\n\n```text\n{each.get_help()}\n```" for each in found)
    return page(
        "Commands",
        "the commands' own `--help`",
        _INTRO,
        table(["command", "what it is for"], rows),
        *sections,
    )
