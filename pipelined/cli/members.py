"""``pipelinectl members``: which hosts share the work, and taking out one that is gone for good."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator, Sequence

import click

from pipelined.cli.settings import Settings
from pipelined.config import Config
from pipelined.errors import ExitCode, UsageError
from pipelined.kafka.groups import GroupMember
from pipelined.kafka.groups import members as members_of
from pipelined.kafka.leaving import leave
from pipelined.kafka.settings import host_name
from pipelined.supervisor.pidfile import holder

__all__ = ["members"]

_COLUMNS = ("worker", "host", "address", "partitions", "lag")
_TURNS = {None: "", True: "it is its turn", False: "stands by"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="As one JSON list.")
@click.option(
    "--remove", "host", metavar="HOST", help="Take all members of this host out of their groups, now."
)
@click.option("--yes", is_flag=True, help="With --remove: do not ask.")
@click.pass_obj
def members(settings: Settings, as_json: bool, host: str | None, yes: bool) -> int:
    """Show the members of every group: worker, host, partitions, lag. A host is its kafka.host.

    Work that one host does at a time (polling a source, committing to a table) has a second line for each
    host: whether it is its turn.

    A host that died keeps its partitions until kafka.session_timeout_s has passed, in case that it comes
    back; `--remove HOST` gives them to the others at once. A host that is still running takes no harm: its
    work in hand is refused and done again, and it joins anew. To take a running one out of service use
    `pipelinectl stop --leave` there.

    \b
    Example:
      pipelinectl members
      pipelinectl members --remove host7
    """  # noqa: D301 - click takes the character \\b for a paragraph to keep
    config = settings()
    if host is not None:
        return _remove(config, host, yes)
    found = members_of(config, lags=True)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(member) for member in found], indent=2))
    else:
        click.echo("\n".join(_lines(found)) if found else "no group has a member")
    return int(ExitCode.OK)


def _remove(config: Config, host: str, yes: bool) -> int:
    if host == host_name(config) and holder(config.state_dir) is not None:
        raise UsageError(
            f"{host} is this host, and its daemon runs; `pipelinectl stop --leave` takes it out of service"
        )
    found = members_of(config, lags=True)
    gone = [member for member in found if member.host == host]
    if not gone:
        hosts = ", ".join(sorted({member.host for member in found if member.host})) or "none"
        raise UsageError(f"no group has a member of host {host!r}; hosts with members: {hosts}")
    click.echo("\n".join(_lines(gone)))
    if not yes:
        click.confirm(f"Give the partitions of {host} to other hosts now?", abort=True)
    for group, of_group in itertools.groupby(gone, key=lambda member: member.group):
        removed = leave(config, group, [member.instance for member in of_group], timeout=10.0)
        click.echo(f"{group}: {len(removed)} removed")
    return int(ExitCode.OK)


def _lines(found: Sequence[GroupMember]) -> Iterator[str]:
    rows = [_COLUMNS, *map(_row, found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _row(member: GroupMember) -> tuple[str, ...]:
    by_topic = itertools.groupby(member.partitions, key=lambda partition: partition[0])
    partitions = " ".join(
        f"{topic}/{','.join(str(number) for _, number in numbers)}" for topic, numbers in by_topic
    )
    worker = f"{member.worker_type}/{member.index}" if member.host else f"{member.worker_type}: not ours"
    return (
        worker,
        member.host or "-",
        member.address,
        _TURNS[member.turn] or partitions or "-",
        "-" if member.lag is None else str(member.lag),
    )
