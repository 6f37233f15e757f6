"""Back-pressure: a source rests while the stages behind it are too far behind.

The lag is asked for by a thread, so that a slow answer holds nothing up, and only while it may have
changed: a source that brings nothing costs the brokers nothing.
"""

from __future__ import annotations

import logging
import operator
import threading
from collections.abc import Callable, Mapping

from pipelined.config.sources import Sources
from pipelined.errors import UnavailableError
from pipelined.logs.context import carried

__all__ = ["Pressure"]

_logger = logging.getLogger("pipelined.workers")


class Pressure:
    """Whether to hold, by the largest of the lags that ``ask`` tells for each worker type.

    Holds from ``pause_lag`` on, until it is no more than ``resume_lag``. Before the first answer, or the
    first failure to get one, it holds as well. Where there is no answer it does what it did.
    """

    def __init__(self, settings: Sources, ask: Callable[[], Mapping[str, int]]) -> None:
        self._settings = settings
        self._ask = ask
        self._asked = False
        self._held = False
        self._slowest = ""
        self._failing = False
        self._brought = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=carried(self._watch), name="pressure", daemon=True)
        #: The lag that decides, as it was last told.
        self.lag = 0

    @property
    def holds(self) -> bool:
        """Whether nothing may be read now."""
        return self._held or not self._asked

    @property
    def why(self) -> str:
        """Why it holds, or what is not known, in words."""
        if not self._asked:
            return "how far behind the stages are is not known yet"
        stale = "how far behind the stages are cannot be asked"
        if self._held:
            told = f"{self._slowest} is {self.lag} records behind"
            return f"{told}, and {stale} any more" if self._failing else told
        return stale if self._failing else ""

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def brought(self) -> None:
        """The source brought something: the lag is not what it was."""
        self._brought.set()

    def close(self) -> None:
        """Ask no more; waits for nothing."""
        self._over.set()
        self._brought.set()

    def _watch(self) -> None:
        while not self._over.is_set():
            self._brought.clear()
            self.look()
            self._over.wait(self._settings.lag_seconds)
            if not (self._held or self._failing):
                self._brought.wait()

    def look(self) -> None:
        """Ask once, and judge."""
        try:
            lags = self._ask()
        except UnavailableError as error:
            if not self._failing:
                does = "stays held" if self._held else "reads on"
                _logger.warning("%s; meanwhile the source %s", error, does)
            self._failing = True
        else:
            self._failing = False
            self._judge(lags)
        self._asked = True

    def _judge(self, lags: Mapping[str, int]) -> None:
        self._slowest, self.lag = max(lags.items(), key=operator.itemgetter(1), default=("", 0))
        settings = self._settings
        held = self.lag > settings.resume_lag if self._held else self.lag >= settings.pause_lag
        if held != self._held:
            words = "the source is held back" if held else "the source is read again"
            _logger.info(
                "%s: %s is %d records behind", words, self._slowest, self.lag, extra={"lag": self.lag}
            )
        self._held = held
