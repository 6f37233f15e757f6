"""``pipelinectl topics``: the topics as declared, against the topics as they are."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import click

from pipelined.cli.groups import Commands
from pipelined.config import Config
from pipelined.errors import ExitCode
from pipelined.kafka import topics as kafka_topics

__all__ = ["topics"]


@click.group(cls=Commands)
def topics() -> None:
    """Plan, apply and check the declared topics."""


@topics.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON list instead of lines.")
@click.pass_obj
def plan(obj: Callable[[], Config], as_json: bool) -> int:
    """Show what `topics apply` would do. Exit code 0: nothing; 1: something.

    \b
    Example:
      pipelinectl topics plan
    """  # noqa: D301 - click takes the character \\b for a paragraph to keep
    changes = kafka_topics.plan(obj())
    _show(changes, as_json)
    return int(ExitCode.FAILED if changes else ExitCode.OK)


@topics.command()
@click.pass_obj
def apply(obj: Callable[[], Config]) -> None:
    """Make the cluster's topics as they are declared, where that loses nothing.

    Topics are created, grown and set; never deleted, never shrunk. The two event topics grow only while no
    event-ingester runs on any host (`pipelinectl stop event-ingester`); everything else may go on.

    \b
    Example:
      pipelinectl topics plan
      pipelinectl topics apply
    """  # noqa: D301 - click takes the character \\b for a paragraph to keep
    config = obj()
    changes = kafka_topics.plan(config)
    _show([change for change in changes if not change.refused], False)
    kafka_topics.apply(config, changes)


@topics.command()
@click.pass_obj
def check(obj: Callable[[], Config]) -> None:
    """Check the topics as the daemon does at its start. Exit code 0: they fit; 78: they do not.

    \b
    Example:
      pipelinectl topics check && systemctl start pipelined
    """  # noqa: D301 - click takes the character \\b for a paragraph to keep
    kafka_topics.check(obj())
    click.echo("ok: the topics fit")


def _show(changes: Sequence[kafka_topics.Change], as_json: bool) -> None:
    if as_json:
        click.echo(
            json.dumps([{"topic": c.topic, "what": c.what, "refused": c.refused or None} for c in changes])
        )
        return
    for change in changes:
        click.echo(str(change))
    if not changes:
        click.echo("the topics are as declared")
