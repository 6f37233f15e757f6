"""The dashboard of what brings events in."""

from __future__ import annotations

from observability.grafana.panels import Panel, Query, Row, all_of, dashboard, one, quantiles, rate

__all__ = ["sources"]

_BY_WORKER = "{{worker}} {{instance}}"
_WORKERS = 'worker=~"eventhouse-poller|eventhub-reader"'

_POSITION = Row(
    "Position",
    (
        Panel(
            "Position",
            "What came to the source until then is taken. A host that stands by has none.",
            "dateTimeFromNow",
            one(
                f"max by (worker) ({all_of('source_position_timestamp_seconds', _WORKERS)} > 0) * 1000",
                "{{worker}}",
            ),
            kind="stat",
            width=6,
            runbook="SourceUnread",
        ),
        Panel(
            "State",
            "1 for each of: rows wait, held back, fallback in use, an operator is needed.",
            "short",
            (
                Query(f"max by (worker) ({all_of('source_waiting', _WORKERS)})", "{{worker}} rows wait"),
                Query(f"max by (worker) ({all_of('source_held', _WORKERS)})", "{{worker}} held back"),
                Query(f"max by (worker) ({all_of('source_fallback', _WORKERS)})", "{{worker}} fallback"),
                Query(
                    f"max by (worker) ({all_of('source_refused', _WORKERS)})", "{{worker}} needs an operator"
                ),
            ),
            kind="stat",
            width=12,
            steps=(1, 2),
            runbook="SourceNeedsDecision",
        ),
        Panel(
            "Login ends",
            "When the present token ends; it is renewed well before. None: no token is used.",
            "dateTimeFromNow",
            one(
                f"max by (worker) ({all_of('source_token_expiry_timestamp_seconds', _WORKERS)} > 0) * 1000",
                "{{worker}}",
            ),
            kind="stat",
            width=6,
            runbook="SourceTokenEnds",
        ),
        Panel(
            "Delay",
            "How far the position lies behind the source's own clock.",
            "s",
            one(all_of("source_delay_seconds", _WORKERS) + " > 0", _BY_WORKER),
            width=12,
            steps=(300, 600),
            runbook="SourceFallsBehind",
        ),
        Panel(
            "Rows",
            "Rows a second that were brought to events.raw, and committed.",
            "rows/sec",
            one(rate("records_out_total", "worker", _WORKERS), "{{worker}}"),
            width=12,
            runbook="SourceStandsStill",
        ),
    ),
)

_REQUESTS = Row(
    "Requests",
    (
        Panel(
            "Time of a query",
            "Time of one request to the source, as the worker sees it.",
            "s",
            quantiles("source_query_seconds", 0.5, 0.95, only=_WORKERS),
            runbook="SourceCannotBeRead",
        ),
        Panel(
            "Polls",
            "What came of asking for a page. Many empty ones: the source is quiet.",
            "reqps",
            one(rate("source_polls_total", "worker, result", _WORKERS), "{{worker}} {{result}}"),
            runbook="SourceQuiet",
        ),
        Panel(
            "Rows of a page",
            "Rows in one committed page.",
            "short",
            quantiles("commit_records", 0.5, 0.95, only=_WORKERS),
        ),
        Panel(
            "Errors",
            "Requests that failed, by category: auth is ours to mend, transient the service's.",
            "reqps",
            one(rate("failures_total", "worker, category", _WORKERS), "{{worker}} {{category}}"),
            runbook="SourceLoginRefused",
        ),
        Panel(
            "Throttled",
            "Requests that the source refused because there were too many.",
            "reqps",
            one(rate("source_throttled_total", "worker", _WORKERS), "{{worker}}"),
            runbook="SourceThrottled",
        ),
        Panel(
            "Pages shortened",
            "Pages that a limit cut, and that were asked for again, smaller.",
            "reqps",
            one(rate("source_pages_shortened_total", "worker", _WORKERS), "{{worker}}"),
            runbook="SourcePagesShortened",
        ),
        Panel(
            "Lost, and connected anew",
            "Of an hour: events removed at the source before they were read; connections made anew.",
            "short",
            (
                Query(f"increase({all_of('source_events_lost_total', _WORKERS)}[1h])", "{{worker}} lost"),
                Query(f"increase({all_of('source_reconnects_total', _WORKERS)}[1h])", "{{worker}} anew"),
            ),
            width=12,
            runbook="SourceLostEvents",
        ),
        Panel(
            "Held back by",
            "The lag that decides whether the source is held: that of the slowest stage that counts.",
            "short",
            one(f"max by (worker) ({all_of('source_stages_lag_records', _WORKERS)})", "{{worker}}"),
            width=12,
            runbook="SourceHeldBack",
        ),
    ),
)

_BOTH = Row(
    "What each source brings",
    (
        Panel(
            "Seen",
            "Events that the ingester judged, by the source that brought them.",
            "rows/sec",
            one(rate("source_events_seen_total", "source"), "{{source}}"),
            stacked=True,
        ),
        Panel(
            "First",
            "Events that a source brought first: those that go on.",
            "rows/sec",
            one(rate("source_events_first_total", "source"), "{{source}}"),
            stacked=True,
        ),
        Panel(
            "Duplicates",
            "Events that were known already when a source brought them. They are dropped.",
            "rows/sec",
            one(rate("source_events_duplicate_total", "source"), "{{source}}"),
            stacked=True,
            runbook="SourceRepeats",
        ),
        Panel(
            "Only here so far",
            "Of what a source brought first since the daemons started: what no other source has brought yet.",
            "short",
            one(
                f"sum by (source) ({all_of('source_events_first_total')})"
                f" - sum by (source) ({all_of('source_events_matched_total')})",
                "{{source}}",
            ),
            width=12,
            runbook="SourcesDisagree",
        ),
        Panel(
            "Only here, of six hours",
            "The same for what came within six hours: 0 where both sources bring everything.",
            "short",
            one('pipelined:source_events_only_here:increase6h{job=~"$job"}', "{{source}}"),
            width=12,
            runbook="SourcesDisagree",
        ),
    ),
)


def sources() -> str:
    """The dashboard, as JSON."""
    return dashboard(
        "pipelined: sources",
        "pipelined-sources",
        "Eventhouse and Event Hub: how far they are read, how well, and what each brings.",
        (_POSITION, _REQUESTS, _BOTH),
    )
