"""A real Prometheus scrapes a daemon that works: what rules and dashboards name is there, and moves."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import realparts
from docs.generate import GENERATED
from flow import Flow, event, trace_ids
from pipelined.local.eventhouse import Eventhouse
from pipelined.local.ports import draw_ports
from pipelined.local.table_rows import table_row
from pipelined.local.upstream import TABLE, create_table
from prometheus_server import OBSERVABILITY, Prometheus
from waiting import until

BOARDS = {name: render() for name, render in GENERATED.items() if name.startswith("observability/grafana/")}
RULES = "\n".join(path.read_text() for path in (OBSERVABILITY / "rules").glob("*.yml"))
NAMED = set(re.findall(r"\bpipelined_\w+", RULES + "".join(BOARDS.values())))
#: What stands still while all is well, or moved before anybody looked.
STILL = {
    "pipelined_assigned_partitions",
    "pipelined_build_info",
    "pipelined_disk_size_bytes",
    "pipelined_dlq_breaker_open",
    "pipelined_log_messages_dropped_total",
    "pipelined_open_hosts",
    "pipelined_paused",
    "pipelined_rebalances_total",
    "pipelined_records_expired_total",
    "pipelined_records_stuck_total",
    "pipelined_source_events_lost_total",
    "pipelined_source_fallback",
    "pipelined_source_held",
    "pipelined_source_pages_shortened_total",
    "pipelined_source_reconnects_total",
    "pipelined_source_refused",
    "pipelined_source_stages_lag_records",
    "pipelined_source_token_expiry_timestamp_seconds",
    "pipelined_source_waiting",
    "pipelined_table_maintenance_timestamp_seconds",
    "pipelined_worker_ready",
    "pipelined_worker_restarts_total",
    "pipelined_worker_state",
}


@pytest.fixture
def eventhouse() -> Iterator[Eventhouse]:
    realparts.require("Prometheus", realparts.command_missing("prometheus"))
    with Eventhouse(database="claims") as house:
        create_table(house)
        yield house


@pytest.mark.timeout(200)
def test_a_real_prometheus_sees_every_metric_move_and_has_no_quarrel_with_a_rule(
    flow: Flow, eventhouse: Eventhouse, tmp_path: Path
) -> None:
    port = draw_ports(1)[0].plain
    flow.configure(
        {
            "endpoint.port": port,
            "workers.eventhouse_poller.processes": 1,
            "eventhouse.url": eventhouse.url,
            "eventhouse.database": "claims",
            "eventhouse.table": TABLE,
            "eventhouse.poll_seconds": 0.3,
        }
    )
    with Prometheus(flow, tmp_path / "prometheus", f"127.0.0.1:{port}") as prometheus:
        flow.start()
        until(lambda: prometheus.ask('up{job="pipelined"} == 1'), "the daemon is scraped")
        bring(flow, eventhouse, seed=3)
        until(lambda: not missing(prometheus), "every metric that is named is rendered")
        eventhouse.fault("throttled", times=2)
        bring(flow, eventhouse, seed=4)
        deadline = time.monotonic() + 60
        while (waiting := still(prometheus)) and time.monotonic() < deadline:
            time.sleep(0.5)
        assert not waiting, "these move when events flow"
        judge_rules(prometheus)
        ask_boards(prometheus)


def bring(flow: Flow, eventhouse: Eventhouse, seed: int) -> None:
    """A day of events to the Eventhouse, and a part of the same from a file."""
    lines = list(flow.day(120, seed=seed).lines())
    eventhouse.ingest(TABLE, [row for line in lines if (row := table_row(line)) is not None])
    refused = event(next(trace_ids(1)), ["https://elsewhere.example/a.pdf"])
    flow.load([*lines[:60], refused, b"no event"])


def missing(prometheus: Prometheus) -> set[str]:
    """What is named and was never scraped."""
    return NAMED - set(prometheus.api("label/__name__/values"))


def still(prometheus: Prometheus) -> set[str]:
    """What should have changed since the daemon started and did not, by its name."""
    return {name for name in NAMED - STILL if not prometheus.ask(f"changes({name}[10m]) > 0")}


def judge_rules(prometheus: Prometheus) -> None:
    """Each rule is loaded and can be evaluated; nothing fires for a daemon that works."""
    rules = [rule for group in prometheus.api("rules")["groups"] for rule in group["rules"]]
    assert len(rules) == len(re.findall(r"- (?:alert|record):", RULES))
    assert [rule for rule in rules if rule["health"] != "ok"] == []
    assert [alert for alert in prometheus.api("alerts")["alerts"] if alert["state"] == "firing"] == []


def ask_boards(prometheus: Prometheus) -> None:
    """Each query of a dashboard is understood, and most of them have an answer."""
    asked, answered = 0, 0
    for text in BOARDS.values():
        for panel in json.loads(text)["panels"]:
            for target in panel.get("targets", ()):
                query = target["expr"].replace("$__rate_interval", "1m")
                query = query.replace("$job", "pipelined").replace("$instance", ".+")
                asked += 1
                answered += bool(prometheus.ask(query))
    assert answered > 0.9 * asked, (answered, asked)
