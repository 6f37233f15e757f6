"""``pipelinectl doctor``: each real dependency tried in turn, and the fix where one is not as it should."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from pipelined import __version__
from pipelined.cli.reach import request
from pipelined.cli.settings import Settings
from pipelined.cli.status import coloured
from pipelined.cli.units import installed_for
from pipelined.config import Config
from pipelined.config.checks import run_here
from pipelined.doctor.checks import CHECKS
from pipelined.doctor.examination import Check, examine
from pipelined.doctor.finding import Finding, Outcome, failed, fine, warned
from pipelined.errors import ConfigError, ExitCode, UnavailableError
from pipelined.supervisor.pidfile import holder

__all__ = ["NAMES", "doctor"]

_CONFIGURATION = "configuration"
_SYSTEMD_S = 5.0
_COLOURS = {Outcome.OK: "green", Outcome.WARN: "yellow", Outcome.FAIL: "red"}
#: Every check, in the order in which they are told.
NAMES: tuple[str, ...] = (_CONFIGURATION, *(check.name for check in CHECKS), "service", "daemon")


@click.command()
@click.option(
    "--only",
    type=click.Choice(NAMES),
    multiple=True,
    metavar="NAME",
    help=f"Make this check only; may be given several times. The checks: {', '.join(NAMES)}.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON list of the findings instead of lines.")
@click.pass_obj
def doctor(settings: Settings, only: tuple[str, ...], as_json: bool) -> int:
    """Try each thing that the daemon needs, and say what to do where one is not as it should be.

    One line for each finding: ok, warn (it works, and somebody should look) or FAIL (it does not work like
    that), what was found, and behind an arrow the fix. It changes nothing: what it writes to see whether
    that can be done is removed. Run it as the daemon's user. Each check has its time; one that hangs is
    ended, and told.

    Exit code 0: nothing failed; 1: something did.

    \b
    Example:
      pipelinectl doctor
      pipelinectl doctor --only brokers --only topics
    """  # noqa: D301 - click takes the character \\b for a paragraph to keep
    wanted = only or NAMES
    counts: Counter[Outcome] = Counter()
    told = []
    width = max(map(len, wanted))
    for name, finding in _findings(settings, wanted):
        counts[finding.outcome] += 1
        if as_json:
            told.append(
                {
                    "check": name,
                    "outcome": str(finding.outcome),
                    "found": finding.found,
                    "fix": finding.fix or None,
                }
            )
        else:
            fix = f" → {finding.fix}" if finding.fix else ""
            outcome = f"{finding.outcome:<4}"
            if coloured():
                outcome = click.style(outcome, fg=_COLOURS[finding.outcome])
            click.echo(f"{outcome}  {name:<{width}}  {finding.found}{fix}", color=coloured())
    if as_json:
        click.echo(json.dumps(told, indent=2, ensure_ascii=False))
    click.echo(", ".join(f"{counts[each]} {each}" for each in Outcome), err=True)
    return int(ExitCode.FAILED if counts[Outcome.FAIL] else ExitCode.OK)


def _findings(settings: Settings, wanted: Sequence[str]) -> Iterator[tuple[str, Finding]]:
    try:
        config = settings()
    except ConfigError as error:
        for problem in error.problems:
            yield _CONFIGURATION, failed(problem, "mend it there; nothing else was looked at")
        return
    here = [
        Check(_CONFIGURATION, "", lambda _: _configuration(settings), "see `pipelinectl config check`"),
        *CHECKS,
        Check("service", "", lambda _: _service(settings), "see `systemctl status pipelined`"),
        Check("daemon", "", _daemon, "see its log"),
    ]
    yield from examine(config, [check for check in here if check.name in wanted])


def _configuration(settings: Settings) -> Iterator[Finding]:
    """What it points at on this machine: secrets and files."""
    loaded = settings.loaded()
    problems = [problem.text for problem in run_here(loaded.config)]
    for problem in problems:
        yield failed(problem, "give it what it refers to, or this user the right to read it")
    if not problems:
        yield fine(f"{loaded.summary()}; every secret and file can be read")


def _service(settings: Settings) -> Iterator[Finding]:
    """The unit, where one is installed for this configuration."""
    name = installed_for(settings.file)
    if name is None:
        yield fine("none is installed for this configuration")
        return
    command = ["systemctl", "show", name, "--property=ActiveState,UnitFileState,NeedDaemonReload,NRestarts"]
    try:
        lines = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_SYSTEMD_S
        ).stdout.splitlines()
    except (OSError, subprocess.TimeoutExpired) as error:
        yield failed(f"systemd does not tell of {name}: {error}", f"see `systemctl status {name}`")
        return
    shown = dict(line.split("=", 1) for line in lines if "=" in line)
    state = f"{name} is {shown.get('ActiveState', 'unknown')}, {shown.get('UnitFileState') or 'not enabled'}"
    if shown.get("NeedDaemonReload") == "yes":
        yield warned(f"{name}: its files changed since systemd read them", "run `systemctl daemon-reload`")
    if shown.get("ActiveState") == "failed":
        yield failed(state, f"see `journalctl -u {name} -e`, then `systemctl start {name}`")
    elif shown.get("UnitFileState") not in ("enabled", "enabled-runtime"):
        yield warned(f"{state}: it does not start with the machine", f"run `systemctl enable {name}`")
    else:
        yield fine(f"{state}, restarted {shown.get('NRestarts') or '0'} times by systemd")


def _daemon(config: Config) -> Iterator[Finding]:
    """The daemon: that it answers, is of this version, and that its workers work."""
    if (pid := holder(config.state_dir)) is None:
        yield warned("it does not run", "start it: `pipelinectl start`")
        return
    try:
        document = request(config, {"cmd": "status"})["status"]
    except UnavailableError as error:
        yield failed(f"pid {pid}: {error}", "see its log; `pipelinectl restart`")
        return
    version = document["versions"]["pipelined"]
    if version != __version__:
        text = f"it is version {version}, and this is {__version__}"
        yield warned(text, "restart it when it suits: `pipelinectl restart`")
    yield from _workers(document)
    if (owner := _owner(document["pid"])) not in (None, os.geteuid()):
        text = f"it runs as user id {owner}, this as {os.geteuid()}: rights were judged for this one"
        yield warned(text, f"run the doctor as that user: `sudo -u '#{owner}' pipelinectl doctor`")


def _workers(document: dict[str, object]) -> Iterator[Finding]:
    workers = document["workers"]
    assert isinstance(workers, list)
    down = [each for each in workers if each["state"] in ("BACKOFF", "EXITED", "FATAL")]
    for each in down:
        name = f"{each['type']}/{each['index']}"
        fix = f"mend the cause; `pipelinectl start {each['type']}` then starts it at once"
        yield failed(f"{name} is {each['state']}: {each['reason']}", fix)
    if not down:
        yield fine(f"pid {document['pid']} is {document['state']} since {document['since']}")


def _owner(pid: int) -> int | None:
    try:
        return Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return None
