"""Where the events of a local run come from: a local Eventhouse, a Kafka that passes for an Event Hub.

The Event Hub is a cluster of its own, so that its position and its faults are those of a foreign one.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Self

from confluent_kafka.admin import AdminClient, NewTopic

from pipelined.local.eventhouse import Eventhouse
from pipelined.local.kafka import Cluster

__all__ = ["BOTH", "EVENTHOUSE", "EVENTHUB", "FILE", "HUB", "SOURCES", "TABLE", "Upstream", "create_table"]

FILE: Final = "file"
EVENTHOUSE: Final = "eventhouse"
EVENTHUB: Final = "eventhub"
BOTH: Final = "both"
#: What a run may take its events from.
SOURCES: Final = (FILE, EVENTHOUSE, EVENTHUB, BOTH)

TABLE: Final = "Events"
HUB: Final = "claims"
_COLUMNS: Final = "type: string, version: long, utcDateTime: datetime, traceId: string, data: dynamic"
_PARTITIONS: Final = 4
_POLL_S: Final = 0.5
_MAKE_TOPIC_S: Final = 30.0


class Upstream:
    """The sources of a run, below ``directory``; a context manager. ``source`` is one of SOURCES.

    UnavailableError when one cannot be had.
    """

    def __init__(self, directory: Path, source: str) -> None:
        self._directory = directory
        self._with_eventhouse = source in (EVENTHOUSE, BOTH)
        self._with_hub = source in (EVENTHUB, BOTH)
        self._stack = contextlib.ExitStack()
        self.eventhouse: Eventhouse | None = None
        self.hub: Cluster | None = None

    def __enter__(self) -> Self:
        starting: list[Callable[[], None]] = []
        if self._with_eventhouse:
            starting.append(self._start_eventhouse)
        if self._with_hub:
            starting.append(self._start_hub)
        with contextlib.ExitStack() as stack:
            stack.callback(self._stop)
            if starting:
                with ThreadPoolExecutor(len(starting)) as pool:
                    for started in [pool.submit(start) for start in starting]:
                        started.result()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *about: object) -> None:
        self._stack.close()

    def _start_eventhouse(self) -> None:
        self.eventhouse = Eventhouse(self._directory / "eventhouse")
        create_table(self.eventhouse)

    def _start_hub(self) -> None:
        hub = Cluster(sasl=True, directory=self._directory / "hub")
        hub.start()
        self.hub = hub
        secret = self._secret()
        secret.touch(mode=0o600)
        secret.write_text(hub.connection_string)
        admin = AdminClient({"bootstrap.servers": hub.bootstrap})
        for made in admin.create_topics([NewTopic(HUB, _PARTITIONS, 1)]).values():
            made.result(_MAKE_TOPIC_S)

    def _secret(self) -> Path:
        return self._directory / "hub" / "connection-string"

    def _stop(self) -> None:
        if self.eventhouse is not None:
            self.eventhouse.stop()
        if self.hub is not None:
            self.hub.stop()

    def restart_eventhouse(self) -> None:
        """Start the Eventhouse again, whose server has ended, with its tables and where it was."""
        assert self.eventhouse is not None
        port = int(self.eventhouse.url.rpartition(":")[2])
        self.eventhouse = Eventhouse(self._directory / "eventhouse", port=port)

    @property
    def settings(self) -> dict[str, Any]:
        """The keys of the configuration that lead to the sources, by their paths."""
        found: dict[str, Any] = {}
        if self.eventhouse is not None:
            found |= {
                "eventhouse.url": self.eventhouse.url,
                "eventhouse.database": self.eventhouse.database,
                "eventhouse.table": TABLE,
                "eventhouse.poll_seconds": _POLL_S,
                "workers.eventhouse_poller.processes": 1,
            }
        if self.hub is not None:
            found |= {
                "eventhub.bootstrap": self.hub.sasl_bootstrap,
                "eventhub.topic": HUB,
                "eventhub.connection_string": f"file:{self._secret()}",
                "eventhub.ca_file": str(self.hub.ca_path),
                "workers.eventhub_reader.processes": 1,
            }
        return found

    @property
    def config(self) -> str:
        """The same as sections of TOML; empty without any source."""
        text = ""
        for section, settings in itertools.groupby(
            self.settings.items(), key=lambda setting: setting[0].rpartition(".")[0]
        ):
            lines = (f"{path.rpartition('.')[2]} = {json.dumps(value)}\n" for path, value in settings)
            text += f"\n[{section}]\n{''.join(lines)}"
        return text


def create_table(eventhouse: Eventhouse) -> None:
    """Make the table of the events, with the columns as the configuration has them by default."""
    eventhouse.command(f".create table {TABLE} ({_COLUMNS})")
