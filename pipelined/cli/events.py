"""``pipelinectl events``: what the supervisor did, and why; also of a daemon that is dead."""

from __future__ import annotations

import functools
import json
import pwd
import time
from collections.abc import Iterator
from typing import Any

import click

from pipelined.cli import options
from pipelined.cli.completion import worker_types
from pipelined.cli.known import known_type
from pipelined.cli.settings import Settings
from pipelined.config import Config
from pipelined.errors import UnavailableError
from pipelined.supervisor.events import read
from pipelined.supervisor.protocol import ask

__all__ = ["events"]

_POLL_S = 0.25


@click.command()
@click.argument("worker_type", metavar="[TYPE]", required=False, shell_complete=worker_types)
@options.since
@options.lines
@options.follow
@options.as_json_lines
@click.pass_obj
def events(
    settings: Settings,
    worker_type: str | None,
    lines: int | None,
    since: float | None,
    follow: bool,
    as_json: bool,
) -> None:
    """Show what the supervisor did and why: starts, deaths, back-off, commands, reloads, signals.

    With TYPE: what concerns these workers. It is read from `events.jsonl` in the state folder, which
    outlives the daemon, and from the daemon itself, where one answers. Times are UTC.

    Exit code 0, also where there is nothing to show and after Ctrl-C with --follow; 69 where neither can be
    read.

    \b
    Example:
      pipelinectl events download --since 2h
      pipelinectl events --follow
    """  # noqa: D301 - click takes the character \\b for a paragraph to keep
    if worker_type is not None:
        known_type(worker_type)
    config = settings.whereabouts()
    shown = [told for told in _known(config) if _concerns(told, worker_type)]
    last = shown[-1]["number"] if shown else 0
    if since is not None:
        shown = [told for told in shown if told["number"] >= since * 1e6]
    count = options.amount(lines, since)
    with options.ended_by_ctrl_c(follows=follow):
        for told in shown if count is None else shown[max(0, len(shown) - count) :]:
            _show(told, as_json)
        while follow:
            time.sleep(_POLL_S)
            for told in _newer(config, last):
                last = told["number"]
                if _concerns(told, worker_type):
                    _show(told, as_json)


def _known(config: Config) -> list[dict[str, Any]]:
    """All that can be found: the file has more of it, the daemon the newest also on a full disk."""
    found: dict[int, dict[str, Any]] = {}
    try:
        found = {told["number"]: told for told in read(config.state_dir)}
        unread = None
    except UnavailableError as error:
        unread = error
    try:
        found |= {told["number"]: told for told in _asked(config, 0)}
    except UnavailableError as error:
        if unread is not None or not found:
            raise
        click.echo(f"{error}; this is what the state folder has", err=True)
    else:
        if unread is not None:
            click.echo(f"only the latest: {unread}", err=True)
    return [found[number] for number in sorted(found)]


def _newer(config: Config, number: int) -> list[dict[str, Any]]:
    """Those after ``number``, of the daemon or of the one before it."""
    try:
        return _asked(config, number)
    except UnavailableError:
        return [told for told in read(config.state_dir) if told["number"] > number]


def _asked(config: Config, number: int) -> list[dict[str, Any]]:
    reply = ask(config.runtime_dir, {"cmd": "events", "number": number})
    if not reply.get("ok"):
        raise UnavailableError(
            f"the daemon does not tell its events: {reply.get('error', 'no reason given')}"
        )
    told: list[dict[str, Any]] = reply["events"]
    return told


def _concerns(told: dict[str, Any], worker_type: str | None) -> bool:
    return worker_type is None or told.get("worker", "").partition("/")[0] == worker_type


def _show(told: dict[str, Any], as_json: bool) -> None:
    if "uid" in told:
        told = told | {"user": _user(told["uid"])}
    click.echo(json.dumps(told, ensure_ascii=False) if as_json else _line(told))


def _line(told: dict[str, Any]) -> str:
    facts = ", ".join(_facts(told))
    said = [" ".join(str(told.get("why", "")).split()), f"({facts})" if facts else ""]
    cells = [told["time"], f"{told['event']:<15}", f"{told.get('worker', '-'):<20}", *filter(None, said)]
    return "  ".join(cells).rstrip()


def _facts(told: dict[str, Any]) -> Iterator[str]:
    if "user" in told:
        yield f"by {told['user'] or 'uid ' + str(told['uid'])}"
    if told["event"] == "ready":
        yield f"after {told.get('seconds', 0):g} s"
    if told["event"] == "back-off":
        yield f"next try in {told.get('seconds', 0):g} s"
    if told["event"] == "started" and told.get("restarts"):
        yield f"restart {told['restarts']}"
    if "pid" in told:
        yield f"pid {told['pid']}"


@functools.cache
def _user(uid: int) -> str:
    """Its name, here where nobody waits for it; "" where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""
