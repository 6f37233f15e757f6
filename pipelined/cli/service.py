"""``pipelinectl service``: the daemon as a service of systemd."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sysconfig
from pathlib import Path

import click

from pipelined.cli import units
from pipelined.cli.groups import Commands
from pipelined.cli.settings import Settings
from pipelined.cli.units import (
    MARK,
    SYSUSERS,
    TMPFILES,
    UNITS,
    USER,
    Service,
    folders_file,
    instance_file,
    service_name,
    unit_file,
)
from pipelined.config import load
from pipelined.config.loading import DEFAULT_FILE, FILE_VARIABLE
from pipelined.errors import ExitCode, UnavailableError, UsageError

__all__ = ["main_pid", "service", "start_service"]

_SAME = "as it is to be"
_instance = click.option(
    "--instance",
    default="",
    metavar="NAME",
    help="One of several on this host: the service pipelined@NAME, configured in /etc/pipelined/NAME.toml.",
)
_user = click.option(
    "--user", default=USER, show_default=True, help="The user that it runs as; made where it is missing."
)
_dry_run = click.option("--dry-run", is_flag=True, help="Only tell what would be done.")


@click.group(cls=Commands)
def service() -> None:
    """Have systemd run the daemon: install its service, show it, or uninstall it."""


@service.command()
@_instance
@_user
@click.pass_obj
def show(settings: Settings, instance: str, user: str) -> None:
    """Print the files of the service as they are to be on this host, and how they are now.

    \b
    Example:
      pipelinectl service show
    """  # noqa: D301 - click takes the character \\b for a paragraph to keep
    for path, text in _service(settings, instance, user).files().items():
        click.echo(f"### {path} ({_compared(path, text)})\n{text}")


@service.command()
@_instance
@_user
@_dry_run
@click.pass_obj
def install(settings: Settings, instance: str, user: str, dry_run: bool) -> None:
    """Install the service for this configuration and this environment of Python; as root.

    It writes the unit, makes the user and the folders, and tells systemd; it starts nothing. Do it again
    after another version, environment or configuration: what is as it should be stays. Exit code 64 where
    a file is there that is not ours, 69 where there is no systemd.

    \b
    Example:
      pipelinectl service install && systemctl enable --now pipelined
    """  # noqa: D301 - click takes the character \\b for a paragraph to keep
    wanted = _service(settings, instance, user)
    if not dry_run:
        _insist_on_systemd()
    files = {path: text for path, text in wanted.files().items() if _compared(path, text) != _SAME}
    for path in files:
        _insist_on_ours(path)
    do = _Doer(dry_run=dry_run)
    for path, text in files.items():
        do.write(path, text)
    do.run("systemd-sysusers", "pipelined.conf")
    do.run("systemd-tmpfiles", "--create", "pipelined.conf")
    for folder in wanted.own_folders():
        do.make_folder(folder, user)
    if not dry_run:
        _insist_on_access(wanted)
    do.run("systemctl", "daemon-reload")
    if not dry_run:
        click.echo(f"installed; start it with: systemctl enable --now {wanted.name}")


@service.command()
@_instance
@_dry_run
def uninstall(instance: str, dry_run: bool) -> None:
    """Stop the service, drained, and remove its files; as root.

    The configuration, the data and the user stay. With --instance the unit that all instances share stays
    as well, as long as another one is enabled or runs.

    \b
    Example:
      pipelinectl service uninstall --dry-run
    """  # noqa: D301 - click takes the character \\b for a paragraph to keep
    name, unit = service_name(instance), unit_file(instance)
    if not dry_run:
        _insist_on_systemd()
    if not unit.exists():
        raise UsageError(f"{unit} does not exist: there is nothing to uninstall")
    _insist_on_ours(unit)
    do = _Doer(dry_run=dry_run)
    do.run("systemctl", "disable", "--now", name)
    do.remove(folders_file(instance))
    shared = bool(instance) and _others(name)
    if not shared:
        do.remove(unit)
        if not unit_file("" if instance else "any").exists():
            do.remove(SYSUSERS)
            do.remove(TMPFILES)
    do.run("systemctl", "daemon-reload")
    if not dry_run:
        click.echo("uninstalled; the configuration, the data and the user are as they were")


def start_service(name: str, timeout: float, verb: str = "start") -> int:
    """Have systemd start, or ``restart``, the installed service ``name``; waits until it is ready, up to
    ``timeout`` seconds.

    Returns the exit code of `pipelinectl start`: 0, that of the daemon where it ended, or 1.
    """
    command = ["systemctl", verb, name, *(["--no-block"] if timeout == 0 else [])]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, timeout=timeout or None, check=False)
    except subprocess.TimeoutExpired:
        click.echo(f"not ready within {timeout:g} s; see `systemctl status {name}`", err=True)
        return int(ExitCode.FAILED)
    shown = _shown(name, "StatusText", "ExecMainStatus", "ActiveState")
    if done.returncode == 0:
        up = f"the service {name} is up: {shown['StatusText'] or 'starting'}"
        click.echo(up if timeout else f"systemd was told to {verb} the service {name}")
        return int(ExitCode.OK)
    if shown["ActiveState"] == "active":
        click.echo(f"systemd did not {verb} the service {name}, which goes on as it was", err=True)
        return int(ExitCode.FAILED)
    click.echo(f"the service {name} does not start; its log: journalctl -u {name} -e", err=True)
    return int(shown["ExecMainStatus"] or 0) or int(ExitCode.FAILED)


def main_pid(name: str) -> int:
    """The pid of the daemon that systemd runs as the service ``name``; 0 where it runs none."""
    return int(_shown(name, "MainPID")["MainPID"] or 0)


def _shown(name: str, *properties: str) -> dict[str, str]:
    command = ["systemctl", "show", name, f"--property={','.join(properties)}"]
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    return dict.fromkeys(properties, "") | dict(line.split("=", 1) for line in lines if "=" in line)


class _Doer:
    """Does what changes the system, or only tells of it."""

    def __init__(self, *, dry_run: bool) -> None:
        self._dry_run = dry_run

    def _tell(self, what: str) -> bool:
        click.echo(f"would {what}" if self._dry_run else what)
        return not self._dry_run

    def write(self, path: Path, text: str) -> None:
        if self._tell(f"write {path}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            new = path.with_name(f".{path.name}.new")
            new.write_text(text)
            new.chmod(0o644)
            new.replace(path)

    def remove(self, path: Path) -> None:
        if path.exists() and self._tell(f"remove {path}"):
            path.unlink()
            if path.parent.suffix == ".d" and path.parent.parent == UNITS and not any(path.parent.iterdir()):
                path.parent.rmdir()

    def make_folder(self, path: Path, user: str) -> None:
        if not path.exists() and self._tell(f"make {path} for {user}"):
            path.mkdir(mode=0o750, parents=True)
            shutil.chown(path, user, pwd.getpwnam(user).pw_gid)

    def run(self, *command: str) -> None:
        if self._tell(f"run {' '.join(command)}"):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                why = (done.stderr or done.stdout).strip() or "it did not say why"
                raise UnavailableError(f"`{' '.join(command)}` failed: {why}")


def _service(settings: Settings, instance: str, user: str) -> Service:
    """The service for this configuration, read as it will be: from the file alone."""
    named = settings.file or Path(os.environ.get(FILE_VARIABLE) or DEFAULT_FILE)
    file = instance_file(instance) if instance and settings.file is None else named.absolute()
    if settings.overrides:
        raise UsageError(f"a service takes no --set: write it to {file}")
    if not file.exists():
        raise UsageError(f"{file} does not exist; write the configuration first, then install the service")
    return Service(load(file, environ={}).config, file, instance, user)


def _compared(path: Path, text: str) -> str:
    try:
        return _SAME if path.read_text() == text else "differs from this"
    except FileNotFoundError:
        return "not installed"


def _insist_on_ours(path: Path) -> None:
    if path.exists() and not path.read_text().startswith(MARK):
        raise UsageError(
            f"{path} was not written by this command; look at it, move it away, and call this again"
        )


def _insist_on_systemd() -> None:
    if not units.BOOTED.is_dir() or shutil.which("systemctl") is None:
        raise UnavailableError(
            "this machine was not booted with systemd; run `pipelined run` under the supervisor that it has, "
            "or `pipelinectl start`"
        )
    if os.geteuid() != 0:
        raise UnavailableError(
            "only root can install a service: call it with sudo, or look at it with --dry-run"
        )


def _insist_on_access(wanted: Service) -> None:
    """As the daemon's user: run the program, read the configuration, write to the folders."""
    entry = pwd.getpwnam(wanted.user)
    program = Path(sysconfig.get_path("scripts")) / "pipelined"
    tests: dict[str, list[str | Path]] = {
        f"run {program}; have the environment where it may, in /opt/pipelined for example": [
            program,
            "--version",
        ],
        f"read {wanted.config_file}": ["test", "-r", wanted.config_file],
        **{f"write to {folder}": ["test", "-w", folder] for folder in wanted.own_folders()},
    }
    for what, command in tests.items():
        try:
            done = subprocess.run(
                command,
                user=entry.pw_uid,
                group=entry.pw_gid,
                extra_groups=os.getgrouplist(entry.pw_name, entry.pw_gid),
                cwd="/",
                capture_output=True,
                text=True,
                check=False,
            )
            why = done.stderr.strip() if done.returncode else None
        except OSError as error:
            why = error.strerror
        if why is not None:
            raise UnavailableError(f"the user {wanted.user} cannot {what}" + (f" ({why})" if why else ""))


def _others(name: str) -> bool:
    """Whether another instance is enabled, or known to systemd because it runs or failed."""
    listed = subprocess.run(
        ["systemctl", "list-units", "--plain", "--no-legend", "--all", "pipelined@*.service"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    known = {line.split()[0] for line in listed.splitlines() if line.strip()}
    known |= {path.name for path in UNITS.glob("*.wants/pipelined@*.service")}
    return bool(known - {f"{name}.service"})
