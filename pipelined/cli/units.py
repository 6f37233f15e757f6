"""The files by which systemd runs the daemon: what stands in them on this host, and where they go."""

from __future__ import annotations

import grp
import importlib.metadata
import os
import pwd
import re
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pipelined
from pipelined.config import Config
from pipelined.config.loading import DEFAULT_FILE, FILE_VARIABLE
from pipelined.errors import UnavailableError, UsageError

__all__ = [
    "BOOTED",
    "MARK",
    "SYSUSERS",
    "TMPFILES",
    "UNITS",
    "USER",
    "Service",
    "folders_file",
    "installed_for",
    "instance_file",
    "service_name",
    "unit_file",
]

USER = "pipelined"
#: The first line of every file that is written: what does not begin with it is not ours.
MARK = "# Written by `pipelinectl service install`."
#: A folder that is there where systemd runs the machine.
BOOTED = Path("/run/systemd/system")
UNITS = Path("/etc/systemd/system")
SYSUSERS = Path("/etc/sysusers.d/pipelined.conf")
TMPFILES = Path("/etc/tmpfiles.d/pipelined.conf")

#: Where a wheel puts the files of ``systemd``, below the environment.
_DATA = "share/pipelined/systemd"
_INSTANCES = Path("/etc/pipelined")
#: What the service does not see of the machine, because it has its own, or because it is hidden from it.
_UNSEEN = tuple(map(Path, ("/tmp", "/var/tmp")))  # noqa: S108 - nothing is put there
_HOMES = tuple(map(Path, ("/home", "/root", "/run/user")))
_OF_THE_ONLY_ONE = tuple(map(Path, ("/var/lib/pipelined", "/run/pipelined")))
_EXECUTABLES = "/opt/pipelined/bin/"


@dataclass(frozen=True, slots=True)
class Service:
    """The daemon with one configuration as a service of systemd; ``instance`` is "" for the only one."""

    config: Config
    config_file: Path
    instance: str = ""
    user: str = USER

    def __post_init__(self) -> None:
        if self.instance and not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,50}", self.instance):
            raise UsageError(
                f"{self.instance!r} is no name for an instance: small letters, digits, - and _ are"
            )
        if self.instance and self.config_file != instance_file(self.instance):
            raise UsageError(
                f"the configuration of the instance {self.instance} is {instance_file(self.instance)}, not "
                f"{self.config_file}"
            )
        for path in (self.config_file, *_program_folders()):
            if any(path.is_relative_to(folder) for folder in _UNSEEN):
                raise UsageError(
                    f"{path} lies in a folder for temporary files, of which the service has its own; move "
                    f"it, to /opt/pipelined or /etc for example"
                )
            if re.search(r"[\s%\"'\\$]", str(path)):
                raise UsageError(f"{path}: a path with blanks or one of %\"'\\$ cannot be used in a unit")

    @property
    def name(self) -> str:
        """What systemctl calls it."""
        return service_name(self.instance)

    @property
    def folder(self) -> str:
        """The last part of its folders in /var/lib, /run, /var/cache and /var/log."""
        return f"pipelined-{self.instance}" if self.instance else "pipelined"

    def files(self) -> dict[Path, str]:
        """Every file with its text."""
        texts = {
            SYSUSERS: self._with_user(_template("pipelined.sysusers")),
            TMPFILES: self._with_user(_template("pipelined.tmpfiles")),
            unit_file(self.instance): self._unit(),
        }
        if folders := self.own_folders():
            listed = [_quoted(folder) for folder in folders]
            texts[folders_file(self.instance)] = (
                "# The folders of the configuration. After a change there: install again.\n"
                f"[Unit]\nRequiresMountsFor={' '.join(listed)}\n\n"
                f"[Service]\nReadWritePaths={' '.join('-' + each for each in listed)}\n"
            )
        return {path: f"{MARK}\n{text}" for path, text in texts.items()}

    def own_folders(self) -> list[Path]:
        """The folders that the configuration has it write to, and that systemd does not make for it."""
        config = self.config
        urls = (config.upload.url, config.tables.url)
        stores = [url.removeprefix("file://") for url in urls if url.startswith("file://")]
        provided = [Path(base) / self.folder for base in ("/var/lib", "/run", "/var/cache", "/var/log")]
        wanted = dict.fromkeys(map(Path, (config.state_dir, config.cache_dir, config.runtime_dir, *stores)))
        found = [path for path in wanted if not any(path.is_relative_to(base) for base in provided)]
        for path in found:
            if self.instance and any(path.is_relative_to(base) for base in _OF_THE_ONLY_ONE):
                raise UsageError(
                    f"{path} belongs to the service pipelined; give the instance {self.instance} its own "
                    f'folders in {self.config_file}: state_dir = "/var/lib/{self.folder}", cache_dir = '
                    f'"/var/lib/{self.folder}/cache", runtime_dir = "/run/{self.folder}"'
                )
            if any(path.is_relative_to(folder) for folder in (*_UNSEEN, *_HOMES)):
                raise UsageError(
                    f"the service cannot write to {path}: it has temporary folders of its own, and sees no "
                    f"homes; name another folder in {self.config_file}"
                )
        return found

    def _unit(self) -> str:
        text = _template(unit_file(self.instance).name)
        text = text.replace(_EXECUTABLES, f"{_executables()}/")
        if not self.instance:
            text = text.replace(f" {DEFAULT_FILE} ", f" {self.config_file} ")
        if any(path.is_relative_to(home) for path in self._seen() for home in _HOMES):
            text = text.replace("ProtectHome=yes", "ProtectHome=read-only")
        return self._with_user(text)

    def _seen(self) -> list[Path]:
        return [self.config_file, *_program_folders()]

    def _with_user(self, text: str) -> str:
        if self.user == USER:
            return text
        text = re.sub(r"^User=.*$", f"User={self.user}", text, flags=re.MULTILINE)
        text = re.sub(r"^Group=.*$", f"Group={_group_of(self.user)}", text, flags=re.MULTILINE)
        text = text.replace(f"u {USER} ", f"u {self.user} ")
        return text.replace(f" {USER} {USER} ", f" {self.user} {_group_of(self.user)} ")


def service_name(instance: str) -> str:
    """What systemctl calls the service of an instance, or of the only one, ""."""
    return f"pipelined@{instance}" if instance else "pipelined"


def unit_file(instance: str) -> Path:
    """The unit; all instances share one."""
    return UNITS / ("pipelined@.service" if instance else "pipelined.service")


def folders_file(instance: str) -> Path:
    """The drop-in with the folders of the configuration; only where that names others than the usual ones."""
    return UNITS / f"{service_name(instance)}.service.d" / "10-folders.conf"


def instance_file(instance: str) -> Path:
    """The configuration of an instance."""
    return _INSTANCES / f"{instance}.toml"


def installed_for(config_file: Path | None) -> str | None:
    """The service that runs this configuration (None: the default one) on this host.

    None where there is none, or where systemd does not run the machine.
    """
    if not BOOTED.is_dir():
        return None
    file = (config_file or Path(os.environ.get(FILE_VARIABLE) or DEFAULT_FILE)).absolute()
    candidates: Mapping[Path, tuple[str, str]] = {
        UNITS / "pipelined.service": ("pipelined", f" --config {file} "),
        UNITS / "pipelined@.service": (f"pipelined@{file.stem}", f" --config {file.with_stem('%i')} "),
    }
    for unit, (name, argument) in candidates.items():
        try:
            lines = unit.read_text().splitlines()
        except OSError:
            continue  # not there, or not for us to read: then not for us to start either
        if any(line.startswith("ExecStart=") and argument in line for line in lines):
            return name
    return None


def _group_of(user: str) -> str:
    try:
        return grp.getgrgid(pwd.getpwnam(user).pw_gid).gr_name
    except KeyError:
        return user  # systemd-sysusers makes both


def _executables() -> Path:
    return Path(sysconfig.get_path("scripts"))


def _program_folders() -> list[Path]:
    """Where the program lies: its environment, the interpreter below it, and the package."""
    return [_executables(), Path(sys.base_prefix), Path(pipelined.__file__).parent]


def _quoted(path: Path) -> str:
    if re.search(r"[\s\"'\\]", str(path)):
        raise UsageError(f"{path}: a folder with blanks, quotes or \\ in its name cannot be listed in a unit")
    return str(path).replace("%", "%%")


def _template(name: str) -> str:
    """A file of ``systemd``: of the checkout that this runs from, else of the installed package."""
    path = Path(pipelined.__file__).parents[1] / "systemd" / name
    if path.exists():
        return path.read_text()
    wanted = f"{_DATA}/{name}"
    for file in importlib.metadata.files("pipelined") or ():
        if file.as_posix().endswith(wanted):
            return Path(str(file.locate())).read_text()
    raise UnavailableError(
        f"this installation lacks {wanted}; install the package `pipelined` anew, with pip"
    )
