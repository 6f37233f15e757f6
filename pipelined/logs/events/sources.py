"""Log events of the sources and of their logins."""

from __future__ import annotations

from pipelined.logs.events.event import Event

__all__ = ["EVENTS"]

EVENTS = (
    Event("login.done", "logged in (%s); the token lives for %d minutes", "A token was got or renewed."),
    Event(
        "login.renewal_failed",
        "the token of %s could not be renewed; the present one lives for %d more minutes: %s",
        "Logging in again failed; it is tried again until the present token ends.",
        "See [the errors of logins](../how-to/login.md#errors); mend it before the token ends.",
    ),
    Event(
        "login.broke",
        "the login of %s failed unexpectedly",
        "A bug in the login; it is tried again.",
        "Report it with the traceback.",
    ),
    Event("source.reads", "reads %s %s", "The source works, from the position that is said."),
    Event(
        "source.failed",
        "tried again in %.1f s: %s",
        "The source could not be read; `code` says why. Its position stays.",
        "See [the sources](../how-to/sources.md) and [the runbook](../runbooks/SourceCannotBeRead.md).",
    ),
    Event(
        "source.unexpected",
        "unexpected error of the source %s",
        "A bug; the source is tried again.",
        "Report it with the traceback.",
    ),
    Event(
        "source.turn_ends",
        "its turn ends: %s",
        "This host gives the source up to another one, or to itself a little later.",
        "Nothing, unless it happens again and again: then see the brokers.",
    ),
    Event(
        "source.held_back",
        "%s: %s is %d records behind",
        "Whether the source waits for the stages after it.",
    ),
    Event(
        "source.lag_unknown",
        "%s; meanwhile the source %s",
        "How far the stages are behind cannot be asked.",
        "See whether the brokers answer.",
    ),
    Event(
        "source.batch_aborted",
        "%s; trying again",
        "A transaction of loaded events was aborted; the lines are sent again, each once.",
        "See [the runbook](../runbooks/TransactionsAbort.md) where it goes on.",
    ),
    Event(
        "eventhouse.page_size",
        "pages of %d rows from now on: %s",
        "Pages are smaller or larger, and why.",
    ),
    Event(
        "eventhouse.by_time",
        "what is read by ingestion time instead of by cursors, and why",
        "The table does not tell how far it was read; it is read by the time at which rows came in.",
        "See [the runbook](../runbooks/SourceFallback.md).",
    ),
    Event(
        "eventhouse.unstamped",
        "%d rows of the table %s have no ingestion time: they are never read",
        "They came into the table before its policy was turned on.",
        "Load them by `pipelinectl load` if they are wanted.",
    ),
    Event(
        "eventhouse.overlap_full",
        "more than %d rows came within eventhouse.overlap_seconds: those behind them are read when that "
        "time has passed",
        "Read by time, more rows are new than can be remembered; the others are read later.",
        "Nothing, if it is rare; see [the runbook](../runbooks/SourceFallback.md).",
    ),
    Event("hub.reads", "reading the Event Hub %s: %s", "From which offset each partition is read."),
    Event(
        "hub.partitions_added",
        "the Event Hub %s has more partitions: %s",
        "They are read from their start.",
    ),
    Event(
        "hub.expired",
        "%d offsets of partition %d of the Event Hub %s, from %d on, were removed by its retention "
        "before they were read: what they held is lost to the pipeline. Load it from elsewhere, keep "
        "events in the hub for longer, and see why the reader lagged",
        "Events are gone that nobody read.",
        "See [the runbook](../runbooks/SourceLostEvents.md).",
    ),
    Event(
        "hub.reconnects",
        "%s: connecting anew",
        "The connection cannot be used any more; `code` says why.",
        "See [the runbook](../runbooks/SourceReconnects.md) where it goes on.",
    ),
    Event(
        "hub.stalled",
        "events wait in a partition of the Event Hub %s, and none has come for %.0f s: connecting anew",
        "The connection looked alive and brought nothing.",
        "See [the runbook](../runbooks/SourceReconnects.md) where it goes on.",
    ),
    Event(
        "hub.error",
        "the Event Hub %s: %s",
        "The client reports an error that it retries by itself; `code` has Kafka's name for it.",
        "Nothing while it is rare.",
    ),
    Event(
        "hub.throttled",
        "the Event Hub %s throttles: it answered %.1f s late; it has fewer throughput units than it takes",
        "Azure slows the reader down.",
        "Give the namespace more throughput units; see [the runbook](../runbooks/SourceThrottled.md).",
    ),
    Event(
        "hub.progress_untold",
        "the group %s cannot be told how far it is: %s; its lag tools are behind, and nothing else",
        "The offsets that Azure shows are old; ours travel with the events.",
        "Nothing, or give the login the right to commit offsets.",
    ),
)
