"""Log events of files and tables."""

from __future__ import annotations

from pipelined.logs.events.event import Event

__all__ = ["EVENTS"]

EVENTS = (
    Event("cache.swept", "swept the cache folder", "Files that nobody needs any more were removed."),
    Event(
        "cache.not_swept",
        "the cache folder cannot be swept",
        "Old files stay; `error` says why.",
        "See that the daemon's user may read and write `cache_dir`.",
    ),
    Event(
        "cache.not_removed",
        "a cached file cannot be removed",
        "It is stored, and its copy stays in the cache until it is swept; `error` says why.",
        "See that the daemon's user may write to `cache_dir`.",
    ),
    Event(
        "cache.foreign_file",
        "a file to remove does not lie in the cache folder; it is left alone",
        "A record names a path elsewhere: `cache_dir` was changed, or somebody else wrote it.",
        "Nothing if `cache_dir` was changed; else see who writes to the topic.",
    ),
    Event(
        "cache.emptied",
        "somebody emptied the cache folder while files were being written; they are fetched again. Leave "
        "it to pipelined, which sweeps it of what nobody needs",
        "The folder, or folders in it, vanished.",
        "See who removes files in `cache_dir`: a tmpfiles rule, a cron job, a person.",
    ),
    Event(
        "cache.missing",
        "%d cached files are not here: another host fetched them, or the cache folder was emptied; they "
        "are fetched again",
        "Nothing is lost, only done again.",
        "Nothing while it is rare.",
    ),
    Event(
        "store.place_failed",
        "placing files failed unexpectedly",
        "A bug while files were made durable; their records are tried again.",
        "Report it with the traceback.",
    ),
    Event("table.created", "created the table %s", "It was not there."),
    Event(
        "table.commit_unsure",
        "a commit to %s failed; looking whether it happened all the same: %s",
        "The store's answer does not tell whether the commit is there. That is looked up before the next "
        "try.",
        "Nothing while it is rare; see [the runbook](../runbooks/TableCommitsFail.md).",
    ),
    Event(
        "table.restored",
        "%s was restored to version %d, in version %d; its positions are those of then",
        "Somebody restored the table; what came since is stored again, as far as the topics have it.",
        "See that it was meant.",
    ),
    Event(
        "table.log_gap",
        "the log of %s no longer has the versions %d to %d; if it was restored to an older version in "
        "one of them, rows may be missing: `pipelinectl ledger` tells",
        "The table's log was cleaned further than this worker had looked.",
        "Hold the books: `pipelinectl ledger`.",
    ),
    Event(
        "table.went_back",
        "%s holds %s up to offset %d, but had it up to %d: it was restored to an older version, or is "
        "another table. What lies between is stored again, as far as the topic still has it",
        "The table has less than was committed to it.",
        "See that it was meant; `pipelinectl ledger` tells what is missing.",
    ),
    Event(
        "maintenance.done",
        "maintained %s: %d files compacted, %d removed with %d bytes",
        "As the schedule has it.",
    ),
    Event(
        "maintenance.failed",
        "maintenance failed, and is tried again at the next look: %s",
        "The table works without it, slower with time.",
        "See [the runbook](../runbooks/MaintenanceStale.md).",
    ),
    Event(
        "maintenance.elsewhere",
        "%s is being compacted by another process; left to it",
        "One does it at a time.",
    ),
    Event(
        "maintenance.second",
        "compaction of %s, %s came second: %s",
        "Others changed the files first; nothing is lost.",
    ),
)
