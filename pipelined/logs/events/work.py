"""Log events of the workers: taking part in a group, the work on records, transactions, pauses."""

from __future__ import annotations

from pipelined.logs.events.event import Event

__all__ = ["EVENTS"]

EVENTS = (
    Event("worker.ready", "ready", "The worker has all it needs and works."),
    Event(
        "worker.drained",
        "drained: %d records are left for the next owner",
        "Told to stop, it has committed what it could; the others are read again by whoever comes next.",
    ),
    Event(
        "worker.drained_unstored",
        "%d records could not be stored before the stop; they are read again",
        "The store did not take them within the drain. Nothing is lost.",
        "Nothing; give it more time (`workers.*.drain_s`) where it is often so.",
    ),
    Event(
        "group.assigned",
        "partitions assigned: %s",
        "The partitions that the worker has now, and from where.",
    ),
    Event("group.revoked", "partitions given up: %s", "Others have these partitions now."),
    Event("group.left", "left the group %s", "Stopped for good: others have the partitions at once."),
    Event(
        "group.left_surplus",
        "fewer processes than before: left the groups as %s",
        "The configuration has fewer processes than at the last start; their partitions are free at once.",
    ),
    Event(
        "group.not_left",
        "stopped, but %s",
        "The group could not be told; its partitions wait until the session times out.",
        "Nothing, or `pipelinectl members` with --remove where it must be sooner.",
    ),
    Event(
        "group.lost",
        "partitions lost: this worker was silent for longer than the session timeout; what was in hand "
        "is dropped, the new owner does it",
        "The brokers took the worker for dead. Nothing is lost or doubled.",
        "Where it happens again: the machine is short of CPU or memory, or the network broke. See [the "
        "runbook](../runbooks/RebalanceStorm.md).",
    ),
    Event(
        "group.leave_failed",
        "while leaving the group",
        "An error came while the consumer was closed; the group finds out by the session timeout.",
        "Nothing, unless it is an unexpected error with a traceback: report that.",
    ),
    Event(
        "kafka.consumer_error",
        "consumer of %s: %s",
        "The client reports an error that it retries by itself; `code` has Kafka's name for it.",
        "Nothing while it is rare. Else see whether the brokers are up and the credentials right.",
    ),
    Event(
        "kafka.waiting",
        "waiting for Kafka: %s",
        "The brokers do not answer, or not as they should. The worker waits and tries again.",
        "See whether the brokers of `kafka.bootstrap` are up, reachable and in the state that is named.",
    ),
    Event("kafka.limits_unknown", "the brokers do not tell their limits: %s", "They are not checked, then."),
    Event("turn.begun", "it is this host's turn", "Of several hosts, this one does that work now."),
    Event("turn.waiting", "stands by: another host does this work", "It takes over when that one is gone."),
    Event(
        "turn.ended_late",
        "the turn is over, but %s",
        "Another host may have begun already; what both do is refused for one of them by Kafka and the "
        "table.",
        "Nothing.",
    ),
    Event(
        "turn.overtaken",
        "another host takes the work of %s over before it has ended here",
        "This host was silent for too long. Its transactions are refused from now on.",
        "Where it happens again: look at CPU, memory and network of this host.",
    ),
    Event(
        "commit.aborted",
        "%s; the batch of %d records is tried again",
        "The transaction could not be committed. Nothing is lost or doubled.",
        "See [the runbook](../runbooks/TransactionsAbort.md) where it goes on.",
    ),
    Event(
        "record.stuck",
        "%s/%d@%d has been in hand for more than %g s; it is put off",
        "A record held up its partition; it goes to a retry topic, so that the others go on.",
        "See [the runbook](../runbooks/RecordsStuck.md) where it happens often.",
    ),
    Event(
        "record.unexpected",
        "unexpected error at %s/%d@%d",
        "A bug: the record goes to the DLQ as category `bug`, its bytes whole.",
        "Report it with the traceback; afterwards [take it from the DLQ](../how-to/dead-letters.md).",
    ),
    Event(
        "record.unreadable",
        "unreadable record at %s/%d@%d goes to the DLQ: %s",
        "What is in the topic is not what a worker of ours puts there.",
        "See who else writes to that topic; [the record is in the DLQ](../how-to/dead-letters.md).",
    ),
    Event(
        "pause.begun",
        "paused for %.1f s, nothing is lost: %s",
        "Something that all records need is down, full, or refuses the credentials; `code` says what. "
        "ERROR the first time, WARNING when it goes on.",
        "Mend what it names; see [the failures](failures.md). The work goes on by itself.",
    ),
    Event("pause.ended", "working again after a pause", "What the pause was for is over."),
    Event(
        "breaker.open",
        "DLQ breaker: %d of the last %d records of %s/%d were dead letters, %d in a row; nothing more is "
        "taken. Look into the DLQ, mend the cause, then restart this worker",
        "So many dead letters have one cause, and going on would empty the topic into the DLQ.",
        "See [the runbook](../runbooks/DlqBreakerOpen.md).",
    ),
    Event(
        "offsets.topic_made_anew",
        "the topic of %s was deleted and made anew since %s last committed: the offset %d means nothing "
        "in it, and it is read from its beginning (%d)",
        "What stood in the old topic and was not read is gone.",
        "See who deleted it; `pipelinectl ledger` tells what is missing.",
    ),
    Event(
        "offsets.foreign_commit",
        "the commit of %s for %s has no note of ours (%s); going on at its offset, %d: what lies before "
        "counts as done, and if it was moved back, what follows is done again",
        "Another program, or a person, set the offset of this group.",
        "Nothing if that was meant; else `pipelinectl ledger` tells what is missing.",
    ),
    Event(
        "offsets.expired",
        "%d offsets of %s, from %d on, were removed by retention before %s had read them: what they held "
        "is lost to it. Keep the topic longer (topics.*.retention_hours), and see why the group lagged",
        "Records were deleted by the brokers unread.",
        "See [the runbook](../runbooks/RecordsExpired.md).",
    ),
    Event(
        "offsets.expired_unstored",
        "%d offsets of %s, from %d on, were removed by retention before they were stored in %s. Keep the "
        "topic longer (topics.*.retention_hours), and load the events of that time again",
        "Records were deleted by the brokers before they were in the table.",
        "See [the runbook](../runbooks/RecordsExpired.md).",
    ),
    Event(
        "dedup.read_back",
        "%d trace ids of the last %g hours read back from %d partitions in %.2f s",
        "The worker knows again which events were taken already.",
    ),
    Event(
        "dedup.read_back_grown",
        "%d trace ids of all partitions of %s read back in %.2f s: it was grown to %d partitions at %s",
        "Since the topic has more partitions, duplicates are looked for in all of them for a while.",
    ),
    Event(
        "dedup.history_cut",
        "partitions %s of %s begin within the horizon: what they held before was deleted. An event taken "
        "then is taken again when it comes again now; `pipelinectl tables check` finds it. Keep the "
        "topic (topics.events_ingested.retention_hours) for longer than the horizon "
        "(ingest.dedup_horizon_hours) and the longest stop together",
        "Duplicates of what was deleted are not recognised.",
        "Raise the retention as said.",
    ),
    Event("endpoint.listening", "listening on http://%s:%d/", "Metrics, health and status are served there."),
    Event("endpoint.request_failed", "request from %s failed: %s", "The peer hung up, or sent nonsense."),
    Event("endpoint.request", "METHOD PATH STATUS", "One HTTP request."),
    Event(
        "source.told_late",
        "the source could not be told of a committed page: %s",
        "A page is committed, but the source does not know; its own view of the progress is behind.",
        "Nothing: it is told of the next page.",
    ),
    Event(
        "source.tell_failed",
        "the source could not be told of a committed page",
        "A bug while the source was told of the progress; nothing is lost.",
        "Report it with the traceback.",
    ),
    Event(
        "source.close_failed",
        "the source could not be closed",
        "A bug while the connection to the source was closed.",
        "Report it with the traceback.",
    ),
)
