"""The main job, through the commands that an operator types."""

from __future__ import annotations

import json
import os
import re
import signal

import pytest

from flow import Flow, are_all_running
from pipelined.supervisor.pidfile import holder


@pytest.mark.timeout(120)
def test_a_thousand_events_with_faults_end_in_a_ledger_that_balances(flow: Flow) -> None:
    flow.start()
    day = flow.day(1_000, seed=7)
    events = flow.folder / "events.jsonl"
    events.write_bytes(b"".join(line + b"\n" for line in day.lines()))
    loaded = flow.ctl("load", events)
    assert loaded.returncode == 0, loaded.stderr
    assert 0 < loaded.stderr.count("it goes to events.dlq") <= day.summary.unreadable

    told = flow.ctl("status", "--json")
    assert told.returncode == 0
    assert are_all_running(json.loads(told.stdout))
    assert flow.http("/readyz") == (200, "ok\n")

    judged = flow.ctl("ledger", "--json", "--wait", "60", timeout=90)
    balance = json.loads(judged.stdout)
    assert judged.returncode == 0, (balance, flow.tail())
    assert balance["balanced"]
    read, dead = balance["events"]["read"], balance["events"]["dead"]
    assert read == day.summary.lines
    assert balance["events"]["rows"] == balance["events"]["accepted"]
    assert read == balance["events"]["accepted"] + balance["events"]["duplicate"] + dead
    assert balance["events"]["duplicate"] == day.summary.duplicates > 0
    assert dead == day.summary.unreadable + day.summary.unassigned
    assert balance["attachments"]["expected"] == day.summary.attachments
    assert balance["attachments"]["completed"] == day.summary.deliverable > 0
    assert balance["attachments"]["failed"] == day.summary.attachments - day.summary.deliverable > 0
    assert balance["files"]["checked"] == balance["attachments"]["completed"]
    assert balance["dead_letters"] == dead + balance["attachments"]["failed"]

    code, metrics = flow.http("/metrics")
    assert code == 200
    done = [line for line in metrics.splitlines() if line.startswith("pipelined_records_in_total")]
    assert {'worker="event-ingester"' in line for line in done} == {True, False}

    stopped = flow.ctl("stop")
    assert (stopped.returncode, stopped.stdout) == (0, "stopped\n")
    assert flow.daemon is not None
    assert flow.daemon.wait(5) == 0
    assert flow.ctl("status").returncode == 69


def test_the_daemon_goes_on_in_the_background_after_start_and_ends_with_stop(flow: Flow) -> None:
    for lines in (40, 60):
        started = flow.ctl("start")
        assert started.returncode == 0, started.stderr
        pid = holder(flow.config.state_dir)
        assert f"the daemon (pid {pid}) is running" in started.stdout
        again = flow.ctl("start")
        assert again.returncode == 73
        assert f"pid {pid}" in again.stderr
        flow.load(flow.day(lines, seed=lines).lines())
        flow.settle()
        assert flow.ctl("stop").returncode == 0
        assert flow.processes() == {}
    assert flow.settle().read == 100
    assert flow.ctl("stop").returncode == 0, "nothing runs, and that is what was asked for"


def test_a_killed_ingester_has_its_whole_memory_back(flow: Flow) -> None:
    flow.start()
    lines = list(flow.day(300, seed=5).lines())
    flow.load(lines)
    before = flow.settle()
    killed = flow.workers()["event-ingester"]["pid"]
    os.kill(killed, signal.SIGKILL)
    flow.until_worker("event-ingester", lambda worker: worker["ready"] and worker["pid"] != killed, "is back")
    _, metrics = flow.http("/metrics")
    known = re.search(r'known_trace_ids{[^}]*worker="event-ingester"[^}]*} (\S+)', metrics)
    assert known is not None
    assert float(known[1]) == before.accepted
    flow.load(lines)
    after = flow.settle()
    assert (after.accepted, after.rows) == (before.accepted, before.rows), "all of it was known"
    assert after.read == 2 * before.read


def test_several_processes_of_a_type_share_the_work_and_the_books_balance(flow: Flow) -> None:
    flow.configure({"workers.download.processes": 2, "workers.event_ingester.processes": 2})
    flow.start()
    flow.load(flow.day(600, seed=13).lines())
    flow.settle()
    taken = {
        (worker["type"], worker["index"]): worker["records_in"]
        for worker in flow.status()["workers"]
        if worker["type"] in {"download", "event-ingester"}
    }
    assert len(taken) == 4
    assert all(taken.values()), f"one of two did nothing: {taken}"
    assert flow.stop() == 0
