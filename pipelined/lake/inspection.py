"""Looking into one table without changing it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from pipelined.lake.check import Checked, check
from pipelined.lake.faults import classified
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
        with classified(self.url):
            return self._source.exists()

    def check(self, since: dt.date | None) -> Checked:
        """See :func:`lake.check.check`."""
        with classified(self.url):
            return check(
                self._source, self._identity, app=self._app, partitions=self._partitions, since=since
            )

    def history(self, limit: int) -> list[Version]:
        """The last versions, the newest first."""
        with classified(self.url):
            return [*history(self._source.existing(), self._source.files(), limit)]
