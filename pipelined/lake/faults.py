"""Which of our errors a failure of the table layer is: who must act on it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from deltalake.exceptions import CommitFailedError

from pipelined.errors import AuthError, DependencyError, PipelinedError, RecordError
from pipelined.logs.masking import mask

__all__ = ["classified", "classify", "is_conflict", "is_unauthenticated", "plain"]

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_FULL = ("no space left on device", "(os error 28)", "(os error 122)", "disk quota exceeded", "quotaexceeded")
_REFUSED = (
    "lacked the necessary privileges",
    "lacked valid authentication credentials",
    "unauthenticated",
    "unauthorized",
    "forbidden",
    "permission denied",
    "permissiondenied",
    "access denied",
    "accessdenied",
    "authenticationfailed",
    "authorizationfailure",
    "authorizationpermissionmismatch",
    "invalidauthenticationinfo",
    "expiredtoken",
    "(os error 13)",
)


def plain(error: BaseException) -> str:
    """The error's text on one line, without terminal colours and what looks like a secret."""
    return mask(" ".join(_COLOURS.sub("", str(error)).split())) or type(error).__name__


def is_conflict(error: BaseException) -> bool:
    """Whether another writer came first; the table itself is fine."""
    return isinstance(error, CommitFailedError)


def is_unauthenticated(error: BaseException) -> bool:
    """Whether the storage did not take our token, or the lack of one, at all: another may do."""
    return "lacked valid authentication credentials" in plain(error).lower()


def classify(error: BaseException, table: str) -> RecordError:
    """The :class:`AuthError` or :class:`DependencyError` that says what happened to ``table``."""
    text = plain(error)
    lowered = text.lower()
    if any(sign in lowered for sign in _FULL):
        return DependencyError(
            "disk_full", f"no room to write table {table}: {text}; free space, the rows wait meanwhile"
        )
    if any(sign in lowered for sign in _REFUSED):
        return AuthError(
            "table_refused",
            f"access to table {table} was refused: {text}; check tables.auth and the rights on the "
            "folder, the rows wait meanwhile",
            http_status=401 if is_unauthenticated(error) else None,
        )
    return DependencyError(
        "table_unavailable", f"table {table} cannot be read or written: {text}; the rows wait meanwhile"
    )


@contextlib.contextmanager
def classified(url: str) -> Iterator[None]:
    """Whatever the table layer raises inside becomes an error of ours about the table at ``url``."""
    try:
        yield
    except (PipelinedError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # a panic of the table layer is no Exception
        raise classify(error, url) from error
