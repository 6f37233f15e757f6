"""A token that is renewed ahead of its end by a thread of its own, started when it is first asked for."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable

from pipelined.auth.grant import REFUSED_S, Grant
from pipelined.errors import AuthError, DependencyError, RecordError

__all__ = ["Renewal"]

_log = logging.getLogger("pipelined.auth")

#: How long somebody waits for a login; it has time limits of its own, but names are resolved without any.
_WAIT_S = 60.0
#: After a failure: the first pause, and the longest one.
_FIRST_S, _LONGEST_S = 1.0, 60.0
#: Whoever asks meanwhile is told of the failure for at most so long, and then another login is tried …
_TOLD_S = 5.0
#: … unless the login service said how long to leave it alone, which holds up to here.
_LEFT_ALONE_S = 300.0


class Renewal:
    """See :class:`pipelined.auth.provider.TokenProvider`. ``login`` is called by one thread only."""

    def __init__(self, login: Callable[[], Grant], section: str) -> None:
        self._login = login
        self._section = section
        self._condition = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._asked = False  # somebody waits for a login
        self._logins = 0  # logins that ended, well or not
        self._grant: Grant | None = None
        self._refused, self._refused_until = "", 0.0
        self._due = math.inf  # when to log in unasked, on the monotonic clock, as the next two
        self._failure: RecordError | None = None
        self._told_until = 0.0
        self._failures = 0  # in a row

    @property
    def expires_at(self) -> float | None:
        """When the token in hand ends."""
        grant = self._grant
        return grant.expires_at if grant else None

    def token(self) -> str:
        """The token in hand, or that of a login which is waited for."""
        with self._condition:
            if token := self._usable():
                self._start()
                return token
            if self._failure and time.monotonic() < self._told_until:
                raise _again(self._failure)
            self._start()
            self._asked = True
            self._condition.notify_all()
            before = self._logins
            if not self._condition.wait_for(lambda: self._logins > before, _WAIT_S):
                raise DependencyError(
                    "login_timeout",
                    f"{self._section}: the login has not ended within {_WAIT_S:g} s; is the login service "
                    "reachable, and are names resolved?",
                )
            if token := self._usable():
                return token
            assert self._failure is not None
            raise _again(self._failure)

    def refresh(self, refused: str = "") -> None:
        """Do not use the token in hand again."""
        with self._condition:
            if self._grant and refused in ("", self._grant.token):
                self._refused, self._refused_until = self._grant.token, time.monotonic() + REFUSED_S
                self._grant = None
                self._due = math.inf

    def close(self) -> None:
        """Let the thread end; a login under way ends first, without anybody waiting for it."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()

    def _usable(self) -> str:
        return self._grant.token if self._grant and self._grant.left() > 0 else ""

    def _start(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._closed = False
            self._thread = threading.Thread(target=self._run, name=f"login {self._section}", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            with self._condition:
                while not (self._closed or self._asked or time.monotonic() >= self._due):
                    wait = self._due - time.monotonic()
                    self._condition.wait(None if wait == math.inf else wait)
                if self._closed:
                    return
            outcome = self._try()
            with self._condition:
                self._take(outcome)
                self._logins += 1
                self._asked = False  # whoever asked meanwhile is served by it as well
                self._condition.notify_all()

    def _try(self) -> Grant | RecordError:
        try:
            return self._login()
        except RecordError as error:
            return error
        except Exception:  # noqa: BLE001 - of a library: this thread must not end by it
            _log.exception("the login of %s failed unexpectedly", self._section)
            return DependencyError(
                "login_failed",
                f"{self._section}: the login failed in a way that nobody expected; the log has the details",
            )

    def _take(self, outcome: Grant | RecordError) -> None:
        now = time.monotonic()
        if isinstance(outcome, Grant) and (wrong := self._problem(outcome, now)):
            outcome = wrong
        if isinstance(outcome, Grant):
            if self._grant is None or self._failure:
                _log.info(
                    "logged in (%s); the token lives for %d minutes",
                    self._section,
                    outcome.left() // 60,
                    extra={"section": self._section, "expires_at": outcome.expires_at},
                )
            self._grant, self._failure, self._failures = outcome, None, 0
            self._due = now + outcome.renew_in
            return
        pause = min(_LONGEST_S, _FIRST_S * 2 ** min(self._failures, 10))
        asked = min(outcome.retry_after or 0.0, _LEFT_ALONE_S)
        self._failure, self._failures = outcome, self._failures + 1
        self._told_until = now + max(min(pause, _TOLD_S), asked)
        self._due = math.inf
        if self._usable():
            self._due = now + max(pause, asked)
            assert self._grant is not None
            _log.warning(
                "the token of %s could not be renewed; the present one lives for %d more minutes: %s",
                self._section,
                self._grant.left() // 60,
                outcome,
                extra={"section": self._section, "code": outcome.code},
            )

    def _problem(self, grant: Grant, now: float) -> AuthError | None:
        if grant.token == self._refused and now < self._refused_until:
            return AuthError(
                "token_refused",
                f"{self._section}: the service refused this token, and the login gives the same one again; "
                "has this identity the rights on the service, and is the token meant for it (scope)?",
            )
        if grant.left() <= 0:
            return AuthError(
                "token_expired",
                f"{self._section}: the login gave a token that has expired already; is this machine's clock "
                "right?",
            )
        return None


def _again(failure: RecordError) -> RecordError:
    """A new exception that says the same: each one that is raised collects the frames it passed."""
    return type(failure)(
        failure.code, str(failure), http_status=failure.http_status, retry_after=failure.retry_after
    )
