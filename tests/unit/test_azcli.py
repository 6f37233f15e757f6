"""The login by the az command; here a script in its place."""

from __future__ import annotations

import datetime as dt
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelined.auth import azcli
from pipelined.auth.azcli import AzureCli
from pipelined.errors import AuthError, DependencyError, RecordError
from waiting import until

SCOPE = "https://kusto.kusto.windows.net/.default"


@pytest.fixture
def az(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put a shell script in the place of az."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def write(script: str) -> None:
        (tmp_path / "az").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "az").chmod(0o755)

    return write


def answering(**answer: object) -> str:
    return f"echo '{json.dumps(answer)}'"


def test_a_token_is_asked_for_the_scope_and_the_tenant(az: Callable[[str], None], tmp_path: Path) -> None:
    ends = int(time.time()) + 4000
    az(f'echo "$@" > {tmp_path}/asked; ' + answering(accessToken="abc", expires_on=ends))
    given = AzureCli(SCOPE, "contoso.example", "eventhouse.auth")()
    assert (given.token, given.left()) == ("abc", pytest.approx(4000, abs=10))
    wanted = f"account get-access-token --output json --scope {SCOPE} --tenant contoso.example\n"
    assert (tmp_path / "asked").read_text() == wanted


def test_an_older_az_tells_the_end_in_local_time(
    az: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "America/Denver")
    time.tzset()
    try:
        ends = dt.datetime.fromtimestamp(time.time() + 4000)
        az(answering(accessToken="abc", expiresOn=str(ends)))
        assert AzureCli(SCOPE, "", "eventhouse.auth")().left() == pytest.approx(4000, abs=10)
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("script", "kind", "code", "told"),
    [
        ("echo Please run az login. >&2; exit 1", AuthError, "login_refused", "az login"),
        ("echo Max retries exceeded >&2; exit 1", DependencyError, "login_unreachable", "Max"),
        ("exit 3", AuthError, "login_refused", "It said: nothing"),
        ("echo 'WARNING: new version'", DependencyError, "login_down", "something else"),
        (answering(accessToken="abc"), DependencyError, "login_down", "something else"),
        (answering(accessToken="abc", expires_on="soon"), DependencyError, "login_down", "something else"),
        (answering(accessToken="", expires_on=1), DependencyError, "login_down", "something else"),
        ("echo '[]'", DependencyError, "login_down", "something else"),
    ],
)
def test_what_az_says_instead_tells_who_must_act(
    az: Callable[[str], None], script: str, kind: type[RecordError], code: str, told: str
) -> None:
    az(script)
    with pytest.raises(kind, match=told) as caught:
        AzureCli(SCOPE, "", "eventhouse.auth")()
    assert caught.value.code == code
    assert str(caught.value).startswith("eventhouse.auth: ")


def test_an_az_that_hangs_is_killed_with_all_it_started(
    az: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(azcli, "_TIMEOUT_S", 0.5)
    az(f"sleep 300 & echo $! > {tmp_path}/pid; wait")
    began = time.monotonic()
    with pytest.raises(DependencyError, match="has not answered within") as caught:
        AzureCli(SCOPE, "", "eventhouse.auth")()
    assert caught.value.code == "login_timeout"
    assert time.monotonic() - began < 30
    pid = (tmp_path / "pid").read_text().strip()
    until(lambda: not _runs(pid))


def _runs(pid: str) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_a_machine_without_az_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AuthError, match="no az command"):
        AzureCli(SCOPE, "", "eventhouse.auth")()
