"""``pipelinectl sources``: where each source is, and setting it elsewhere."""

from __future__ import annotations

import datetime as dt
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from pipelined.cli.groups import Commands
from pipelined.config import Config
from pipelined.config.tree import SOURCE_TYPES
from pipelined.errors import (
    AuthError,
    ConfigError,
    DependencyError,
    ExitCode,
    FencedError,
    TransientError,
    UnavailableError,
    UsageError,
)
from pipelined.messages.codec import iso_ms

if TYPE_CHECKING:
    from pipelined.kafka.checkpoints import Checkpoint

__all__ = ["sources"]

_BY_NAME = {worker_type.partition("-")[0]: worker_type for worker_type in SOURCE_TYPES}
_PATIENCE_S = 30.0
_TRIES = 5


class _State(NamedTuple):
    """A source as it is shown. Times are epoch seconds; what is not known is None."""

    source: str
    enabled: bool
    key: str | None
    words: str
    newest: float | None
    written: float | None


@click.group(cls=Commands)
def sources() -> None:
    """See where each source is, and set it elsewhere."""


@sources.command()
@click.option("--json", "as_json", is_flag=True, help="As one JSON list.")
@click.pass_obj
def show(obj: Callable[[], Config], as_json: bool) -> None:
    """Show each source: whether it is enabled, its position, and when that was written.

    The position is read from the checkpoints topic: the daemon need not run. A worker that reads, on whatever
    host, writes it with each page, and every half a minute where nothing comes.

    \b
    Example:
      pipelinectl sources show
    """  # noqa: D301 - click takes the character \\b for a paragraph to keep
    config = obj()
    found = [_state(config, name) for name in _BY_NAME]
    if as_json:
        click.echo(json.dumps([_as_json(state) for state in found], indent=2))
        return
    for state in found:
        click.echo("\n".join(_lines(state)))


@sources.command()
@click.argument("source", type=click.Choice([*_BY_NAME]))
@click.option("--to", required=True, metavar="now|beginning|TIME", help="Where reading goes on.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def reset(obj: Callable[[], Config], source: str, to: str, yes: bool) -> int:
    """Set a source to another position: the decision that it asks for when its own has lost its meaning.

    A worker that reads, on whatever host, goes on from the new position within half a minute; none need run.
    What lies between the old and the new position is read again, or skipped:

    \b
    - read again: the event-ingester recognises what it took within the last hours
      (ingest.dedup_horizon_hours); what is older becomes a second row
    - skipped: `pipelinectl backfill` fetches a range of the Eventhouse later, and knows what is in the table

    \b
    Example:
      pipelinectl sources reset eventhouse --to now
      pipelinectl sources reset eventhouse --to 2026-01-05T14:00:00Z --yes
    """  # noqa: D301 - click takes the character \\b for a paragraph to keep
    from pipelined.sources.positions import missing

    config = obj()
    if wanted := missing(config, _BY_NAME[source]):
        raise ConfigError([f"{name} is needed: it says what is read" for name in wanted])
    if to not in {"now", "beginning"}:
        from pipelined.sources.eventhouse.range import tick

        to = tick(to)
    state = _state(config, source)
    click.echo("\n".join(_lines(state)), err=True)
    click.echo(_means(config, state, to), err=True)
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("nothing was changed: there is no terminal to ask on; add --yes")
        click.confirm(f"Set {source} to {to}?", abort=True)
    try:
        words = _set(config, source, to)
    except (AuthError, DependencyError, TransientError) as error:
        raise UnavailableError(f"nothing was changed: {error}") from error
    click.echo(f"{source} is set: {words}")
    return int(ExitCode.OK)


def _state(config: Config, source: str) -> _State:
    from pipelined.kafka.checkpoints import find_checkpoint
    from pipelined.sources.positions import key_of, missing

    worker_type = _BY_NAME[source]
    enabled = config.worker(worker_type).processes > 0
    if wanted := missing(config, worker_type):
        return _State(source, enabled, None, f"not configured: {', '.join(wanted)}", None, None)
    key = key_of(config, worker_type)
    found = find_checkpoint(config, key)
    if found is None or found.value is None:
        return _State(source, enabled, key, "none yet: it begins where its section's start says", None, None)
    words, newest = _reached(worker_type, found)
    return _State(source, enabled, key, words, newest, found.timestamp / 1000)


def _reached(worker_type: str, found: Checkpoint) -> tuple[str, float | None]:
    from pipelined.sources.positions import reached

    try:
        return reached(worker_type, found.value or b"")
    except ConfigError as error:
        return str(error), None


def _set(config: Config, source: str, to: str) -> str:
    """Write the position under the source's own transactional id; what it is then, in words."""
    from pipelined.kafka.settings import Names
    from pipelined.kafka.transactions import Aborted, Transactor
    from pipelined.sources.positions import key_of, reached, start_position
    from pipelined.stages.contract import Output

    worker_type = _BY_NAME[source]
    value = start_position(config, worker_type, to)
    checkpoint = Output("checkpoints", key_of(config, worker_type).encode(), value, [])
    deadline = time.monotonic() + _PATIENCE_S
    for _ in range(_TRIES):
        transactor = Transactor(config, Names(config).group(worker_type), lambda: None)
        try:
            if not transactor.begin_session(lambda: time.monotonic() > deadline):
                break
            transactor.run([checkpoint])
        except (FencedError, Aborted):
            continue  # a worker that was just starting came between
        finally:
            transactor.close()
        return reached(worker_type, value).words
    raise UnavailableError(f"nothing was changed: Kafka did not take the position within {_PATIENCE_S:g} s")


def _means(config: Config, state: _State, to: str) -> str:
    """What a reset means for the rows between the two positions."""
    hours = config.ingest.dedup_horizon_hours
    again = (
        f"What was taken behind it before is read again: the event-ingester recognises what it took in the "
        f"last {hours:g} hours, and anything older becomes a second row in the events table."
    )
    skipped = "What came before it, and was not read, is skipped."
    if state.source == "eventhouse":
        skipped += " `pipelinectl backfill` fetches a range of it later."
    if state.written is None:
        return skipped if to != "beginning" else "Everything is read."
    if to == "beginning":
        return again
    if to == "now":
        return skipped
    return f"{again} {skipped}"


def _lines(state: _State) -> Iterator[str]:
    yield f"{state.source}: {'enabled' if state.enabled else 'not enabled'}"
    if state.key:
        yield f"  key       {state.key}"
    yield f"  position  {state.words}"
    if state.written is not None:
        ago = dt.timedelta(seconds=max(0, round(time.time() - state.written)))
        yield f"  written   {iso_ms(round(state.written * 1000))}, {ago} ago"


def _as_json(state: _State) -> dict[str, Any]:
    def moment(seconds: float | None) -> str | None:
        return None if seconds is None else iso_ms(round(seconds * 1000))

    return state._asdict() | {"newest": moment(state.newest), "written": moment(state.written)}
