"""``make run``: the main job once, from generated or given events to a ledger that balances.

The daemon, the brokers and the file server are the real ones, in processes of their own; this module
feeds them, shows how far they are, and judges the end by the ledger.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from pipelined.config import Config, load
from pipelined.errors import ExitCode, PipelinedError, UnavailableError, UsageError
from pipelined.ledger.balance import Balance
from pipelined.ledger.follower import Follower, Progress
from pipelined.ledger.report import render
from pipelined.local.feeds import Feed, feeds_of
from pipelined.local.generator import Day
from pipelined.local.picture import Picture
from pipelined.local.stack import RETRY_DELAYS_S, Stack
from pipelined.local.upstream import BOTH, EVENTHOUSE, EVENTHUB, FILE
from pipelined.supervisor.protocol import ask

__all__ = ["run_demo"]

#: Marks a folder as ours, to be replaced by the next run.
_MARKER = ".made-by-make-run"
_START_S = 60.0
#: Nothing has changed for so long, and nothing waits for its time: the pipeline is stuck.
_QUIET_S = 30.0
_WAYS = {
    EVENTHOUSE: "from a local Eventhouse",
    EVENTHUB: "from a second Kafka that presents itself as an Event Hub",
    BOTH: "from a local Eventhouse and an Event Hub at once, most of them from both",
}


def run_demo(
    *,
    directory: Path,
    events: int,
    seed: int,
    file: Path | None,
    keep: bool,
    ledger: Path | None,
    source: str = FILE,
) -> int:
    """Run it and return the exit code: 0 when the ledger balances, 1 when it does not.

    ``source`` is one of ``upstream.SOURCES``.
    """
    began = time.monotonic()
    # Told to end, also where a shell had it ignore Ctrl-C: the daemon and the brokers end first.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    directory = _fresh(directory)
    what = f"the events of {file}" if file else f"{events:,} generated claim events"
    click.echo(f"pipelined takes {what} through a real Kafka into tables and files below {directory}")
    if source != FILE:
        click.echo(f"The events come {_WAYS[source]}.")
    click.echo(f"Retries wait {', '.join(map(str, RETRY_DELAYS_S))} s here instead of minutes.")
    with Stack(directory, source) as stack, _daemon(directory, stack.config) as daemon:
        config = load(stack.config, environ={}).config
        click.echo(f"[{time.monotonic() - began:5.1f} s] Kafka on {stack.bootstrap} and the daemon are up")
        lines = file or _generate(directory, events, seed, stack.files_url)
        balance = _follow(config, feeds_of(source, config, lines, seed), daemon, began)
        click.echo("\n" + render(balance, unicode=(sys.stdout.encoding or "").lower().startswith("utf")))
        if ledger is not None:
            ledger.write_text(json.dumps(balance.as_json(), indent=2) + "\n")
        _tell_places(directory, stack.config, config)
        if keep:
            _keep(stack.config, daemon)
    if daemon.returncode != 0:
        msg = f"the daemon ended with exit code {daemon.returncode}; see {directory / 'daemon.log'}"
        raise PipelinedError(msg)
    click.echo(f"[{time.monotonic() - began:5.1f} s] the daemon drained and stopped")
    return int(ExitCode.OK if balance.balanced else ExitCode.FAILED)


def _fresh(directory: Path) -> Path:
    """An empty folder; one of an earlier run is replaced, any other is left alone."""
    directory = directory.absolute()
    if directory.exists() and any(directory.iterdir()):
        if not (directory / _MARKER).exists():
            msg = f"{directory} is not empty and was not made by `make run`; name another with DIR=folder"
            raise UsageError(msg)
        shutil.rmtree(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / _MARKER).touch()
    return directory


@contextmanager
def _daemon(directory: Path, config: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The daemon in the background, drained and stopped at the end."""
    log = directory / "daemon.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipelined", "--config", str(config), "run"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # a Ctrl-C here is passed on once, below
            env={name: value for name, value in os.environ.items() if not name.startswith("PIPELINED_")}
            | {name: value for name, value in os.environ.items() if name == "PIPELINED_CACHE"},
        )
    try:
        _wait_running(config, process, log)
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait()


def _wait_running(config: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    runtime = load(config, environ={}).config.runtime_dir
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            if ask(runtime, {"cmd": "status"})["status"]["state"] == "running":
                return
        except PipelinedError:
            pass  # not listening yet
        time.sleep(0.05)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-10:])
    msg = f"the daemon did not come up; the end of {log}:\n{tail}"
    raise UnavailableError(msg)


def _generate(directory: Path, events: int, seed: int, files_url: str) -> Path:
    path = directory / "events.jsonl"
    day = Day(events, seed, files_url, start=dt.datetime.now(dt.UTC))
    with path.open("wb") as output:
        for line in day.lines():
            output.write(line + b"\n")
    summary = day.summary
    faulty = summary.attachments - summary.deliverable
    click.echo(
        f"wrote {summary.lines:,} lines to {path.name}: {summary.duplicates:,} duplicates, "
        f"{summary.unreadable:,} unreadable, {summary.attachments:,} attachments of "
        f"{summary.attachment_bytes / 1e6:,.0f} MB, {faulty:,} of them faulty for good"
    )
    return path


def _follow(config: Config, feeds: Sequence[Feed], daemon: subprocess.Popen[bytes], began: float) -> Balance:
    """Feed the events and watch until all of them are accounted for, or nothing moves any more."""
    with Follower(config) as follower, Picture(began) as picture:
        for feed in feeds:
            feed.start()
        last, changed = Progress(), time.monotonic()
        judged: Progress | None = None
        while True:
            progress = follower.poll(0.2)
            picture.show(progress)
            for feed in feeds:
                if feed.error is not None:
                    raise feed.error
            if daemon.poll() is not None:
                msg = f"the daemon ended with exit code {daemon.returncode} in the middle; see daemon.log"
                raise PipelinedError(msg)
            now = time.monotonic()
            if progress != last:
                last, changed = progress, now
            fed = not any(feed.is_alive() for feed in feeds)
            if fed and progress.settled and progress != judged:
                judged, balance = progress, follower.balance()
                if balance.balanced:
                    picture.show(follower.poll(0.0), last=True)
                    _tell_left_out(feeds)
                    return balance
            if now - changed > _QUIET_S and not progress.retrying:
                return follower.balance()


def _tell_left_out(feeds: Sequence[Feed]) -> None:
    for feed in feeds:
        if feed.left_out:
            click.echo(
                f"{feed.left_out:,} lines are no events, and so no rows that the Eventhouse could hold"
            )


def _tell_places(directory: Path, config_file: Path, config: Config) -> None:
    click.echo(f"\ntables  {directory}/tables\nfiles   {directory}/files")
    if config.eventhouse.url:
        where = config.eventhouse
        click.echo(f"source  {where.table} in the database {where.database} of {where.url}")
    if config.eventhub.bootstrap:
        click.echo(f"source  the hub {config.eventhub.topic} at {config.eventhub.bootstrap}")
    click.echo(f"log     {directory}/daemon.log\nconfig  {config_file}")


def _keep(config: Path, daemon: subprocess.Popen[bytes]) -> None:
    click.echo(f"\nKept up. Look around with `pipelinectl --config {config} status`; Ctrl-C ends it.")
    try:
        daemon.wait()
    except KeyboardInterrupt:
        click.echo("\nending: the batches in hand are finished")
