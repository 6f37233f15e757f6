"""``pipelined demo``: the main job on the local stack, from events to the ledger. ``make run`` calls it."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["demo"]


@click.command()
@click.option("--events", type=click.IntRange(min=1), default=10_000, show_default=True, help="How many.")
@click.option("--seed", type=int, default=1, show_default=True, help="Another seed, another day of events.")
@click.option(
    "--file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Take the events of this JSONL file instead of generated ones.",
)
@click.option(
    "--source",
    type=click.Choice(["file", "eventhouse", "eventhub", "both"]),
    default="file",
    show_default=True,
    help="Where the events come from: loaded from the file, polled from a local Eventhouse, read from a "
    "second Kafka that presents itself as an Event Hub, or both of these at once.",
)
@click.option("--keep", is_flag=True, help="Keep everything up at the end, until Ctrl-C.")
@click.option(
    "--ledger",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the ledger to this file, as JSON.",
)
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    default="run",
    show_default=True,
    help="The folder for everything that it makes; replaced by the next run.",
)
def demo(
    events: int, seed: int, file: Path | None, source: str, keep: bool, ledger: Path | None, directory: Path
) -> int:
    """Take a generated day of claim events through everything, and balance the books.

    Starts a real Kafka, a file server with faults and the daemon, feeds the events into their source while
    the daemon takes them out, shows how far it is, and ends with the ledger, which looks into the source
    itself. Exit code 0: it balances; 1: it does not.

    \b
    Example:
      pipelined demo --events 1000
      pipelined demo --source eventhouse
      pipelined demo --file my.jsonl --keep
    """  # noqa: D301 - click takes the character \\b for a paragraph to keep
    from pipelined.local.demo import run_demo

    return run_demo(
        directory=directory, events=events, seed=seed, file=file, keep=keep, ledger=ledger, source=source
    )
