"""Bad days of an Eventhouse: each is told for what it is, and afterwards the table is read whole, once."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eventhouse_table import REAL_URL, Poller, Table, events, lent, polling, raised
from pipelined.config.auth import Auth
from pipelined.errors import (
    AuthError,
    ConfigError,
    DependencyError,
    PipelinedError,
    RecordError,
    TransientError,
)
from pipelined.local.eventhouse import Eventhouse
from pipelined.local.eventhouse.faults import FAULTS

pytestmark = pytest.mark.skipif(bool(REAL_URL), reason="a real cluster cannot be told to fail")

PAGE = "order by"
#: Kind of fault → what the poller is told of it; "": it is lived through within the fetch.
TOLD: dict[str, tuple[type[PipelinedError], str]] = {
    "throttled": (TransientError, "throttled"),
    "throttled-empty": (TransientError, "throttled"),
    "throttled-html": (TransientError, "throttled"),
    "bad-gateway": (TransientError, "service"),
    "unavailable": (TransientError, "service"),
    "unavailable-empty": (TransientError, "service"),
    "too-large": (DependencyError, "not_the_service"),
    "redirect": (DependencyError, "not_the_service"),
    "timeout": (TransientError, "service"),
    "internal": (TransientError, "service"),
    "service-error": (TransientError, "service"),
    "no-error": (TransientError, "odd_answer"),
    "list": (TransientError, "odd_answer"),
    "semantic": (ConfigError, "SEM0100"),
    "syntax": (ConfigError, "SYN0002"),
    "unauthorized": (AuthError, "unauthorized"),
    "unauthorized-json": (AuthError, "unauthorized"),
    "forbidden": (AuthError, "forbidden"),
    "not-found": (ConfigError, "eventhouse.url"),
    "empty": (TransientError, "odd_answer"),
    "login-page": (DependencyError, "not_the_service"),
    "error-object": (TransientError, "odd_answer"),
    "answer": (TransientError, "odd_answer"),
    "delay": (PipelinedError, ""),
    "hang": (TransientError, "timeout"),
    "close": (PipelinedError, ""),
    "reset": (PipelinedError, ""),
    "reset-after-head": (PipelinedError, ""),
    "close-idle": (PipelinedError, ""),
    "cut": (PipelinedError, ""),
    "short": (TransientError, "odd_answer"),
    "slow": (PipelinedError, ""),
    "error-in-rows": (PipelinedError, ""),
    "error-at-end": (PipelinedError, ""),
    "partial": (PipelinedError, ""),
}
FIELDS: dict[str, dict[str, Any]] = {
    "delay": {"seconds": 0.2},
    "slow": {"seconds": 0.001},
    "answer": {"status": 200, "body": "[]"},
    **{kind: {"rows": 30} for kind in ("cut", "short", "error-in-rows", "error-at-end", "partial")},
}


@pytest.fixture(scope="module")
def house() -> Iterator[Eventhouse]:
    with Eventhouse() as server:
        yield server


@pytest.fixture
def table(house: Eventhouse) -> Iterator[Table]:
    with lent(house) as table:
        yield table


@pytest.fixture
def poller(table: Table) -> Iterator[Poller]:
    with polling(table, timeout_s=1.0) as poller:
        yield poller


def test_every_kind_of_fault_is_here() -> None:
    assert set(TOLD) == set(FAULTS)


@pytest.mark.parametrize("kind", TOLD)
def test_after_a_fault_of_any_kind_the_table_is_read_whole(
    house: Eventhouse, table: Table, poller: Poller, kind: str
) -> None:
    table.ingest(events(250))
    poller.step()  # in the middle of a window
    house.fault(kind, contains=PAGE, times=1, **FIELDS.get(kind, {}))
    expected, code = TOLD[kind]
    if code:
        error = raised(poller.step)
        assert isinstance(error, expected)
        assert code in (error.code if isinstance(error, RecordError) else str(error))
    else:
        assert poller.step() is not None
    house.clear_faults()
    poller.judge()


@pytest.mark.parametrize("kind", ["cut", "short", "error-in-rows", "error-at-end", "partial"])
@pytest.mark.parametrize("rows", [0, 1, 99])
def test_of_a_page_that_was_cut_nothing_is_taken(
    house: Eventhouse, table: Table, poller: Poller, kind: str, rows: int
) -> None:
    table.ingest(events(300))
    house.fault(kind, contains=PAGE, times=3, rows=rows)
    while poller.drain(patient=True):
        pass
    poller.judge()


@pytest.mark.parametrize("told", ["7", "0.5", None])
def test_throttling_says_when_to_come_again_where_the_service_does(
    house: Eventhouse, table: Table, poller: Poller, told: str | None
) -> None:
    table.ingest(events(3))
    poller.drain()
    house.fault("throttled", retry_after=told)
    error = raised(poller.step)
    assert isinstance(error, TransientError)
    assert error.retry_after == (float(told) if told else None)
    facts = poller.source.facts()
    assert facts.throttled == 1
    assert poller.source.facts().throttled == 0


def test_a_lost_connection_is_made_anew_once_within_a_query(
    house: Eventhouse, table: Table, poller: Poller
) -> None:
    table.ingest(events(3))
    poller.drain()
    house.fault("close-idle")
    poller.drain()
    house.fault("close")
    assert poller.step() is None
    house.fault("close", times=2)
    error = raised(poller.step)
    assert isinstance(error, TransientError)
    assert error.code == "connection_lost"


def test_where_nobody_listens_it_is_the_service_that_is_down(table: Table, poller: Poller) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with polling(table, url=url) as refused:
            error = raised(refused.step)
    assert isinstance(error, DependencyError)
    assert "127.0.0.1" in str(error)
    poller.judge()


def test_where_the_name_is_gone_it_is_the_service_that_is_down(table: Table) -> None:
    login = Auth(method="token_file", token_file="/dev/null")
    with polling(table, url="https://gone.invalid", auth=login) as poller:
        poller.source._client._login = _Fixed()
        error = raised(poller.step)
    assert isinstance(error, DependencyError)
    assert error.code == "unreachable"


class _Fixed:
    """A login with one token and then others."""

    def __init__(self, *tokens: str) -> None:
        self.tokens = list(tokens) or ["t"]
        self.expires_at: float | None = None

    def token(self) -> str:
        return self.tokens[0]

    def refresh(self, refused: str = "") -> None:
        if len(self.tokens) > 1 and refused == self.tokens[0]:
            self.tokens.pop(0)

    def close(self) -> None:
        pass


def with_token_file(table: Table, path: Path) -> Poller:
    return Poller(table, auth=Auth(method="token_file", token_file=str(path)))


def test_a_token_that_is_refused_is_renewed_once(house: Eventhouse, table: Table, tmp_path: Path) -> None:
    table.ingest(events(250))
    path = tmp_path / "token"
    path.write_text("old")
    poller = with_token_file(table, path)
    poller.source._client._login = _Fixed("old", "new")
    house.change_settings(tokens=["old"])
    poller.step()
    house.change_settings(tokens=["new"])
    try:
        poller.drain()
        house.change_settings(tokens=None)
        poller.judge()
    finally:
        poller.close()


def test_refused_for_a_minute_it_says_so_and_then_goes_on(
    house: Eventhouse, table: Table, tmp_path: Path
) -> None:
    table.ingest(events(250))
    path = tmp_path / "token"
    path.write_text("stale")
    poller = with_token_file(table, path)
    house.change_settings(tokens=["fresh"])
    try:
        house.forget_requests()
        for _ in range(3):
            error = raised(poller.step)
            assert isinstance(error, AuthError)
            assert "stale" not in str(error)
        assert len(house.requests()) <= 6  # one more with a fresh token, no more than that
        path.write_text("fresh")
        poller.drain()
        house.change_settings(tokens=None)
        poller.judge()
    finally:
        poller.close()


def test_metadata_that_hang_hurt_nobody_since_nobody_asks(
    house: Eventhouse, table: Table, tmp_path: Path
) -> None:
    table.ingest(events(20))
    path = tmp_path / "token"
    path.write_text("t")
    house.fault("hang", endpoint="metadata", times=None)
    house.forget_requests()
    poller = with_token_file(table, path)
    try:
        poller.judge()
    finally:
        poller.close()
    assert "metadata" not in {request["endpoint"] for request in house.requests()}


def test_a_query_that_hangs_ends_with_its_time(house: Eventhouse, table: Table, poller: Poller) -> None:
    table.ingest(events(20))
    poller.drain()
    house.fault("hang")
    started = time.monotonic()
    error = raised(poller.step)
    assert isinstance(error, TransientError)
    assert time.monotonic() - started < 10
    poller.judge()


def test_no_proxy_stands_between_us_and_this_machine(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    table.ingest(events(20))
    with polling(table) as poller:
        poller.judge()


def test_every_query_is_read_only_and_has_its_time(house: Eventhouse, table: Table, poller: Poller) -> None:
    house.forget_requests()
    table.ingest(events(250))
    poller.drain()
    asked = [r for r in house.requests() if r["headers"]["x-ms-app"].startswith("pipelined/")]
    assert len(asked) >= 4
    for request in asked:
        assert request["options"]["request_readonly"] is True
        assert request["options"]["servertimeout"] == "0:00:01"
        assert not {"notruncation", "results_error_reporting_placement", "deferpartialqueryfailures"} & set(
            request["options"]
        )


def test_at_a_limit_pages_are_halved_and_grow_back(house: Eventhouse, table: Table) -> None:
    table.ingest(events(4000))
    with polling(table, page_rows=200) as poller:
        house.change_settings(max_records=70)
        while len(poller.outputs) < 1000:
            poller.step()
        assert max(len(page.outputs) for page in poller.pages) <= 70
        assert poller.source.facts().shortened >= 2
        house.change_settings(max_records=500_000)
        poller.judge()
        assert max(len(page.outputs) for page in poller.pages) > 100


def test_pages_of_large_rows_have_fewer_of_them(house: Eventhouse, table: Table) -> None:
    table.ingest(events(60, data={"note": "x" * 1_000_000}))
    with polling(table, page_rows=50_000) as poller:
        poller.judge()
        assert max(sum(len(o.value) for o in page.outputs) for page in poller.pages) <= 12 << 20


def test_a_row_beyond_every_limit_is_said_and_waited_for(house: Eventhouse, table: Table) -> None:
    table.ingest(events(8))
    with polling(table) as poller:
        house.fault("error-in-rows", contains=PAGE, times=None)
        error = raised(poller.step)
        assert isinstance(error, DependencyError)
        assert "E_QUERY_RESULT_SET_TOO_LARGE" in str(error)
        house.clear_faults()
        poller.judge()


def test_while_rows_come_and_faults_fall_nothing_is_lost_or_doubled(house: Eventhouse, table: Table) -> None:
    stop = threading.Event()

    def ingesting() -> None:
        number = 0
        while not stop.wait(0.1):
            number += 1
            table.ingest(events(37), delay=0.05 * (number % 4), cursor_lag=0.07 * (number % 3))

    thread = threading.Thread(target=ingesting)
    with polling(table, timeout_s=1.0, page_rows=40) as poller:
        thread.start()
        try:
            kinds = ("cut", "throttled", "close", "short", "error-in-rows", "unavailable", "partial")
            for kind in kinds:
                house.fault(kind, rows=20, skip=1)
                for _ in range(6):
                    with contextlib.suppress(TransientError):
                        poller.step()
                if kind == "close":
                    poller.again()
        finally:
            stop.set()
            thread.join()
        house.clear_faults()
        house.reveal()
        house.seal()
        poller.judge()
        assert len(poller.outputs) > 100


def test_a_clock_off_by_ten_minutes_changes_nothing(house: Eventhouse, table: Table, poller: Poller) -> None:
    for ahead in (600.0, -600.0, 0.0):
        house.change_settings(clock_offset_s=ahead)
        table.ingest(events(120))
        poller.drain()
    poller.judge()


def test_the_repr_of_a_source_tells_no_token(table: Table, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("planted-secret")
    poller = with_token_file(table, path)
    try:
        poller.step()
        held = [poller.source, poller.source._client, dataclasses.asdict(table.section)]
        assert "planted-secret" not in repr(held)
    finally:
        poller.close()
