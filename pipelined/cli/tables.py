"""``pipelinectl tables``: look after the Delta tables, and look into them."""

from __future__ import annotations

import datetime as dt
import functools
import json
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from pipelined.cli.groups import Commands
from pipelined.config import Config
from pipelined.errors import AuthError, DependencyError, ExitCode, UnavailableError, UsageError

if TYPE_CHECKING:
    from pipelined.lake.check import Checked
    from pipelined.lake.inspection import Inspection
    from pipelined.lake.log import Version
    from pipelined.lake.maintenance import Maintenance

__all__ = ["tables"]

_MOST = 20  # shown of a kind, unless as JSON

_json = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object for each table, a line each."
)
_apply = click.option("--apply", is_flag=True, help="Do it. Without this only what would be done is shown.")
_names = click.argument("names", metavar="[TABLE ...]", nargs=-1)


def _reading(command: Callable[..., Any]) -> Callable[..., Any]:
    """What the pipeline would wait for ends a command, with the code for it."""

    @functools.wraps(command)
    def with_code(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except (AuthError, DependencyError) as error:
            raise UnavailableError(str(error)) from error

    return with_code


@click.group(cls=Commands)
def tables() -> None:
    """Compact, vacuum, checkpoint and check the Delta tables; see what their versions were.

    Safe while the daemon runs, which does the first three itself (worker table-maintenance, keys
    tables.maintenance_hours and tables.tend_seconds). Without TABLE: all of them. What changes a table
    only shows what it would do, unless you add --apply.
    """


@tables.command()
@_names
@click.option("--open-days", is_flag=True, help="Also today's files, which are still being added to.")
@_apply
@_json
@click.pass_obj
@_reading
def compact(
    obj: Callable[[], Config], names: tuple[str, ...], open_days: bool, apply: bool, as_json: bool
) -> None:
    """Join the small files of each day into large ones.

    Every commit adds a file; thousands of them make the table slow to read and to write. No row changes,
    readers and the daemon go on. The old files stay until `tables vacuum`.

    \b
    Example:
      pipelinectl tables compact
      pipelinectl tables compact xact_events --apply
    """  # noqa: D301 - click takes the character \\b for a paragraph to keep
    for name, table in _maintained(obj(), names):
        small = table.small_files(open_days=open_days)
        done = table.compact([day.day for day in small]) if apply else None
        lines = [f"{day.day}: {day.files} files, {_size(day.bytes)}" for day in small]
        end = (
            _summary(f"{sum(day.files for day in small)} files", "joined", apply)
            if small
            else "nothing to join"
        )
        _tell(
            name,
            [*lines, end],
            {
                "applied": apply,
                "days": [day._asdict() for day in small],
                "compacted": done and done.compacted,
            },
            as_json,
        )


@tables.command()
@_names
@click.option(
    "--older-than",
    "hours",
    type=click.FloatRange(min=0),
    metavar="HOURS",
    help="Remove what has been unneeded for so long. Without it: tables.vacuum_hours.",
)
@click.option(
    "--no-writer-is-running",
    is_flag=True,
    help="Confirm that nobody writes to the tables: needed for less than 24 hours.",
)
@_apply
@_json
@click.pass_obj
@_reading
def vacuum(
    obj: Callable[[], Config],
    names: tuple[str, ...],
    hours: float | None,
    no_writer_is_running: bool,
    apply: bool,
    as_json: bool,
) -> None:
    """Remove files that no version of the table needs any more, and what killed writers left behind.

    These are files that were compacted away, files whose commit never came about, and on a local disk
    half-written ones (NAME.parquet#1). A reader of an older version, and a RESTORE to it, need the
    files of then: they are safe for as long as --older-than says. The files of a commit under way are young,
    therefore less than 24 hours must be confirmed.

    \b
    Example:
      pipelinectl tables vacuum
      pipelinectl tables vacuum --older-than 24 --apply
    """  # noqa: D301 - click takes the character \\b for a paragraph to keep
    from pipelined.lake.maintenance import LEAST_VACUUM_HOURS

    config = obj()
    hours = config.tables.vacuum_hours if hours is None else hours
    if hours < LEAST_VACUUM_HOURS and not no_writer_is_running:
        raise UsageError(
            f"--older-than {hours:g}: files younger than {LEAST_VACUUM_HOURS} hours may belong to a commit "
            "under way; stop every daemon that writes to the tables, and add --no-writer-is-running"
        )
    for name, table in _maintained(config, names):
        files = table.removable(hours)
        size = sum(file.size for file in files)
        if apply:
            _, count, size = table.vacuum(hours)
        else:
            count = len(files)
        lines = [f"{file.path}: {_size(file.size)}" for file in files[:_MOST]]
        if len(files) > _MOST:
            lines.append(f"and {len(files) - _MOST} more")
        end = _summary(f"{count} files, {_size(size)}", "removed", apply) if count else "nothing to remove"
        value = {"applied": apply, "files": [file.path for file in files], "removed": count, "bytes": size}
        _tell(name, [*lines, end], value, as_json)


@tables.command()
@_names
@_apply
@_json
@click.pass_obj
@_reading
def checkpoint(obj: Callable[[], Config], names: tuple[str, ...], apply: bool, as_json: bool) -> None:
    """Write a checkpoint and remove the part of the log that is too old.

    Opening a table reads its last checkpoint and every commit since. The daemon writes one every
    tables.checkpoint_commits commits; this one is for a table that is slow to open.

    \b
    Example:
      pipelinectl tables checkpoint --apply
    """  # noqa: D301 - click takes the character \\b for a paragraph to keep
    for name, table in _maintained(obj(), names):
        version = table.version()
        if apply:
            done = table.checkpoint()
            text = f"checkpoint of version {version} written, {done.removed} files of the log removed"
        else:
            text = _summary(f"a checkpoint of version {version}", "written", apply)
        _tell(name, [text], {"applied": apply, "version": version}, as_json)


@tables.command()
@_names
@click.option(
    "--since",
    type=click.DateTime(["%Y-%m-%d"]),
    help="Compare only the rows of this day and later ones. Without it: all of them.",
)
@_json
@click.pass_obj
@_reading
def check(obj: Callable[[], Config], names: tuple[str, ...], since: dt.datetime | None, as_json: bool) -> int:
    """Check that the tables are whole. Exit code 0: they are; 1: something is wrong, and is told.

    The columns fit; every file that the log names is there with its size; no trace id in the events table,
    and no attachment in the attachments table, has two rows. An event that arrived again after
    ingest.dedup_horizon_hours is found here. Shows also how far each partition is stored, and how much of the
    folder no version needs.

    \b
    Example:
      pipelinectl tables check
      pipelinectl tables check xact_events --since 2026-01-01 --json
    """  # noqa: D301 - click takes the character \\b for a paragraph to keep
    bad = False
    for name, inspection in _inspected(obj(), names):
        found = inspection.check(since.date() if since else None)
        bad = bad or bool(found.problems or found.doubled)
        _tell(name, [*_checked(found)], found._asdict(), as_json)
    return int(ExitCode.FAILED if bad else ExitCode.OK)


@tables.command()
@_names
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Versions shown.")
@_json
@click.pass_obj
@_reading
def history(obj: Callable[[], Config], names: tuple[str, ...], limit: int, as_json: bool) -> None:
    """Show the last versions: when, which operation, rows added, files, and the offsets stored with them.

    The offset of TOPIC/PARTITION is the next one to consume: all before it are in the table since then.

    \b
    Example:
      pipelinectl tables history xact_events --limit 5
    """  # noqa: D301 - click takes the character \\b for a paragraph to keep
    for name, inspection in _inspected(obj(), names):
        versions = inspection.history(limit)
        value = {"versions": [version._asdict() for version in versions]}
        _tell(name, [_line(version) for version in versions], value, as_json)


def _selected(config: Config, names: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """The tables named, or all; a UsageError for a name that is none of them."""
    from pipelined.lake.schemas import TABLES

    specs = {spec.name(config.domain): spec for spec in TABLES}
    for name in names:
        if name not in specs:
            raise UsageError(f"there is no table {name}; there are {', '.join(specs)}")
    yield from ((name, spec) for name, spec in specs.items() if not names or name in names)


def _maintained(config: Config, names: Sequence[str]) -> Iterator[tuple[str, Maintenance]]:
    from pipelined.lake.maintenance import Maintenance
    from pipelined.lake.tables import source

    for name, spec in _selected(config, names):
        table = Maintenance(source(config, spec), config.tables)
        if not table.exists():
            raise UnavailableError(f"there is no table at {table.url}; its worker makes it when it starts")
        yield name, table


def _inspected(config: Config, names: Sequence[str]) -> Iterator[tuple[str, Inspection]]:
    from pipelined.kafka.settings import Names
    from pipelined.lake.inspection import Inspection
    from pipelined.lake.schemas import EVENTS
    from pipelined.lake.tables import source

    known = Names(config)
    for name, spec in _selected(config, names):
        worker, stream = (
            ("event-writer", "events_ingested")
            if spec is EVENTS
            else ("result-processor", "downloads_results")
        )
        partitions = [(known.topic(stream), number) for number in range(known.section(stream).partitions)]
        inspection = Inspection(source(config, spec), spec.identity, known.group(worker), partitions)
        if not inspection.exists():
            raise UnavailableError(
                f"there is no table at {inspection.url}; its worker makes it when it starts"
            )
        yield name, inspection


def _tell(name: str, lines: Sequence[str], value: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"table": name} | value))
        return
    click.echo(name)
    for line in lines:
        click.echo(f"  {line}")


def _summary(what: str, verb: str, apply: bool) -> str:
    return f"{what} {verb}" if apply else f"{what} would be {verb}; add --apply"


def _checked(found: Checked) -> Iterator[str]:
    yield f"version {found.version}, {found.rows} rows in {found.files} files"
    yield from found.problems
    for one in found.doubled[:_MOST]:
        yield f"{' '.join(one.key)} has {one.rows} rows, of {' and '.join(one.days)}"
    for day, count in found.doubled_by_day.items():
        yield f"{day}: {count} with several rows"
    for partition, position in found.positions.items():
        yield f"{partition} stored up to offset {position}"
    for (count, size), what in ((found.unneeded, "no longer needed"), (found.staging, "left half-written")):
        if count:
            yield f"{count} files {what}, {_size(size)}; `pipelinectl tables vacuum` removes them in time"
    yield "something is wrong, see above" if found.problems or found.doubled else "ok"


def _line(version: Version) -> str:
    files = f"{version.added} added, {version.removed} removed"
    positions = " ".join(f"{name}={offset}" for name, offset in sorted(version.positions.items()))
    what = f"{version.version} {version.time} {version.operation}: {version.rows} rows; files {files}"
    return f"{what}; {positions}" if positions else what


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count} B"
