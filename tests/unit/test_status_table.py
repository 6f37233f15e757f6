"""The status as a person reads it: the sentence, the table at any width, the remarks below it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import click
import pytest

from pipelined.cli.headline import headline
from pipelined.cli.table import lines

NOW = 1_800_000_000.0


@pytest.fixture(autouse=True)
def stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: NOW)


def ago(seconds: float) -> str:
    return datetime.fromtimestamp(NOW - seconds, UTC).isoformat()


def worker(kind: str, state: str = "RUNNING", **more: Any) -> dict[str, Any]:
    alive = state in {"RUNNING", "STARTING", "STOPPING"}
    return {
        "type": kind,
        "index": 0,
        "state": state,
        "reason": "",
        "pid": 4711 if alive else None,
        "since": ago(192.5),
        "restarts": 0,
        "last_exit": None,
        "next_try": None,
        "records_in": 1234,
        "records_out": 1200,
        "in_per_second": 12.34,
        "out_per_second": 250_000.0,
        "cpu_percent": 7.25,
        "pss_bytes": 45_300_000,
        "in_flight": 3,
        "lag": 40,
        "says": "",
        "paused": False,
        "paused_by_operator": False,
        "failures": {"transient": 2, "bug": 1},
        "dead_letters": {"bug": 1},
        "last_error": "",
        "last_error_at": None,
        "heartbeat_age_s": 0.1 if alive else None,
        "source": None,
    } | more


def document(*workers: dict[str, Any], state: str = "running") -> dict[str, Any]:
    return {
        "versions": {"pipelined": "1.2.3", "python": "3.11"},
        "pid": 99,
        "since": ago(300),
        "state": state,
        "workers": list(workers),
    }


def sentence(*workers: dict[str, Any], state: str = "running") -> str:
    head, _, rest = headline(document(*workers, state=state), NOW).partition(": ")
    assert head == f"pipelined 1.2.3 (pid 99) is {state}, up 5m00s"
    return rest


def test_of_a_daemon_that_is_well_there_is_nothing_to_do() -> None:
    assert sentence(worker("download"), worker("upload")) == "all 2 workers run, nothing to do"


def test_the_worst_comes_first_with_what_to_do() -> None:
    back_soon = worker("upload", "BACKOFF", reason="killed by SIGKILL", next_try=ago(-2.5), restarts=1)
    given_up = worker("download", "FATAL", reason="exit 78: configuration")
    assert sentence(back_soon, worker("endpoint"), state="degraded") == (
        "1 of 2 run; upload/0 failed (killed by SIGKILL) and is restarted by itself, in 2s; see "
        "`pipelinectl logs upload`"
    )
    assert sentence(back_soon, given_up, state="degraded") == (
        "0 of 2 run; download/0 was given up (exit 78: configuration): mend that, then "
        "`pipelinectl start download`; and 1 more, see below"
    )


def test_an_error_at_its_end_is_why_a_worker_ended_and_an_old_one_is_not() -> None:
    ended = {"reason": "exit 78: configuration", "last_error": "kafka.bootstrap is wrong"}
    told = sentence(worker("upload", "FATAL", **ended, last_error_at=ago(192.6)), state="degraded")
    assert "given up (exit 78: configuration: kafka.bootstrap is wrong)" in told
    told = sentence(worker("upload", "FATAL", **ended, last_error_at=ago(900)), state="degraded")
    assert "given up (exit 78: configuration):" in told


def test_a_running_daemon_says_who_does_not_work_and_who_ends_that() -> None:
    held = worker("download", paused_by_operator=True, paused=True)
    assert sentence(held, held | {"index": 1}) == (
        "all 2 workers run; download is paused by an operator; `pipelinectl resume download` ends that"
    )
    waits = worker("upload", paused=True, last_error="disk: full", last_error_at=ago(1))
    assert sentence(waits) == "upload/0 runs; upload/0 waits for something that it relies on (disk: full)"
    stopped = worker("upload", "STOPPED", reason="stopped")
    assert sentence(stopped, worker("endpoint")) == (
        "1 of 2 run; upload/0 was stopped; `pipelinectl start upload` starts it"
    )


def test_a_worker_that_gives_no_sign_is_told_of_long_before_it_counts_as_hung() -> None:
    assert sentence(worker("event-writer", heartbeat_age_s=9.9)) == "event-writer/0 runs, nothing to do"
    assert sentence(worker("event-writer", heartbeat_age_s=83.2), worker("upload")) == (
        "all 2 workers run; event-writer/0 gives no sign of its work loop for 1m23s; `kill -QUIT 4711` "
        "writes what it does to its log, and if that goes on it is ended and restarted"
    )


def test_a_level_that_an_operator_asked_for_is_shown_below_the_table() -> None:
    loud = worker("download", log_level="DEBUG", log_level_by_operator=True)
    assert "download/0: logs from DEBUG on, as an operator wants it" in lines(document(loud))
    usual = worker("download", log_level="INFO", log_level_by_operator=False)
    assert not [line for line in lines(document(usual)) if "logs from" in line]


def test_while_it_starts_or_stops_it_says_for_whom_it_waits() -> None:
    many = [worker("download", "STARTING", index=index) for index in range(5)]
    assert sentence(*many, state="starting") == (
        "0 of 5 run, waits for download/0, download/1, download/2 and 2 more"
    )
    assert sentence(worker("upload", "STOPPING"), worker("download", "STOPPED"), state="stopping") == (
        "upload/0 still to drain"
    )


def test_all_columns_are_there_where_nothing_limits_the_width() -> None:
    _, head, row = lines(document(worker("download")))
    assert row.split() == ("download/0 RUNNING 4711 3m12s 45M 7.2 12 250k 40 3 3 0 1234 1200 1".split())
    assert head.split("  ")[0] == "worker"
    assert [head.index(name) + len(name) for name in ("lag", "in flight", "dead")] == [
        row.index(cell) + len(cell) for cell in ("  40", "          3", "     1")
    ]


def test_what_is_not_known_is_a_dash() -> None:
    unknown = dict.fromkeys(("in_per_second", "out_per_second", "cpu_percent", "pss_bytes", "lag", "since"))
    _, _, row = lines(document(worker("download", "FATAL", reason="x", **unknown)))[:3]
    assert row.split() == "download/0 FATAL - - - - - - - 3 3 0 1234 1200 1".split()


def test_a_daemon_of_an_older_version_is_shown_without_what_it_does_not_tell() -> None:
    older = worker("download")
    for field in (
        "in_per_second",
        "out_per_second",
        "cpu_percent",
        "last_error",
        "last_error_at",
        "pss_bytes",
    ):
        del older[field]
    assert "RUNNING  4711  3m12s    -     -     -      -" in lines(document(older))[2]


@pytest.mark.parametrize("width", [200, 120, 100, 80, 60, 40, 28])
def test_a_narrow_terminal_gets_fewer_columns_and_no_line_is_longer(width: int) -> None:
    says = "cannot log in: " + "the secret has expired " * 10
    shown = lines(document(worker("result-processor", says=says), worker("upload", "FATAL")), width)
    assert all(len(line) <= width for line in shown), shown
    (head,) = (line for line in shown if line.startswith("worker"))
    assert "state" in head
    if width >= 80:
        assert {"since", "pid", "in/s", "out/s", "lag", "errors"} <= set(head.split())
    assert says.strip() in " ".join(line.strip() for line in shown)


def test_what_the_table_has_no_room_for_is_said_below_it() -> None:
    source = {"state": "behind", "rows_per_second": 130.0, "position": "2027-01-15T08:00:00.000Z"}
    source |= {"delay_s": 12.5, "token_expires": None}
    shown = lines(
        document(
            worker("endpoint"),
            worker("eventhouse-poller", says="behind", source=source),
            worker("upload", "BACKOFF", reason="killed by SIGKILL", next_try=ago(-2.5)),
            worker("download", last_exit="exit 70: an unexpected exception"),
            worker("retry-scheduler", last_error="http_503: try again", last_error_at=ago(63)),
        )
    )
    assert shown[7:] == [
        "eventhouse-poller/0: behind; 130 rows/s; all until 2027-01-15T08:00:00.000Z is taken, 12.5 s behind",
        "upload/0: killed by SIGKILL; next try in 2s",
        "download/0: before: exit 70: an unexpected exception",
        "retry-scheduler/0: last error 1m03s ago: http_503: try again",
    ]


def test_an_error_is_not_told_twice() -> None:
    told = worker(
        "upload",
        says="refused: the table is gone",
        last_error="auth: the table is gone",
        last_error_at=ago(1),
    )
    assert lines(document(told))[-1] == "upload/0: refused: the table is gone"


def test_colours_change_no_character_and_name_the_states() -> None:
    shown = document(worker("download"), worker("upload", "FATAL", reason="x"), state="degraded")
    plain, coloured = lines(shown, 80), lines(shown, 80, colour=True)
    assert [click.unstyle(line) for line in coloured] == plain
    assert "is \x1b[31m\x1b[1mdegraded\x1b[0m" in coloured[0]
    assert sum("\x1b[32m" in line for line in coloured) == 1
    assert all("\x1b" not in line for line in plain)
