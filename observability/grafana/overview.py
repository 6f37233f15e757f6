"""The dashboard of the whole pipeline."""

from __future__ import annotations

from observability.grafana.panels import Panel, Query, Row, all_of, dashboard, one, quantiles, rate

__all__ = ["overview"]

_HEALTH = Row(
    "Health",
    (
        Panel(
            "Workers that are down",
            "Processes in BACKOFF, EXITED or FATAL.",
            "short",
            one('sum(pipelined_worker_state{$of,state=~"BACKOFF|EXITED|FATAL"})', "down"),
            kind="stat",
            width=4,
            height=4,
            steps=(1, 2),
            runbook="WorkerDown",
        ),
        Panel(
            "Not ready",
            "Processes that run and do not have all they need.",
            "short",
            one(
                f"sum({all_of('worker_ready')} == bool 0 and on (instance, worker, index)"
                ' pipelined_worker_state{$of,state="RUNNING"} == 1) or vector(0)',
                "not ready",
            ),
            kind="stat",
            width=4,
            height=4,
            steps=(1, 2),
            runbook="WorkerNotReady",
        ),
        Panel(
            "Paused",
            "Workers that wait because something they rely on is down, full or refuses them.",
            "short",
            one(f"sum({all_of('paused')})", "paused"),
            kind="stat",
            width=4,
            height=4,
            steps=(1, 2),
            runbook="WorkerPaused",
        ),
        Panel(
            "DLQ breakers open",
            "Workers that take nothing more because too much became dead letters.",
            "short",
            one(f"sum({all_of('dlq_breaker_open')})", "open"),
            kind="stat",
            width=4,
            height=4,
            steps=(1, 1),
            runbook="DlqBreakerOpen",
        ),
        Panel(
            "Lost to retention",
            "Records of the last day that were deleted before they were read.",
            "short",
            one("sum(increase(pipelined_records_expired_total{$of}[1d]))", "expired"),
            kind="stat",
            width=4,
            height=4,
            steps=(1, 1),
            runbook="RecordsExpired",
        ),
        Panel(
            "Restarts",
            "Restarts after a crash, within the last day.",
            "short",
            one("sum(increase(pipelined_worker_restarts_total{$of}[1d]))", "restarts"),
            kind="stat",
            width=4,
            height=4,
            steps=(5, 20),
            runbook="WorkerRestarts",
        ),
    ),
)

_FLOW = Row(
    "Flow",
    (
        Panel(
            "Records",
            "Records a second whose outcome was committed, by worker.",
            "rows/sec",
            one(rate("records_done_total", "worker"), "{{worker}}"),
        ),
        Panel(
            "What became of them",
            "By outcome: done, retried, dead, duplicate, moved.",
            "rows/sec",
            one(rate("records_done_total", "outcome"), "{{outcome}}"),
            stacked=True,
        ),
        Panel(
            "Lag",
            "Records that wait on the input topics; for the retry-scheduler: tasks that wait for their time.",
            "short",
            one(f"sum by (worker) ({all_of('consumer_lag_records')})", "{{worker}}"),
            runbook="LagGrows",
        ),
        Panel(
            "Time through a stage, p95",
            "From a record's arrival on its input topic to the commit of its outcome.",
            "s",
            quantiles("record_age_seconds", 0.95),
            runbook="RecordsSlow",
        ),
        Panel(
            "Failures",
            "Attempts that failed, by category.",
            "ops",
            one(rate("failures_total", "category"), "{{category}}"),
            runbook="UnexpectedErrors",
        ),
        Panel(
            "Dead letters",
            "Records sent to a dead-letter topic.",
            "ops",
            one(rate("dead_letters_total", "worker, category"), "{{worker}} {{category}}"),
            runbook="DeadLettersMany",
        ),
        Panel(
            "In flight",
            "Records taken and not yet committed.",
            "short",
            one(f"sum by (worker) ({all_of('in_flight_records')})", "{{worker}}"),
        ),
        Panel(
            "Where the time goes",
            "Shares of the workers' loops: work, commits, pauses; the rest is idle.",
            "percentunit",
            one(
                rate("loop_milliseconds_total", "worker, state", 'state!="idle"') + " / 1000",
                "{{worker}} {{state}}",
            ),
        ),
        Panel(
            "Since the last progress",
            "Time since a worker last committed something, or had nothing to do.",
            "s",
            one(f"time() - max by (worker) ({all_of('last_progress_timestamp_seconds')} > 0)", "{{worker}}"),
            runbook="WorkerStandsStill",
        ),
    ),
)

_FILES = Row(
    "Files",
    (
        Panel(
            "Bytes",
            "Bytes of files downloaded and uploaded, and committed.",
            "Bps",
            one(rate("file_bytes_total", "worker"), "{{worker}}"),
        ),
        Panel(
            "Retries",
            "Records sent to a retry topic, or back for another attempt.",
            "ops",
            one(rate("retries_total", "worker"), "{{worker}}"),
        ),
        Panel(
            "Hosts left alone, records put off, attachments refused",
            "Hosts whose breaker is open; records that were too slow; attachments refused at ingest.",
            "short",
            (
                Query(f"sum({all_of('open_hosts')})", "hosts left alone"),
                Query("sum(increase(pipelined_records_stuck_total{$of}[1h]))", "put off, of an hour"),
                Query("sum(increase(pipelined_attachments_rejected_total{$of}[1h]))", "refused, of an hour"),
            ),
            runbook="HostsLeftAlone",
        ),
    ),
)

_KAFKA = Row(
    "Kafka and tables",
    (
        Panel(
            "Time of a commit, p95",
            "A Kafka transaction, or a Delta commit with its fsync.",
            "s",
            quantiles("commit_seconds", 0.95),
        ),
        Panel(
            "Aborted transactions and rebalances",
            "Each aborted transaction is tried again. Rebalances come with starts and stops.",
            "ops",
            (
                Query(rate("transactions_total", "worker", 'result="aborted"'), "{{worker}} aborted"),
                Query(rate("rebalances_total", "worker, event"), "{{worker}} {{event}}"),
            ),
            runbook="TransactionsAbort",
        ),
        Panel(
            "Partitions held",
            "Input partitions that the workers of a type hold, on all hosts.",
            "short",
            one(f"sum by (worker) ({all_of('assigned_partitions')})", "{{worker}}"),
            runbook="NobodyWorks",
        ),
        Panel(
            "Table commits",
            "Delta commits, by result.",
            "ops",
            one(
                rate("table_commits_total", "worker, result", 'worker=~"event-writer|result-processor"'),
                "{{worker}} {{result}}",
            ),
            runbook="TableCommitsFail",
        ),
        Panel(
            "Since the last maintenance",
            "Of the table that has waited longest.",
            "s",
            one(
                "time() - max(pipelined_table_maintenance_timestamp_seconds"
                '{$of,worker="table-maintenance"} > 0)',
                "since",
            ),
            kind="stat",
            steps=(129600, 172800),
            runbook="MaintenanceStale",
        ),
        Panel(
            "Disk that is free",
            "The share of each folder's disk that may still be written.",
            "percentunit",
            one(f"{all_of('disk_free_bytes')} / {all_of('disk_size_bytes')}", "{{folder}} {{instance}}"),
            runbook="DiskFillsUp",
        ),
    ),
)


def overview() -> str:
    """The dashboard, as JSON."""
    return dashboard(
        "pipelined: overview",
        "pipelined-overview",
        "From events to files and tables: whether it works, how fast, and what becomes of the records.",
        (_HEALTH, _FLOW, _FILES, _KAFKA),
    )
