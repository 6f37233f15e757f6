"""``pipelinectl status``: the daemon and its workers, once, again and again, or until they are as wanted."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import click

from pipelined.cli import watch
from pipelined.cli.completion import worker_types
from pipelined.cli.durations import duration
from pipelined.cli.headline import headline, name
from pipelined.cli.known import known_type
from pipelined.cli.reach import request
from pipelined.cli.settings import Settings
from pipelined.cli.table import WIDE, lines
from pipelined.config import Config
from pipelined.errors import ExitCode, UnavailableError, UsageError
from pipelined.stats.slots import WorkerState
from pipelined.supervisor.pidfile import holder

__all__ = ["coloured", "look", "status"]

_POLL_S = 0.1
_DAEMON_STATES = ("RUNNING", "STARTING", "DEGRADED", "STOPPING", "STOPPED")
_WORKER_STATES = tuple(WorkerState.__members__)


@click.command()
@click.argument("worker_type", metavar="[TYPE]", required=False, shell_complete=worker_types)
@click.option("--json", "as_json", is_flag=True, help="As one JSON object; with --watch one a line.")
@click.option(
    "--watch",
    "every",
    type=duration,
    is_flag=False,
    flag_value="2s",
    metavar="[SECONDS]",
    help="Show it again and again, every 2 seconds or as said, until Ctrl-C.",
)
@click.option("--wait-for", "wanted", metavar="STATE", help="Wait until the daemon, or TYPE, is in STATE.")
@click.option(
    "--timeout", type=duration, metavar="TIME", help="How long to --wait-for it, such as 30s or 2m."
)
@click.pass_obj
def status(
    settings: Settings,
    worker_type: str | None,
    as_json: bool,
    every: float | None,
    wanted: str | None,
    timeout: float | None,
) -> int:
    """Show the daemon and each of its workers, or those of TYPE alone.

    The first line has the whole in a sentence, and what to do next. A narrow terminal gets fewer columns; a
    file or a pipe gets all of them. Works also while the configuration file is broken.

    --wait-for takes RUNNING, STARTING, DEGRADED, STOPPING, or STOPPED where none is to be there any more;
    with TYPE a state of its workers: RUNNING, STOPPED, STARTING, STOPPING, BACKOFF, EXITED, FATAL.

    Exit code 0 while it is running or starting, 1 while it is degraded or stopping, or while a worker of TYPE
    is neither RUNNING nor STARTING; 69 where none answers. With --wait-for 0 once it is so, 124 where it
    takes longer than the timeout. With --watch 0 after Ctrl-C.

    \b
    Example:
      pipelinectl status --watch
      pipelinectl status --wait-for RUNNING --timeout 30s
    """  # noqa: D301 - click takes the character \\b for a paragraph to keep
    if worker_type is not None:
        known_type(worker_type)
    if wanted is None and timeout is not None:
        raise UsageError("--timeout is for --wait-for; without it, nothing is waited for")
    if wanted is not None and (as_json or every is not None):
        raise UsageError("--wait-for shows nothing while it waits: leave --json and --watch away")
    config = settings.whereabouts()
    if wanted is not None:
        return _wait_for(config, wanted.upper(), worker_type, timeout)
    if every is not None:
        show = watch.as_json if as_json else watch.as_text
        return show(lambda: look(config, worker_type), every, colour=coloured())
    document = look(config, worker_type)
    if as_json:
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDE
        click.echo("\n".join(lines(document, width, colour=coloured())), color=coloured())
    return int(_exit_code(document, worker_type))


def coloured() -> bool:
    """Whether the standard output takes colours: a terminal that can, and nobody who wants none."""
    wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return wanted and sys.stdout.isatty()


def look(config: Config, worker_type: str | None = None) -> dict[str, Any]:
    """The status document, of all workers or of one type, with the memory of those that we may look at."""
    document: dict[str, Any] = request(config, {"cmd": "status"})["status"]
    if worker_type is not None:
        document["workers"] = [each for each in document["workers"] if each["type"] == worker_type]
        if not document["workers"]:
            raise UsageError(f"this daemon runs no {worker_type}")
    for worker in document["workers"]:
        worker["pss_bytes"] = _pss(worker["pid"], document["pid"]) if worker["pid"] else None
    return document


def _pss(pid: int, parent: int) -> int | None:
    """Its share of the memory; None where it is gone, not ours to see, or a stranger by that number."""
    process = Path(f"/proc/{pid}")
    try:
        if int((process / "stat").read_bytes().rpartition(b")")[2].split()[1]) != parent:
            return None
        for line in (process / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def _exit_code(document: dict[str, Any], worker_type: str | None) -> ExitCode:
    if worker_type is None:
        well = document["state"] in {"running", "starting"}
    else:
        well = all(worker["state"] in {"RUNNING", "STARTING"} for worker in document["workers"])
    return ExitCode.OK if well else ExitCode.FAILED


def _wait_for(config: Config, wanted: str, worker_type: str | None, timeout: float | None) -> int:
    known = _DAEMON_STATES if worker_type is None else _WORKER_STATES
    if wanted not in known:
        raise UsageError(f"there is no state {wanted!r} to wait for; there are {', '.join(known)}")
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        reached, told = _now(config, wanted, worker_type)
        if reached:
            click.echo(told)
            return int(ExitCode.OK)
        if deadline is not None and time.monotonic() >= deadline:
            click.echo(f"not {wanted} within {timeout:g} s: {told}", err=True)
            return int(ExitCode.DRAIN_TIMEOUT)
        time.sleep(_POLL_S)


def _now(config: Config, wanted: str, worker_type: str | None) -> tuple[bool, str]:
    """Whether it is as wanted, and how it is in words."""
    if wanted == "STOPPED" and worker_type is None and holder(config.state_dir) is None:
        return True, "it is not running"
    try:
        document = look(config, worker_type)
    except UnavailableError as error:
        return False, str(error)
    if worker_type is None:
        return document["state"].upper() == wanted, headline(document, time.time())
    states = [f"{name(worker)} is {worker['state']}" for worker in document["workers"]]
    return all(worker["state"] == wanted for worker in document["workers"]), ", ".join(states)
