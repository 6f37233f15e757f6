"""What each check of the doctor finds: planted failures, each with its fix."""

from __future__ import annotations

import dataclasses
import os
import resource
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

import blobs
from pipelined.config import Config
from pipelined.config.leaves import built
from pipelined.doctor import cluster, machine, places, services
from pipelined.doctor.checks import CHECKS
from pipelined.doctor.finding import Finding, Outcome, fine
from pipelined.kafka import groups as kafka_groups
from pipelined.kafka import lag
from pipelined.kafka import topics as kafka_topics
from pipelined.kafka.groups import GroupMember


def made(name: str, config: Config) -> list[Finding]:
    """What a check finds, and what it raises as a finding; not forked: this process has used the clients."""
    (check,) = (each for each in CHECKS if each.name == name)
    return list(check.findings(config))


def only(findings: Iterator[Finding], outcome: Outcome) -> Finding:
    (finding,) = (each for each in findings if each.outcome is outcome)
    return finding


def test_a_folder_that_cannot_be_written_to_is_named_with_its_key(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    config = Config(
        state_dir=f"{tmp_path}/file/state", cache_dir=str(tmp_path), runtime_dir=f"{tmp_path}/run"
    )
    found = only(places.folders(config), Outcome.FAIL)
    assert found.found.startswith(f"state_dir: cannot use {tmp_path}/file/state")
    assert "set state_dir" in found.fix
    assert [*tmp_path.iterdir()] == [tmp_path / "file"], "nothing is made"


def test_a_disk_that_fills_up_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config(state_dir=str(tmp_path), cache_dir=str(tmp_path), runtime_dir=str(tmp_path))
    usage = SimpleNamespace(total=100_000_000_000, free=5_000_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    found = [each for each in places.folders(config) if each.outcome is Outcome.WARN]
    assert len(found) == 3
    assert "5.0 GB free (5%)" in found[0].found
    assert "free space" in found[0].fix
    usage.free = 10_000_000
    assert [each.outcome for each in places.folders(config)] == [Outcome.FAIL] * 3


def test_root_is_told_that_its_rights_say_nothing_of_the_daemons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config(state_dir=str(tmp_path), cache_dir=str(tmp_path), runtime_dir=str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    if os.getuid() == 0:
        os.chown(tmp_path, 12345, -1)
        assert "sudo -u '#12345'" in only(places.folders(config), Outcome.WARN).fix
        os.chown(tmp_path, 0, -1)
        assert all(each.outcome is Outcome.OK for each in places.folders(config))
    else:
        assert f"'#{os.getuid()}'" in only(places.folders(config), Outcome.WARN).fix


def test_a_store_in_a_folder_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    config = built({"upload.url": f"file://{tmp_path}/files"})
    (found,) = places.store(config)
    assert found.outcome is Outcome.OK
    assert "not there yet" in found.found
    assert [*tmp_path.iterdir()] == []


def test_an_object_store_is_written_to_read_and_left_empty() -> None:
    (found,) = made("store", built({"upload.url": "memory:///"}))
    assert (found.outcome, "read and deleted" in found.found) == (Outcome.OK, True)


def test_a_store_that_refuses_us_is_told_with_where_to_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uuid.UUID.hex", "/403")  # the endpoint answers what the path ends with
    with blobs.serving(monkeypatch) as url:
        config = built({"upload.url": url})
        config = dataclasses.replace(
            config, upload=dataclasses.replace(config.upload, auth=blobs.login(tmp_path))
        )
        (found,) = made("store", config)
    assert found.outcome is Outcome.FAIL
    assert "may not write there" in found.found
    assert "upload.auth" in found.fix


def test_tables_that_are_not_there_are_no_failure_and_are_not_made(tmp_path: Path) -> None:
    found = made("tables", built({"tables.url": f"file://{tmp_path}/tables"}))
    assert [each.outcome for each in found] == [Outcome.OK] * 4
    assert [*tmp_path.iterdir()] == []


def test_a_login_whose_token_is_not_there_is_told(tmp_path: Path) -> None:
    auth = {"upload.auth.method": "token_file", "upload.auth.token_file": f"{tmp_path}/token"}
    found = only(services.logins(built(auth)), Outcome.FAIL)
    assert "[upload.auth]" in found.fix
    (tmp_path / "token").write_text("told")
    assert [each.outcome for each in services.logins(built(auth))] == [Outcome.OK]
    assert "no login" in only(services.logins(Config()), Outcome.OK).found


def test_a_source_that_is_not_configured_is_no_failure() -> None:
    assert [*services.eventhouse(Config()), *services.eventhub(Config())] == [fine("not configured")] * 2


@contextmanager
def clock_that_is_off(seconds: float) -> Iterator[str]:
    class Clock(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response_only(401)
            self.send_header("Date", formatdate(time.time() + seconds, usegmt=True))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Clock)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("seconds", "outcome"),
    [(0, Outcome.OK), (30, Outcome.WARN), (-30, Outcome.WARN), (3600, Outcome.FAIL), (-3600, Outcome.FAIL)],
)
def test_a_clock_that_is_off_is_told_with_how_much(seconds: int, outcome: Outcome) -> None:
    with clock_that_is_off(seconds) as url:
        (found,) = machine.clock(built({"eventhouse.url": url}))
    assert found.outcome is outcome
    assert abs(float(found.found.split()[0]) + seconds) <= 2
    assert outcome is Outcome.OK or "NTP" in found.fix


def test_a_service_that_does_not_tell_the_time_is_a_warning_and_the_kernel_is_asked() -> None:
    found = [*machine.clock(built({"eventhouse.url": "http://127.0.0.1:1"}))]
    assert found[0].outcome is Outcome.WARN
    assert "does not tell the time" in found[0].found
    assert "clock" in found[1].found


def test_too_few_open_files_and_too_little_memory_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {each.outcome for each in machine.limits(Config())} <= {Outcome.OK, Outcome.WARN}
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 256))
    monkeypatch.setattr(machine, "_memory_mb", lambda: 512)
    files, memory = machine.limits(Config())
    assert (files.outcome, "ulimit" in files.fix) == (Outcome.FAIL, True)
    assert (memory.outcome, "processes" in memory.fix) == (Outcome.WARN, True)


def test_each_topic_that_does_not_fit_is_told_with_who_can_mend_it(monkeypatch: pytest.MonkeyPatch) -> None:
    changes = [
        kafka_topics.Change("a", "create", create=True),
        kafka_topics.Change("b", "6 → 3 partitions", refused="topics do not shrink"),
    ]
    monkeypatch.setattr(kafka_topics, "plan", lambda *_, **__: changes)
    made, refused = cluster.topics(Config())
    assert made.fix == "run `pipelinectl topics apply`"
    assert "set its section" in refused.fix
    assert made.outcome is refused.outcome is Outcome.FAIL


def test_a_group_that_is_behind_without_anybody_and_a_stranger_in_one_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours = GroupMember("xact.download", "download", "i", "h1", 0, "/10.0.0.1", (), 0)
    stranger = GroupMember("xact.upload", "upload", "", "", -1, "/10.0.0.9", (), 0)
    monkeypatch.setattr(kafka_groups, "members", lambda *_: [ours, stranger])
    monkeypatch.setattr(
        lag.Lags, "ask", lambda self, _: dict.fromkeys(self._types, 0) | {"event-writer": 1234}
    )
    found = {each.found.partition(":")[0]: each for each in cluster.groups(Config())}
    assert found["download"] == fine("download: 1 on h1, 0 records behind")
    assert found["event-writer"].outcome is Outcome.WARN
    assert "1,234 records behind" in found["event-writer"].found
    assert "pipelinectl start" in found["event-writer"].fix
    assert "10.0.0.9" in found["upload"].fix
    assert found["retry-scheduler"].outcome is Outcome.OK
