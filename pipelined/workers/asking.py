"""A source, asked in a thread of its own, so that the worker's loop never waits for what is elsewhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, ParamSpec, TypeVar

from pipelined.errors import PipelinedError
from pipelined.logs.context import carried
from pipelined.sources.contract import Facts, Page, Probe, Source

__all__ = ["Answer", "Asker"]

_logger = logging.getLogger("pipelined.workers")
P = ParamSpec("P")
T = TypeVar("T")


class Answer(NamedTuple):
    """What came of one fetch: a page, nothing (with a probe, if that was asked for), or an error.

    ``began`` is when the fetch began, by the wall clock; ``skew`` the seconds by which the source's clock
    is ahead of ours, where it told it.
    """

    page: Page | None
    error: Exception | None
    probe: Probe | None
    facts: Facts
    began: float
    skew: float | None


class Asker:
    """Makes all calls of a source, one after the other, in one thread."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="source")
        self._resuming = False
        self._position: bytes | None = None

    def resume(self, position: bytes | None) -> None:
        """What is asked next is behind this position; the answer to what was asked before is void."""
        self._position = position
        self._submit(self._forget)

    def ask(self, timeout: float, *, probe: bool = False) -> Future[Answer]:
        """Fetch; where nothing comes and ``probe`` is set, look whether something waits all the same."""
        return self._submit(self._answer, timeout, probe)

    def call(self, function: Callable[[], T]) -> Future[T]:
        """Have something else done between two fetches."""
        return self._submit(function)

    def committed(self, page: Page) -> None:
        """Tell the source, between two fetches. What it does with it is for others to see: we go on."""
        self._submit(self._committed, page)

    def close(self) -> None:
        """Give the source back when its present call has ended; waits for nothing."""
        self._submit(self._close)
        self._thread.shutdown(wait=False)

    def _submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        return self._thread.submit(carried(function), *args, **kwargs)

    def _forget(self) -> None:
        self._resuming = True

    def _answer(self, timeout: float, wants_probe: bool) -> Answer:
        began = time.time()
        page: Page | None = None
        probe: Probe | None = None
        error: Exception | None = None
        facts = Facts()
        try:
            if self._resuming:
                self._source.resume(self._position)
                self._resuming = False
            page = self._source.fetch(timeout)
            if page is None and wants_probe:
                probe = self._source.probe()
        except Exception as raised:  # noqa: BLE001 - whatever it is, the loop judges it
            error = raised
        try:
            facts = self._source.facts()
        except Exception as raised:  # noqa: BLE001 - a source of ours that cannot even tell facts
            error = error or raised
        now = probe.now if probe is not None and probe.now is not None else facts.now
        return Answer(page, error, probe, facts, began, None if now is None else now - time.time())

    def _committed(self, page: Page) -> None:
        try:
            self._source.committed(page)
        except PipelinedError as error:
            _logger.warning("the source could not be told of a committed page: %s", error)
        except Exception:
            _logger.exception("the source could not be told of a committed page")

    def _close(self) -> None:
        try:
            self._source.close()
        except Exception:
            _logger.exception("the source could not be closed")
