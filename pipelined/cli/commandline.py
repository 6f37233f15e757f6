"""The command line of a daemon: as a command would give it, and as one that runs was given it."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import click

__all__ = ["CommandLine", "of_process"]

_PROGRAM = "pipelined"


@dataclass(frozen=True, slots=True)
class CommandLine:
    """``pipelined --config FILE --set KEY=VALUE … run …``; ``folder`` is where it is called, None: here."""

    file: Path | None = None
    overrides: tuple[str, ...] = ()
    run: tuple[str, ...] = ("run",)
    folder: Path | None = None

    def __str__(self) -> str:
        return shlex.join([_PROGRAM, *self._arguments()])

    def command(self) -> list[str]:
        """What to execute, in this environment of Python."""
        return [sys.executable, "-m", _PROGRAM, *self._arguments()]

    def with_changes(self, file: Path | None, overrides: tuple[str, ...]) -> CommandLine:
        """The same with this file, where one is given, and with these settings on top of its own."""
        changed = {_key(override) for override in overrides}
        kept = tuple(override for override in self.overrides if _key(override) not in changed)
        return CommandLine(file or self.file, kept + overrides, self.run, self.folder)

    def _arguments(self) -> list[str]:
        options = [] if self.file is None else ["--config", str(self.file)]
        for override in self.overrides:
            options += ["--set", override]
        return [*options, *self.run]


def of_process(pid: int) -> CommandLine | None:
    """How the daemon of this pid was called, its file as an absolute path.

    None where it is gone, is not ours to look at, or was called in a way that is not known here.
    """
    process = Path(f"/proc/{pid}")
    try:
        words = [os.fsdecode(word) for word in (process / "cmdline").read_bytes().split(b"\0")[:-1]]
        folder = (process / "cwd").readlink()
    except OSError:
        return None
    program = next((at for at, word in enumerate(words) if Path(word).name == _PROGRAM), len(words))
    # Imported here: it is the daemon's side, of which no other command needs anything.
    from pipelined.cli.pipelined import pipelined

    parser = pipelined.make_parser(click.Context(pipelined))
    try:
        options, rest, _ = parser.parse_args(words[program + 1 :])
    except click.UsageError:
        return None
    if rest[:1] != ["run"]:
        return None
    file = options.get("config_file")
    overrides = tuple(options.get("overrides") or ())
    return CommandLine(folder / file if file else None, overrides, tuple(rest), folder)


def _key(override: str) -> str:
    return override.partition("=")[0].strip()
