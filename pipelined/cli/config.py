"""``pipelinectl config``: is the configuration right, and where does each value come from?"""

from __future__ import annotations

import json
from pathlib import Path

import click

from pipelined.cli.settings import Settings
from pipelined.config.checks import run_here
from pipelined.config.leaves import leaves
from pipelined.config.values import written
from pipelined.errors import ConfigError

__all__ = ["config"]


@click.group()
def config() -> None:
    """Check and show the configuration."""


@config.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.pass_obj
def check(settings: Settings, file: Path | None) -> None:
    """Check the configuration, or FILE in the place of its file; exit code 78 if anything is wrong.

    Every problem is told at once: unknown keys, wrong values, values that do not fit together, and
    secrets or files that this user cannot read. No secret is printed.
    """
    if file is not None:
        settings = Settings(file, settings.overrides)
    loaded = settings.loaded()
    if problems := [problem.text for problem in run_here(loaded.config)]:
        raise ConfigError(problems)
    origins = loaded.origins.values()
    changed = sum(origin != "default" for origin in origins)
    click.echo(f"ok: {len(loaded.origins)} keys, {changed} of them set")


@config.command()
@click.option("--json", "as_json", is_flag=True, help="As one JSON object: key to value and origin.")
@click.pass_obj
def show(settings: Settings, as_json: bool) -> None:
    """Show every value with its origin. The text is TOML; secrets are shown as their references."""
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
