"""The report of a day, as JSON for machines and as Markdown for people, and the record of all days so far."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.machine import about
from chaos.day.plan import KILLS, TROUBLES
from chaos.day.recovery import Recovery, statistics_of
from chaos.day.running import Outcome
from pipelined.local.upstream import BOTH, EVENTHOUSE, EVENTHUB, FILE

__all__ = ["RECORD", "as_json", "enter", "render"]

RECORD = Path(__file__).parents[3] / "benchmarks" / "chaos"

_LOST = (
    "source_missing",
    "event_lost",
    "event_missing_row",
    "attachment_missing",
    "attachment_unfinished",
    "result_missing",
    "file_missing",
    "dead_letter_missing",
    "failed_row_missing",
    "table_missing",
)
_DOUBLED = (
    "source_doubled",
    "event_doubled",
    "event_doubled_row",
    "attachment_doubled",
    "result_doubled",
    "file_shared",
    "dead_letter_doubled",
    "failed_row_doubled",
)
_SOURCES = {
    FILE: "files",
    EVENTHOUSE: "the Eventhouse",
    EVENTHUB: "the Event Hub",
    BOTH: "the Eventhouse and the Event Hub",
}


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Everything, ready for JSON; ``lost`` and ``doubled`` count by the ledger's differences."""
    plan, balance = outcome.plan, outcome.balance
    kinds = balance.difference_kinds if balance else {}
    lost = sum(kinds.get(kind, 0) for kind in _LOST)
    doubled = sum(kinds.get(kind, 0) for kind in _DOUBLED)
    return {
        **about(),
        "passed": outcome.passed,
        "error": outcome.error,
        "command": plan.command,
        "seed": plan.seed,
        "minutes": plan.minutes,
        "brokers": plan.brokers,
        "hosts": plan.hosts,
        "source": plan.source,
        "seconds": round(outcome.seconds, 1),
        "events": balance.read if balance else outcome.lines,
        "attachments": balance.expected if balance else 0,
        "kills": sum(outcome.kills.values()),
        "kills_by_kind": dict(outcome.kills),
        "faults": sum(outcome.troubles.values()),
        "faults_by_kind": dict(outcome.troubles),
        "lost": lost,
        "doubled": doubled,
        "other_differences": (balance.difference_count if balance else 0) - lost - doubled,
        "recovery_s": _recoveries(outcome.recoveries),
        "settle_s": round(outcome.settle_seconds, 1),
        "skipped": outcome.skipped,
        "notes": outcome.notes,
        "worker_ends": dict(outcome.ends.most_common()),
        "balance": balance.as_json() if balance else None,
        "steps": [str(step) for step in plan.steps],
    }


def _recoveries(recoveries: Iterable[Recovery]) -> dict[str, Any]:
    """The times to recover, by what was killed; those with no other fault under way also by themselves."""
    by_what: dict[str, list[Recovery]] = {}
    for each in recoveries:
        by_what.setdefault(each.what, []).append(each)
    return {
        what: {
            "all": statistics_of(found),
            "alone": statistics_of([each for each in found if not each.under]),
        }
        for what, found in sorted(by_what.items())
    }


def render(document: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    lines = [
        f"# A day of chaos, seed {document['seed']}: {'passed' if document['passed'] else 'NOT PASSED'}",
        "",
        f"{document['kills']:,} kills and {document['faults']:,} other faults over {document['events']:,} "
        f"events and {document['attachments']:,} attachments in {document['seconds'] / 60:.1f} minutes, on "
        f"{document['brokers']} broker(s) and {document['hosts']} host(s), from "
        f"{_SOURCES[document['source']]}: {_verdict(document)}.",
        "",
        f"Again: `{document['command']}`",
        "",
    ]
    if document["error"]:
        lines += [f"**{document['error']}**", ""]
    lines += ["| killed | times | | fault | times |", "|---|---:|---|---|---:|"]
    faults = [(TROUBLES[kind][0], count) for kind, count in document["faults_by_kind"].items()]
    names = {"loader": "SIGKILL of `pipelinectl load`", **{kind: KILLS[kind][0] for kind in KILLS}}
    kills = [(names[kind], count) for kind, count in document["kills_by_kind"].items()]
    for number in range(max(len(kills), len(faults))):
        left = kills[number] if number < len(kills) else ("", "")
        right = faults[number] if number < len(faults) else ("", "")
        lines.append(f"| {left[0]} | {left[1]} | | {right[0]} | {right[1]} |")
    lines += ["", *_recovery_table(document["recovery_s"]), ""]
    if document["worker_ends"]:
        lines += ["How workers ended:", ""]
        lines += [f"- {count} × {reason}" for reason, count in document["worker_ends"].items()]
        lines.append("")
    for title, found in (("Skipped", document["skipped"]), ("Notes", document["notes"])):
        if found:
            lines += [f"{title}:", "", *(f"- {each}" for each in found), ""]
    if document["balance"] and not document["balance"]["balanced"]:
        lines += ["```json", json.dumps(document["balance"], indent=1), "```", ""]
    machine = document["machine"]
    lines += [
        "The plan:",
        "",
        "```text",
        *document["steps"],
        "```",
        "",
        f"*{document['date']}; {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB; "
        + ", ".join(f"{name} {version}" for name, version in document["versions"].items())
        + f"; settled and judged {document['settle_s']:g} s after the end.*",
    ]
    return "\n".join(lines) + "\n"


def _verdict(document: Mapping[str, Any]) -> str:
    if document["balance"] is None:
        return "**not judged**"
    found = f"**{document['lost']} lost, {document['doubled']} doubled**"
    return f"{found}, {document['other_differences']} other differences"


def _recovery_table(recovery: Mapping[str, Any]) -> list[str]:
    lines = [
        "Seconds from a kill until its work moves again; *alone*: with no other fault under way.",
        "",
        "| killed | kills | median | p99 | worst | not in time | alone: kills | median | worst |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for what, found in recovery.items():
        every, alone = found["all"], found["alone"]
        cells = [
            every["kills"],
            *(every.get(name, "") for name in ("median", "p99", "worst")),
            every["never"],
        ]
        cells += [alone["kills"], alone.get("median", ""), alone.get("worst", "")]
        lines.append(f"| {what} | {' | '.join(map(str, cells))} |")
    return lines


def enter(document: Mapping[str, Any], folder: Path = RECORD) -> None:
    """Add a day to the record: ``record.json``, and ``RECORD.md`` made from it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "record.json"
    days = json.loads(path.read_text()) if path.exists() else []
    kept = (
        "date",
        "passed",
        "seed",
        "minutes",
        "brokers",
        "hosts",
        "source",
        "kills",
        "kills_by_kind",
        "faults",
        "faults_by_kind",
        "events",
        "attachments",
        "lost",
        "doubled",
        "other_differences",
        "recovery_s",
        "command",
        "machine",
        "versions",
    )
    days.append({name: document[name] for name in kept})
    path.write_text(json.dumps(days, indent=1) + "\n")
    (folder / "RECORD.md").write_text(_render_record(days))


def _render_record(days: list[dict[str, Any]]) -> str:
    lines = [
        "# The record of the chaos suite",
        "",
        "Made by `make chaos RECORD=1` from record.json: every day that was to count, passed or not. "
        "docs/how-to/chaos.md tells what a day is.",
        "",
        "| date | seed | min | brokers | hosts | source | kills | faults | events | attachments | lost "
        "| doubled | |",
        "|---|---:|---:|---:|---:|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for day in days:
        cells = [day["date"][:16], day["seed"], f"{day['minutes']:g}", day["brokers"], day["hosts"]]
        cells.append(day.get("source", FILE))
        cells += [
            f"{day[name]:,}" for name in ("kills", "faults", "events", "attachments", "lost", "doubled")
        ]
        lines.append(f"| {' | '.join(map(str, cells))} | {'passed' if day['passed'] else '**not passed**'} |")
    total = {name: sum(day[name] for day in days) for name in ("kills", "faults", "events", "attachments")}
    lost, doubled = sum(day["lost"] for day in days), sum(day["doubled"] for day in days)
    lines += [
        "",
        f"In all **{total['kills']:,} kills** and {total['faults']:,} other faults over "
        f"**{total['events']:,} events** and {total['attachments']:,} attachments: "
        f"**{lost} lost, {doubled} doubled**.",
    ]
    return "\n".join(lines) + "\n"
