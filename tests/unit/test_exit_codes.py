"""Exit codes and the status document: what is written about them agrees with what is."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from docs import commands, status
from pipelined import errors
from pipelined.cli.pipelinectl import pipelinectl
from pipelined.cli.pipelined import pipelined
from pipelined.errors import ExitCode, PipelinedError

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "failures.md"
COMMANDS = [
    context.command
    for name, group in (("pipelined", pipelined), ("pipelinectl", pipelinectl))
    for context in commands.commands(group, click.Context(group, info_name=name))
]
#: From "Exit code" to the end of its paragraph.
TOLD = re.compile(r"Exit codes?\b.*?(?=\n\s*\n|\Z)", re.DOTALL)


def test_every_exit_code_has_its_row_with_what_it_means() -> None:
    section = REFERENCE.read_text().partition("## Exit codes")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines()]
    told = {int(row[0]): row[1] for row in rows if row and row[0].isdigit()}
    assert told.keys() == {int(code) for code in ExitCode}
    assert all(told.values())


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: str(command.name))
def test_a_command_names_no_exit_code_that_there_is_not(command: click.Command) -> None:
    for paragraph in TOLD.findall(command.help or ""):
        numbers = {int(number) for number in re.findall(r"(?<![\w.-])\d+(?=[\s:;,.])", paragraph)}
        assert numbers <= {int(code) for code in ExitCode}, paragraph


def test_the_drawing_of_the_errors_has_their_exit_codes() -> None:
    drawn = dict(re.findall(r"[├└]── (\w+) +(\d+) ", errors.__doc__ or ""))
    assert drawn == {
        error.__name__: str(int(error.exit_code))
        for error in PipelinedError.__subclasses__()
        if error.__module__ == errors.__name__ and error.__name__ in drawn
    }
    assert len(drawn) >= 6


def test_every_field_of_the_status_has_its_meaning() -> None:
    told = status.sample()
    worker = told["workers"][0]
    for fields, meanings in (
        (told, status.WHOLE),
        (worker, status.WORKER),
        (worker["source"], status.SOURCE),
        (told.get("loop", {}), status.LOOP),
    ):
        assert fields.keys() <= meanings.keys()
    assert worker.keys() == status.WORKER.keys()
