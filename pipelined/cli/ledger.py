"""``pipelinectl ledger``: does what came out balance what went in?"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click

from pipelined.cli.durations import duration
from pipelined.cli.settings import Settings
from pipelined.errors import ExitCode, UsageError

__all__ = ["ledger", "write_json"]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
@click.option(
    "--wait",
    type=duration,
    default="0",
    metavar="TIME",
    help="Let the pipeline come to rest first, at most so long, such as 30s or 5m.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the JSON object to this file, whatever is printed.",
)
@click.option(
    "--without-sources",
    is_flag=True,
    help="Do not ask the Eventhouse and the Event Hub: what is on events.raw counts as all there was.",
)
@click.pass_obj
def ledger(settings: Settings, as_json: bool, wait: float, output: Path | None, without_sources: bool) -> int:
    """Balance the source events against the tables, the files and the dead letters.

    Reads every row and message of the sources that are configured, every topic from its first record, every
    row of the tables and every file. Exit code 0: all is there, once; 1: something differs, the first
    differing ids are told; 69: something cannot be read.

    \b
    Example:
      pipelinectl ledger --wait 5m
      pipelinectl ledger --json --output ledger.json
    """  # noqa: D301 - click takes the character \\b for a paragraph to keep
    from pipelined.ledger import judge
    from pipelined.ledger.report import render

    balance = judge(settings(), wait, sources=not without_sources)
    text = json.dumps(balance.as_json(), indent=2)
    if output is not None:
        write_json(output, text)
    click.echo(text if as_json else render(balance, unicode=_speaks_unicode()))
    return int(ExitCode.OK if balance.balanced else ExitCode.FAILED)


def write_json(file: Path, text: str) -> None:
    """Put the text into the file, whole or not at all. Raises UsageError when it cannot be written."""
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        partial.write_text(text + "\n", encoding="utf-8")
        partial.replace(file)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UsageError(f"{file} cannot be written: {error.strerror}; name another --output") from error


def _speaks_unicode() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf8")
