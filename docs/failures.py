"""The page of the reference about failures: categories, exit codes, headers, codes."""

from __future__ import annotations

import msgspec

from docs.codes import codes
from docs.markdown import code, first_sentences, page, table
from pipelined.errors import Category, ExitCode, PermanentError, PipelinedError, RecordError, TransientError
from pipelined.messages.task import DownloadTask
from pipelined.stages.contract import Output, Partition, Record
from pipelined.stages.failures import Envelope, retry
from pipelined.stats.status import exit_in_words

__all__ = ["failures"]

_INTRO = """\
Every failure has a category that says who must act, and a code that says what it was. The category alone
decides where the record goes (`pipelined/workers/routing.py`)."""

#: The tree; what other modules derive for themselves never gets as far as a user.
_ERRORS = RecordError.__module__
_WHAT_HAPPENS = {
    Category.TRANSIENT: """The next retry topic; after `retry.max_attempts` more attempts the DLQ, and a
    `failed` result. A server's `Retry-After` chooses a tier that is long enough; a longer one is waited for
    in the last tier. A task that was not tried, because its host's breaker is open or its cached file is not
    here, uses up no attempt, up to 20 times; one whose host is busy with others any number of times.""",
    Category.PERMANENT: "The DLQ and a `failed_permanent` result, at once.",
    Category.AUTH: """The stage pauses, says so in the log and in `pipelinectl status`, and tries again with
    the credentials read anew; the records wait.""",
    Category.DEPENDENCY_DOWN: "The stage pauses and tries again; the records wait, and none goes to the DLQ.",
    Category.POISON: "The DLQ with the original bytes: for an event `events.dlq`, else `downloads.dlq`.",
    Category.BUG: """Tried `retry.bug_attempts` times in all; then the DLQ, and a `failed` result where the
    task is known. The traceback is in the log.""",
}

_PAUSES = """\
A pause begins at `retry.pause_s` and doubles, up to 60 seconds, while the cause lasts.

The DLQ breaker stops a worker from taking more when `breaker.dlq_run` records of one partition in a row, or
more than `breaker.dlq_share` of the last `breaker.dlq_window`, were dead letters. It stays stopped until it
is restarted."""

_EXITS = """\
Of commands, of the daemon and of its workers. A process killed by signal n: 128 + n. The `--help` of each
command says which of them it has. What was asked for is on the standard output; what went wrong, and any
warning, on the standard error stream."""

#: What a code says when a command of pipelinectl ends with it.
_OF_COMMANDS = {
    ExitCode.OK: """Done. `status`: it is running or starting; `status --wait-for`: it is so; `stop`: also
    where nothing ran; `--watch`, `--follow`: ended by Ctrl-C.""",
    ExitCode.FAILED: """Not done, or in part; what and why is told. `status`: it is degraded or stopping;
    `start`, `reload`: some worker does not come up; `ledger`: it does not balance; checks: they found
    something.""",
    ExitCode.USAGE: "The arguments do not fit together, or the daemon refused the request.",
    ExitCode.UNAVAILABLE: """No daemon answers: none runs, it hangs, or it is of another version, and which;
    or the brokers, the tables, the store cannot be reached.""",
    ExitCode.SOFTWARE: "A bug of ours; its traceback is told.",
    ExitCode.CANTCREAT: "`start`: the daemon runs already.",
    ExitCode.CONFIG: """The configuration or the topics are wrong; nothing was done. `status` and `stop`
    work all the same, where it can be told which daemon is meant.""",
    ExitCode.DRAIN_TIMEOUT: "Not over within `--timeout`; what was asked for goes on.",
    ExitCode.INTERRUPTED: "Ctrl-C.",
}

_LETTER = """\
The value of a dead letter is the original bytes. One exception: an attachment that the ingester refuses, of
an event that it takes, has its download task there."""

_HEADERS = {
    "trace_id": "the event's trace id, where it is known",
    "source": "where the event came from: `local` for a file",
    "first_failed_at": "when the task first failed",
    "attempt": "attempts behind it",
    "not_before": "when it is due, in ms since the epoch",
    "dlq_stage": "the worker type that gave it up",
    "dlq_group": "its consumer group",
    "dlq_host": "its host and process id",
    "dlq_version": "the version of pipelined",
    "dlq_origin_topic": "the topic of the record that failed",
    "dlq_origin_partition": "its partition",
    "dlq_origin_offset": "its offset",
    "dlq_origin_timestamp": "its arrival",
    "dlq_category": "the category, as above",
    "dlq_code": "the code, as below",
    "dlq_error_type": "the exception's type",
    "dlq_message": "what happened, up to 1024 characters",
    "dlq_fingerprint": "the same for the same stage, category and code: to group by",
    "dlq_failed_at": "when it was given up",
    "dlq_http_status": "what the other side answered, where it did",
    "attachment_id": "the attachment, where it is one",
    "dlq_attempt": "attempts before the last, where it is an attachment",
}

_CODES = """\
`…` stands for what varies. The code is in the log (`code`), in the headers of a dead letter (`dlq_code`) and
in the metadata of a retried task (`error_code`)."""


def failures() -> str:
    """Categories, exit codes, headers and codes."""
    errors = {error.category: error for error in RecordError.__subclasses__()}
    letter, retried = _samples()
    return page(
        "Failures",
        "`pipelined/errors.py`, `pipelined/stages/failures.py` and the code that raises,",
        _INTRO,
        "## Categories",
        table(
            ["category", "meaning", "what happens to the record"],
            ([code(each), first_sentences(errors[each]), _WHAT_HAPPENS[each]] for each in Category),
        ),
        _PAUSES,
        "## Exit codes",
        _EXITS,
        table(
            ["code", "meaning", "of a command", "raised as"],
            (
                [
                    int(each),
                    exit_in_words(each).partition(": ")[2],
                    _OF_COMMANDS.get(each, ""),
                    _raised_as(each),
                ]
                for each in ExitCode
            ),
        ),
        "## Headers of a dead letter",
        _LETTER,
        _headers(letter),
        "## Headers of a task in a retry topic",
        _headers(retried),
        "## Codes",
        _CODES,
        table(
            ["category", "code", "says"], ([each.category, code(each.code), each.message] for each in codes())
        ),
    )


def _raised_as(exit_code: ExitCode) -> str:
    raising = (
        error
        for error in PipelinedError.__subclasses__()
        if error.exit_code is exit_code and error is not RecordError and error.__module__ == _ERRORS
    )
    return ", ".join(f"`{error.__name__}`: {first_sentences(error)}" for error in raising)


def _samples() -> tuple[Output, Output]:
    """A dead letter and a retry of a task, with all that is ever known of one."""
    fields = {field.name: "" for field in msgspec.structs.fields(DownloadTask) if field.required}
    task = msgspec.convert(fields, DownloadTask)
    place = Partition("downloads.pending", 0)
    known: list[tuple[str, str | bytes | None]] = [("trace_id", b"t"), ("source", b"local")]
    refused = PermanentError("http_404", "", http_status=404)
    first = Record(place, 0, b"", b"{}", known, 1)
    again = Record(place, 0, b"", b"{}", [*known, ("first_failed_at", b"")], 1)
    letter = Envelope("download", "", "").dead_letter("downloads_dlq", again, refused, task)
    return letter, retry(first, task, TransientError("timeout", ""), 0, 1.0)


def _headers(output: Output) -> str:
    return table(["header", "holds"], ([code(name), _HEADERS[name]] for name, _ in output.headers))
