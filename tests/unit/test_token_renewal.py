"""A token in hand is renewed in the background; nobody waits for a login but who has none."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipelined.auth import grant, renewal
from pipelined.auth.grant import Grant
from pipelined.auth.renewal import Renewal
from pipelined.errors import AuthError, DependencyError, RecordError
from waiting import until

Outcome = Grant | Exception


class Logins:
    """A login that gives what stands next in ``outcomes``, and the last of them for ever."""

    def __init__(self, *outcomes: Outcome | Callable[[], Outcome]) -> None:
        self.outcomes = list(outcomes)
        self.count = 0
        self.free = threading.Event()
        self.free.set()

    def __call__(self) -> Grant:
        outcome = self.outcomes[min(self.count, len(self.outcomes) - 1)]
        self.count += 1
        assert self.free.wait(30)
        made = outcome() if callable(outcome) else outcome
        if isinstance(made, Exception):
            raise made
        return made


def lasting(token: str, seconds: float = 3600.0, renew_in: float | None = None) -> Callable[[], Grant]:
    """A token that lives for so long from its login on."""
    return lambda: Grant.lasting(token, seconds, float("inf") if renew_in is None else renew_in)


@pytest.fixture
def make() -> Iterator[Callable[..., tuple[Renewal, Logins]]]:
    made: list[tuple[Renewal, Logins]] = []

    def _make(*outcomes: Outcome | Callable[[], Outcome]) -> tuple[Renewal, Logins]:
        logins = Logins(*outcomes)
        made.append((Renewal(logins, "upload.auth"), logins))
        return made[-1]

    yield _make
    for each, logins in made:
        each.close()
        logins.free.set()
        if each._thread:
            each._thread.join(10)
            assert not each._thread.is_alive()


Make = Callable[..., tuple[Renewal, Logins]]
NO = AuthError("login_refused", "no")
DOWN = DependencyError("login_unreachable", "down")


def test_nothing_begins_before_the_first_token(make: Make) -> None:
    before = threading.active_count()
    tokens, logins = make(lasting("a"))
    assert (threading.active_count(), logins.count, tokens.expires_at) == (before, 0, None)
    assert tokens.token() == "a"
    assert tokens.expires_at == pytest.approx(time.time() + 3600, abs=5)


def test_many_that_ask_at_once_share_one_login(make: Make) -> None:
    tokens, logins = make(lasting("a"))
    logins.free.clear()
    with ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(tokens.token) for _ in range(16)]
        until(lambda: logins.count == 1)
        logins.free.set()
        assert {each.result(10) for each in asked} == {"a"}
    assert logins.count == 1


def test_a_token_is_renewed_ahead_of_its_end_and_nobody_waits_for_it(make: Make) -> None:
    tokens, logins = make(lasting("a", 3600, 0.0), lasting("b"))
    assert tokens.token() == "a"
    logins.free.clear()
    until(lambda: logins.count == 2)
    assert tokens.token() == "a", "while the next login hangs"
    logins.free.set()
    until(lambda: tokens.token() == "b")


def test_a_renewal_that_fails_leaves_the_token_until_its_end(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(renewal, "_FIRST_S", 0.01)
    monkeypatch.setattr(renewal, "_TOLD_S", 60.0)
    tokens, logins = make(lasting("a", 3600, 0.0), NO)
    assert tokens.token() == "a"
    until(lambda: logins.count >= 4)
    assert tokens.token() == "a"
    assert "could not be renewed; the present one lives for 59 more minutes: no" in caplog.text
    assert tokens._grant is not None
    tokens._grant = Grant("a", 0.0, 0.0, 0.0)
    with pytest.raises(AuthError, match="no"):
        tokens.token()


def test_a_failure_is_told_for_a_while_without_another_login(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens, logins = make(DOWN, lasting("a"))
    told: list[RecordError] = []
    for _ in range(5):
        with pytest.raises(DependencyError) as caught:
            tokens.token()
        told.append(caught.value)
    assert logins.count == 1
    assert len({id(error) for error in told}) == 5, "one that is raised again and again grows"
    monkeypatch.setattr(tokens, "_told_until", 0.0)
    assert tokens.token() == "a"


def test_a_login_service_that_asks_for_time_is_left_alone(make: Make) -> None:
    tokens, _ = make(DependencyError("login_down", "busy", retry_after=120))
    with pytest.raises(DependencyError) as caught:
        tokens.token()
    assert caught.value.retry_after == 120
    assert tokens._told_until - time.monotonic() == pytest.approx(120, abs=5)


def test_a_login_that_hangs_is_not_waited_for_longer_than_a_minute(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewal, "_WAIT_S", 0.05)
    tokens, logins = make(lasting("a"))
    logins.free.clear()
    with pytest.raises(DependencyError, match="has not ended within") as caught:
        tokens.token()
    assert caught.value.code == "login_timeout"
    logins.free.set()
    until(lambda: tokens.expires_at is not None)
    assert tokens.token() == "a"
    assert logins.count == 1


def test_an_unexpected_exception_ends_neither_the_thread_nor_the_hope(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tokens, _ = make(KeyError("access_token"), lasting("a"))
    with pytest.raises(DependencyError, match="nobody expected"):
        tokens.token()
    assert "KeyError" in caplog.text
    monkeypatch.setattr(tokens, "_told_until", 0.0)
    assert tokens.token() == "a"


def test_a_refused_token_that_comes_again_is_told_and_tried_again_later(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens, logins = make(lasting("same"))
    tokens.refresh()  # there is none yet
    assert tokens.token() == "same"
    tokens.refresh("same")
    with pytest.raises(AuthError, match="the login gives the same one again") as caught:
        tokens.token()
    assert caught.value.code == "token_refused"
    assert logins.count == 2
    # The service may have been wrong: after a while it is given once more.
    monkeypatch.setattr(tokens, "_refused_until", 0.0)
    monkeypatch.setattr(tokens, "_told_until", 0.0)
    assert tokens.token() == "same"


def test_a_token_that_has_ended_already_is_none(make: Make) -> None:
    tokens, _ = make(lasting("old", -1.0))
    with pytest.raises(AuthError, match="clock") as caught:
        tokens.token()
    assert caught.value.code == "token_expired"


@pytest.mark.parametrize("clock", ["time", "monotonic"])
def test_a_token_ends_by_whichever_clock_says_so_first(clock: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = Grant.lasting("a", 3600)
    assert 3590 < given.left() <= 3600
    real = getattr(time, clock)
    monkeypatch.setattr(grant.time, clock, lambda: real() + 3601)
    assert given.left() < 0
    monkeypatch.setattr(grant.time, clock, lambda: real() - 600)
    assert given.left() <= 3600, "a clock that is put back gives no token a longer life"


@pytest.mark.parametrize(
    ("seconds", "refresh_in", "renewed"),
    [
        (3600, float("inf"), 2700),  # 15 minutes ahead
        (86400, 43200, 43200),  # as whoever gave it would
        (600, float("inf"), 400),  # a third ahead
        (0.5, float("inf"), 1),
        (3600, 0, 1),  # never without a pause
    ],
)
def test_a_token_is_renewed_well_ahead(seconds: float, refresh_in: float, renewed: float) -> None:
    assert Grant.lasting("a", seconds, refresh_in).renew_in == renewed


def test_a_token_is_in_no_repr() -> None:
    assert "hunter2" not in repr(Grant.lasting("hunter2", 3600))


def test_a_child_renews_for_itself(make: Make) -> None:
    """A provider may be made before a fork; and one that worked already goes on in the child."""
    fresh, _ = make(lasting("fresh"))
    used, _ = make(lasting("a"), lasting("b"))
    assert used.token() == "a"
    pid = os.fork()
    if not pid:
        used.refresh()
        os._exit(0 if (fresh.token(), used.token()) == ("fresh", "b") else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert fresh._thread is None
    assert used.token() == "a"


def test_what_is_closed_ends_its_thread_and_can_be_asked_again(make: Make) -> None:
    tokens, _ = make(lasting("a"))
    tokens.token()
    thread = tokens._thread
    assert thread is not None
    tokens.close()
    until(lambda: not thread.is_alive())
    assert tokens.token() == "a"
