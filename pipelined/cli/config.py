"""``pipelinectl config``: is it right, where is each value from, and what differs from the daemon's?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from pipelined.cli.groups import Commands
from pipelined.cli.reach import request
from pipelined.cli.settings import Settings
from pipelined.config import Config
from pipelined.config.checks import run_here
from pipelined.config.diff import Change, Reload, changes, reload_of
from pipelined.config.leaves import built, leaves
from pipelined.config.values import from_json, written
from pipelined.errors import ConfigError, ExitCode, UsageError

__all__ = ["config"]


@click.group(cls=Commands)
def config() -> None:
    """Check the configuration, show it, and hold it against the daemon's."""


@config.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.pass_obj
def check(settings: Settings, file: Path | None) -> None:
    """Check the configuration, or FILE in the place of its file; exit code 78 if anything is wrong.

    Every problem is told at once: unknown keys, wrong values, values that do not fit together, and
    secrets or files that this user cannot read. No secret is printed.

    \b
    Example:
      pipelinectl config check
      pipelinectl config check /etc/pipelined.toml.new
    """  # noqa: D301 - click takes the character \\b for a paragraph to keep
    if file is not None:
        settings = Settings(file, settings.overrides)
    loaded = settings.loaded()
    if problems := [problem.text for problem in run_here(loaded.config)]:
        raise ConfigError(problems)
    click.echo(f"ok: {loaded.summary()}")


@config.command()
@click.option("--json", "as_json", is_flag=True, help="As one JSON object: key to value and origin.")
@click.pass_obj
def show(settings: Settings, as_json: bool) -> None:
    """Show every value with its origin. The text is TOML; secrets are shown as their references.

    \b
    Example:
      pipelinectl config show | grep -v '# default'
      pipelinectl config show --json
    """  # noqa: D301 - click takes the character \\b for a paragraph to keep
    loaded = settings.loaded()
    values = {leaf.path: leaf.default for leaf in leaves(loaded.config)}
    if as_json:
        tree = {path: {"value": value, "origin": loaded.origins[path]} for path, value in values.items()}
        click.echo(json.dumps(tree, indent=2, ensure_ascii=False))
        return
    lines = [f"{path} = {written(value)}" for path, value in values.items()]
    width = min(max(map(len, lines)), 60)
    for line, path in zip(lines, values, strict=True):
        click.echo(f"{line:<{width}}  # {loaded.origins[path]}")


@config.command()
@click.argument("files", metavar="[OLD] [NEW]", type=click.Path(path_type=Path), nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@click.pass_obj
def diff(settings: Settings, files: tuple[Path, ...], as_json: bool) -> int:
    """Show what differs between the running daemon's configuration and that on disk, and who would restart.

    With one FILE: between the daemon's and that file; with two: between these, and no daemon is asked. The
    environment and --set of this command count for what is read from disk; a reload reads those that the
    daemon was started with.

    Exit code 0: nothing differs; 1: something does; 69: no daemon answers; 78: a file is wrong.

    \b
    Example:
      pipelinectl config diff
      pipelinectl config diff /etc/pipelined.toml.new
      pipelinectl config diff old.toml new.toml --json
    """  # noqa: D301 - click takes the character \\b for a paragraph to keep
    if len(files) > 2:
        raise UsageError(f"two files at most, and not {len(files)}")
    read = [Settings(file, settings.overrides)() for file in files] or [settings()]
    old, new = read if len(read) == 2 else (_running(settings), read[0])
    differing = changes(old, new)
    outcome = reload_of(old, new)
    if as_json:
        click.echo(json.dumps(_diff_as_json(differing, outcome), indent=2, ensure_ascii=False))
    elif differing:
        click.echo("\n".join([*map(str, differing), *_in_words(outcome)]))
    else:
        click.echo("nothing differs")
    return int(ExitCode.FAILED if differing else ExitCode.OK)


def _running(settings: Settings) -> Config:
    """The configuration of the daemon; of one of another version the keys that are known here."""
    return built(from_json(request(settings.whereabouts(), {"cmd": "config"})["values"]))


def _diff_as_json(differing: Sequence[Change], outcome: Reload) -> dict[str, Any]:
    return {
        "changes": [{"key": change.path, "old": change.old, "new": change.new} for change in differing],
        "restarts": outcome.restarts,
        "processes": {name: list(counts) for name, counts in outcome.processes.items()},
        "refused": outcome.refused,
    }


def _in_words(outcome: Reload) -> Iterator[str]:
    if outcome.refused:
        yield f"a reload is refused because of {', '.join(outcome.refused)}: stop the daemon and start it"
        return
    if outcome.restarts:
        yield f"a reload restarts {', '.join(outcome.restarts)}"
    for name, (before, after) in outcome.processes.items():
        yield f"a reload brings {name} from {before} to {after} processes"
    if not outcome.restarts and not outcome.processes:
        yield "a reload restarts nobody"
