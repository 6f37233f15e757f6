"""The daemon, but that its event-ingester talks and its upload hangs when told to; run by ``unharmed``.

``python -m benchmarks.talkative FOLDER EVERY ARGUMENTS-OF-PIPELINED``. Of one record in so many the
event-ingester logs a line at DEBUG: by itself the package tells nothing of a record that goes well. While the
file FOLDER/hang is there, the loop of an upload worker stands still. FOLDER/journal is journald's socket.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from pipelined.cli.pipelined import main
from pipelined.logs import journal
from pipelined.stages.contract import Outcome, Record
from pipelined.supervisor.preload import preload

FOLDER, EVERY = Path(sys.argv[1]), int(sys.argv[2])
_logger = logging.getLogger("pipelined.talkative")

if __name__ == "__main__":
    preload(["pipelined.workers.catalogue"])
    from pipelined.workers import catalogue

    class Talking(catalogue.IngestStage):
        """Tells of one record in so many."""

        def submit(self, records: Sequence[Record]) -> None:
            """As it is, and a line for some."""
            for record in records:
                if not record.offset % EVERY:
                    _logger.debug(
                        "%s/%d@%d is taken", *record.partition, record.offset, extra=record.log_fields()
                    )
            super().submit(records)

    class Hanging(catalogue.UploadStage):
        """Comes back from no poll while the file is there."""

        def poll(self, timeout: float) -> list[Outcome]:
            """As it is, but that."""
            while (FOLDER / "hang").exists():
                time.sleep(0.01)
            return super().poll(timeout)

    catalogue.IngestStage, catalogue.UploadStage = Talking, Hanging
    journal.SOCKET = FOLDER / "journal"
    sys.argv[1:] = sys.argv[3:]
    main()
