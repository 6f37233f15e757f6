"""The settings every command shares: which configuration file, and what the command line changes in it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pipelined.cli.completion import config_keys
from pipelined.config import Config, Loaded, load
from pipelined.config.loading import DEFAULT, WHEREABOUTS, salvage
from pipelined.errors import ConfigError
from pipelined.logs.masking import mask

__all__ = ["Settings", "config_options"]


class Settings:
    """Loads the configuration when a command asks for it, once. The ``obj`` of every click context."""

    def __init__(self, file: Path | None = None, overrides: tuple[str, ...] = ()) -> None:
        self.file = file
        self.overrides = overrides
        self._loaded: Loaded | None = None

    def __call__(self) -> Config:
        """The configuration. Raises ConfigError with every problem found."""
        return self.loaded().config

    def loaded(self) -> Loaded:
        """The configuration with the origin of each value. Raises ConfigError with every problem."""
        if self._loaded is None:
            self._loaded = load(self.file, self.overrides)
        return self._loaded

    def whereabouts(self) -> Config:
        """The configuration, as far as it says where the daemon is: also one that does not load.

        For the commands that must work while a mistake stands in the file: that of the running daemon is
        another one. Says on the standard error stream, in one line, what is wrong and what is used instead.
        Raises ConfigError where it cannot be told which daemon is meant.
        """
        try:
            return self()
        except ConfigError as error:
            found = salvage(self.file, self.overrides)
            more = f" (and {len(error.problems) - 1} more)" if len(error.problems) > 1 else ""
            used = ", ".join(
                f"{path} {getattr(found.config, path)} ({_short(found.origins[path])})"
                for path in WHEREABOUTS
            )
            problem = mask(" ".join(error.problems[0].split()))
            click.echo(f"warning: the configuration is broken: {problem}{more}; looking in {used}", err=True)
            return found.config


def _short(origin: str) -> str:
    return "the default" if origin == DEFAULT else f"from {origin}"


def config_options(group: Callable[..., Any]) -> Callable[..., Any]:
    """Give a click group ``--config`` and ``--set``; a :class:`Settings` becomes its context's ``obj``."""

    @click.option(
        "--config",
        "config_file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The configuration file. Without it: $PIPELINED_CONFIG, else /etc/pipelined.toml.",
    )
    @click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        shell_complete=config_keys,
        help="Set one key, such as kafka.bootstrap=host:9092; may be given several times.",
    )
    @click.pass_context
    @functools.wraps(group)
    def with_settings(
        context: click.Context,
        /,
        *args: Any,
        config_file: Path | None,
        overrides: tuple[str, ...],
        **kwargs: Any,
    ) -> Any:
        context.obj = Settings(config_file, overrides)
        return group(*args, **kwargs)

    return with_settings
