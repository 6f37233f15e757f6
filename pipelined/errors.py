"""One tree of errors; every error says who must act (its category) and what it is (its code).

    PipelinedError
    ├── ConfigError            78  the configuration is wrong; nothing was started
    ├── UsageError             64  the command was called wrongly
    ├── UnavailableError       69  something needed to begin with cannot be reached or fetched
    ├── AlreadyRunningError    73  another daemon owns the state folder
    ├── FencedError            75  its identity was taken over, or given up by the brokers; restart
    ├── TableRestoredError      1  a table went back to an older version; restart to read on from there
    └── RecordError                one record could not be handled; its category routes it
        ├── TransientError         next retry tier, after the last one the DLQ
        ├── PermanentError         DLQ and a ``failed_permanent`` result at once
        ├── PoisonError            unreadable: DLQ with the original bytes
        ├── AuthError              our credentials were refused: the stage pauses, the record waits
        ├── DependencyError        something we rely on is down: the stage pauses, the record waits
        └── BugError               an unexpected exception of ours: DLQ after the configured attempts

The categories and what happens for each are the table of failures in docs/reference/failures.md. The
numbers are the exit codes of the commands (sysexits.h).
"""

from __future__ import annotations

import enum
from typing import ClassVar

__all__ = [
    "AlreadyRunningError",
    "AuthError",
    "BugError",
    "Category",
    "ConfigError",
    "DependencyError",
    "ExitCode",
    "FencedError",
    "PermanentError",
    "PipelinedError",
    "PoisonError",
    "RecordError",
    "TableRestoredError",
    "TransientError",
    "UnavailableError",
    "UsageError",
]


class ExitCode(enum.IntEnum):
    """What the exit code of a command or a worker tells its caller (sysexits.h where it has a word)."""

    OK = 0
    FAILED = 1
    USAGE = 64
    UNAVAILABLE = 69
    SOFTWARE = 70
    CANTCREAT = 73
    TEMPFAIL = 75
    CONFIG = 78
    DRAIN_TIMEOUT = 124
    INTERRUPTED = 130


class Category(enum.StrEnum):
    """Who must act on a failure, and so what the pipeline does with the record."""

    TRANSIENT = "transient"
    PERMANENT = "permanent"
    AUTH = "auth"
    DEPENDENCY_DOWN = "dependency_down"
    POISON = "poison"
    BUG = "bug"


class PipelinedError(Exception):
    """The root: an error of ours whose text says what happened, to what, and what to do next."""

    exit_code: ClassVar[ExitCode] = ExitCode.FAILED


class ConfigError(PipelinedError):
    """The configuration is wrong. Carries every problem found, not only the first."""

    exit_code = ExitCode.CONFIG

    def __init__(self, problems: list[str] | str) -> None:
        self.problems = [problems] if isinstance(problems, str) else problems
        super().__init__("\n".join(self.problems))


class UsageError(PipelinedError):
    """A command was called with arguments that do not fit together."""

    exit_code = ExitCode.USAGE


class UnavailableError(PipelinedError):
    """Something needed to begin with (a broker, a download, a port) could not be had."""

    exit_code = ExitCode.UNAVAILABLE


class AlreadyRunningError(PipelinedError):
    """Another daemon holds the lock of this state folder."""

    exit_code = ExitCode.CANTCREAT


class FencedError(PipelinedError):
    """The transactional id or group instance id of this process is not its own any more."""

    exit_code = ExitCode.TEMPFAIL


class TableRestoredError(PipelinedError):
    """A table was put back to an older version while it was written to; restart to read on from there."""


class RecordError(PipelinedError):
    """One record could not be handled. ``code`` is a stable word for logs, headers and metrics.

    ``retry_after``, in seconds, is the least time to wait before the next attempt where the other
    side said so; 0 asks for the next attempt at once. ``http_status`` is what the other side answered.
    ``attempted`` is False where nothing was tried, so that no attempt is used up.
    """

    category: ClassVar[Category]

    def __init__(
        self,
        code: str,
        message: str,
        *,
        http_status: int | None = None,
        retry_after: float | None = None,
        attempted: bool = True,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.http_status = http_status
        self.retry_after = retry_after
        self.attempted = attempted


class TransientError(RecordError):
    """It may work later: the record goes to the next retry tier."""

    category = Category.TRANSIENT


class PermanentError(RecordError):
    """It will never work: the record goes to the DLQ at once."""

    category = Category.PERMANENT


class PoisonError(RecordError):
    """The message cannot be read or is invalid: it goes to the DLQ with its original bytes."""

    category = Category.POISON


class AuthError(RecordError):
    """Our own credentials were refused: the stage pauses and says so; the record waits."""

    category = Category.AUTH


class DependencyError(RecordError):
    """Something this stage relies on is down or full: the stage pauses; the record waits."""

    category = Category.DEPENDENCY_DOWN


class BugError(RecordError):
    """An exception nobody expected. The traceback is in the log; the record ends in the DLQ."""

    category = Category.BUG
