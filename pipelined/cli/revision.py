"""How a running daemon reads its configuration again: from where it had it, and judged in whole."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from pipelined.config import Config, checks, load
from pipelined.errors import ConfigError, UnavailableError
from pipelined.kafka.settings import Names
from pipelined.logs.rotation import log_file
from pipelined.logs.setup import setup
from pipelined.supervisor.levels import SUPERVISOR
from pipelined.supervisor.listener import Listener

__all__ = ["Sources", "log_as_parent"]

_logger = logging.getLogger("pipelined.supervisor")

_BROKERS_S = 3.0
#: Of the parent's log with a slow reader: its loop is held up by nothing for longer than 10 ms.
_PATIENCE_MS = 5


def log_as_parent(config: Config) -> None:
    """Set up the log of the daemon's parent, and keep the file small that it has in the background."""
    setup(
        config.logs,
        worker=SUPERVISOR,
        index=0,
        instance=Names(config).instance(SUPERVISOR, 0),
        patience_ms=_PATIENCE_MS,
        file=log_file(config),
    )


@dataclass(frozen=True, slots=True)
class Sources:
    """The file and the command line's settings of this daemon; its environment is what it was."""

    file: Path | None
    overrides: tuple[str, ...]
    listener: Listener | None = None

    def check(self, present: Config, wanted: Config | None) -> Config:
        """``wanted``, or what the sources say now. Raises ConfigError with every problem of it.

        Brokers that do not answer are a reason to refuse only what is new to them. Speaks to Kafka: for a
        child of the daemon, never for itself.
        """
        config = load(self.file, self.overrides).config if wanted is None else wanted
        problems = [problem.text for check in (checks.run, checks.run_here) for problem in check(config)]
        if problems:
            raise ConfigError(problems)
        from pipelined.kafka import limits, topics

        try:
            topics.check(config, timeout=_BROKERS_S)
            limits.check(config, timeout=_BROKERS_S)
        except UnavailableError as error:
            if (config.kafka, config.topics) != (present.kafka, present.topics):
                msg = f"the brokers do not answer, so that the new settings cannot be tried: {error}"
                raise UnavailableError(msg) from error
            _logger.warning("%s; going on all the same, the workers wait", error)
        return config

    def accepted(self, config: Config) -> None:
        """The daemon's own log follows at once, and so does the socket that it holds."""
        log_as_parent(config)
        if self.listener is not None:
            self.listener.adopt(config)
