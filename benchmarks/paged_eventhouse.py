"""One reading of a table, by the source or by Microsoft's client alone, in a process of its own.

``python -m benchmarks.paged_eventhouse MODE URL TABLE ROWS COUNT``: MODE is source, bare or idle. Its last
line is JSON: seconds, rows, processor seconds, and how much its memory grew at most (kB).
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from typing import Any

import psutil
from azure.kusto.data import ClientRequestProperties, KustoClient, KustoConnectionStringBuilder

from pipelined.config import Config
from pipelined.config.sources import Eventhouse
from pipelined.sources.eventhouse import EventhouseSource
from pipelined.sources.eventhouse.queries import Bounds, Queries, moment, parameters

_DATABASE = "events"


def section(url: str, table: str, rows: int) -> Eventhouse:
    """The configuration."""
    return Eventhouse(url=url, database=_DATABASE, table=table, page_rows=rows)


def by_source(where: Eventhouse, count: int) -> int:
    """Read with the source, as the runtime does: the page before is kept while the next is fetched."""
    source = EventhouseSource(dataclasses.replace(Config(), eventhouse=where))
    source.resume(None)
    found, before = 0, None
    while found < count:
        page = source.fetch(1.0)
        assert page
        found += len(page.outputs)
        before = page
    assert before
    source.close()
    return found


def by_client(where: Eventhouse, count: int) -> int:
    """Read with the client: the very same queries, the rows as they come."""
    client = KustoClient(KustoConnectionStringBuilder.with_no_authentication(where.url))
    queries = Queries(where)

    def ask(text: str, given: dict[str, str]) -> list[list[Any]]:
        properties = ClientRequestProperties()
        for name, value in parameters(given).items():
            properties.set_parameter(name, value)
        rows: list[list[Any]] = client.execute(_DATABASE, text, properties).primary_results[0].raw_rows
        return rows

    ((until,),) = ask(queries.cursor(), {})
    bounds = Bounds.cursors("", until)
    given = dict(bounds.parameters)
    found, behind = 0, False
    while found < count:
        rows = ask(queries.page(bounds, where.page_rows, behind=behind), given)
        found += len(rows)
        behind = True
        given |= {"time": moment(rows[-1][0]), "id": rows[-1][1]}
    client.close()
    return found


def idle(where: Eventhouse, count: int) -> int:
    """Polls that find nothing."""
    source = EventhouseSource(dataclasses.replace(Config(), eventhouse=where))
    source.resume(source.begin_at("now"))
    source.fetch(1.0)
    source.facts()
    used = time.process_time()
    for _ in range(count):
        assert source.fetch(1.0) is None
        assert len(source.facts().queries) == 1
    print(json.dumps({"cpu": time.process_time() - used, "polls": count}))
    source.close()
    return count


def main(mode: str, url: str, table: str, rows: int, count: int) -> None:
    """Do what the command line says."""
    process = psutil.Process()
    # The most it ever had, of which importing all of it is no part.
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = process.memory_info().rss
    began, used = time.monotonic(), time.process_time()
    found = {"source": by_source, "bare": by_client, "idle": idle}[mode](section(url, table, rows), count)
    seconds, cpu = time.monotonic() - began, time.process_time() - used
    if mode != "idle":
        with open("/proc/self/status") as file:
            peak = next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
        told = {"rows": found, "seconds": seconds, "cpu": cpu, "grown_kb": peak - before // 1024}
        print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
