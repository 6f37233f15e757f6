"""Looking into one table without changing it."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator, Sequence

from pipelined.errors import PipelinedError
from pipelined.lake.check import Checked, check
from pipelined.lake.faults import classify
from pipelined.lake.log import Version, history
from pipelined.lake.positions import Partition
from pipelined.lake.table import TableSource

__all__ = ["Inspection"]


class Inspection:
    """One table; raises AuthError or DependencyError where it cannot be read."""

    def __init__(
        self, source: TableSource, identity: Sequence[str], app: str, partitions: Sequence[Partition]
    ) -> None:
        """``identity``: the columns that no two rows may have in common; ``app`` consumes ``partitions``."""
        self.url = source.url
        self._source = source
        self._identity = identity
        self._app = app
        self._partitions = partitions

    def exists(self) -> bool:
        """Whether there is a table."""
        with self._classified():
            return self._source.exists()

    def check(self, since: dt.date | None) -> Checked:
        """See :func:`lake.check.check`."""
        with self._classified():
            return check(
                self._source, self._identity, app=self._app, partitions=self._partitions, since=since
            )

    def history(self, limit: int) -> list[Version]:
        """The last versions, the newest first."""
        with self._classified():
            return [*history(self._source.existing(), self._source.files(), limit)]

    @contextlib.contextmanager
    def _classified(self) -> Iterator[None]:
        try:
            yield
        except (PipelinedError, KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:  # a panic of the table layer is no Exception
            raise classify(error, self.url) from error
