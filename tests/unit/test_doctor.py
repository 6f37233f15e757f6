"""The doctor: planted failures are found, each with its fix; what hangs or dies is told, nobody waits."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result

import blobs
from pipelined import __version__
from pipelined.cli import doctor as command
from pipelined.cli.settings import Settings
from pipelined.config import Config
from pipelined.config.leaves import built
from pipelined.doctor import cluster, machine, places, services
from pipelined.doctor.checks import CHECKS
from pipelined.doctor.examination import Check, examine
from pipelined.doctor.finding import Finding, Outcome, failed, fine, warned
from pipelined.errors import ConfigError
from pipelined.kafka import groups as kafka_groups
from pipelined.kafka import lag
from pipelined.kafka import topics as kafka_topics
from pipelined.kafka.groups import GroupMember
from pipelined.supervisor import pidfile
from pipelined.supervisor.pidfile import Pidfile
from processes import gone


def check(name: str, *findings: Finding, needs: tuple[str, ...] = ()) -> Check:
    return Check(name, "", lambda _: findings, "mend it", needs=needs)


def told(*checks: Check) -> list[tuple[str, Finding]]:
    return list(examine(Config(), checks))


def test_findings_come_in_the_order_of_the_checks_whoever_is_faster() -> None:
    def slow(_: Config) -> Iterator[Finding]:
        time.sleep(0.3)
        yield fine("slow")

    assert told(Check("first", "", slow, ""), check("second", fine("quick"), warned("look", "do"))) == [
        ("first", fine("slow")),
        ("second", fine("quick")),
        ("second", warned("look", "do")),
    ]


def test_a_check_that_hangs_is_ended_with_what_it_found_and_the_others_go_on(tmp_path: Path) -> None:
    def hangs(_: Config) -> Iterator[Finding]:
        yield fine("so far")
        (tmp_path / "pid").write_text(str(os.getpid()))
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)

    began = time.monotonic()
    found = told(Check("hung", "", hangs, "start it", limit_s=0.5), check("other", fine("well")))
    assert time.monotonic() - began < 10
    assert found == [
        ("hung", fine("so far")),
        ("hung", failed("no answer within 0.5 s", "start it")),
        ("other", fine("well")),
    ]
    assert gone(int((tmp_path / "pid").read_text()))


def test_many_hung_checks_take_no_longer_than_one() -> None:
    def hangs(_: Config) -> Iterator[Finding]:
        time.sleep(600)
        yield fine("never")

    hung = [Check(f"h{number}", "", hangs, "x", limit_s=0.5) for number in range(6)]
    began = time.monotonic()
    assert len(told(*hung)) == 6
    assert time.monotonic() - began < 5


def test_a_check_that_dies_is_told_and_the_others_go_on() -> None:
    def dies(_: Config) -> Iterator[Finding]:
        os.kill(os.getpid(), signal.SIGSEGV)
        yield fine("never")

    (_, died), (_, other) = told(Check("dead", "", dies, ""), check("other", fine("well")))
    assert died.outcome is Outcome.FAIL
    assert "SIGSEGV" in died.found
    assert "--only dead" in died.fix
    assert other == fine("well")


def test_what_a_check_raises_is_what_was_found() -> None:
    def ours(_: Config) -> Iterator[Finding]:
        raise ConfigError(["one thing", "and another"])

    def another(_: Config) -> Iterator[Finding]:
        raise KeyError("what")

    found = told(Check("ours", "", ours, "mend it"), Check("another", "", another, "see"))
    assert [finding for _, finding in found] == [
        failed("one thing", "mend it"),
        failed("and another", "mend it"),
        failed("KeyError: 'what'", "see"),
    ]


def test_a_check_waits_for_what_it_needs_and_is_left_out_where_that_failed() -> None:
    found = told(
        check("later", fine("well"), needs=("good",)),
        check("after", fine("well"), needs=("bad",)),
        check("good", warned("hm", "look")),
        check("bad", failed("no", "mend")),
        check("free", fine("well"), needs=("not asked for",)),
    )
    by_name = dict(found)
    assert by_name["later"] == by_name["free"] == fine("well")
    assert by_name["after"].outcome is Outcome.WARN
    assert by_name["after"].fix == "first mend bad"


def test_nothing_is_left_running_where_nobody_wants_to_know_any_more(tmp_path: Path) -> None:
    def hangs(_: Config) -> Iterator[Finding]:
        (tmp_path / "pid").write_text(str(os.getpid()))
        time.sleep(600)
        yield fine("never")

    findings = examine(Config(), [check("first", fine("well")), Check("hung", "", hangs, "", limit_s=60)])
    assert next(findings)[0] == "first"
    deadline = time.monotonic() + 10
    while not (tmp_path / "pid").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    findings.close()
    assert gone(int((tmp_path / "pid").read_text()))


def test_a_secret_is_masked_in_what_is_found_and_in_the_fix() -> None:
    finding = failed("https://a.blob/x?sig=PLANTED123456&se=1\nnext", "AccountKey=PLANTED123456==;")
    assert "PLANTED" not in finding.found + finding.fix
    assert "\n" not in finding.found


def test_every_check_has_a_name_of_its_own_a_fix_and_a_time() -> None:
    names = [each.name for each in CHECKS]
    assert len({*names}) == len(names)
    assert all(each.fix and each.about and 0 < each.limit_s <= 60 for each in CHECKS)
    assert {need for each in CHECKS for need in each.needs} <= {*names}


# What each check finds.


def made(name: str, config: Config) -> list[Finding]:
    """What a check finds in a process of its own: a store that was used once must not be forked."""
    return [found for _, found in examine(config, [each for each in CHECKS if each.name == name])]


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


# The command.


def ctl(tmp_path: Path, *arguments: str, text: str = "") -> Result:
    file = tmp_path / "pipelined.toml"
    folders = (f'{key} = "{tmp_path}/{key}"' for key in ("state_dir", "cache_dir", "runtime_dir"))
    file.write_text("\n".join(folders) + f"\n{text}\n")
    result = CliRunner().invoke(command.doctor, arguments, obj=Settings(file), standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result


def test_a_configuration_that_is_broken_is_a_failure_told_in_lines(tmp_path: Path) -> None:
    done = ctl(tmp_path, text='[kafka]\nbootstrap = 3\n[upload]\nurl = "ftp://x"')
    assert done.return_value == 1
    lines = done.stdout.splitlines()
    assert len(lines) >= 2
    assert all(line.startswith("FAIL  configuration  ") and " → " in line for line in lines)


def test_a_secret_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    text = '[kafka]\nsecurity_protocol = "SASL_SSL"\nsasl_username = "u"\nsasl_password = "file:/absent/x"'
    done = ctl(tmp_path, "--only", "configuration", text=text)
    assert done.return_value == 1
    assert "kafka.sasl_password" in done.stdout


def test_only_what_was_asked_for_is_looked_at_and_a_warning_is_no_failure(tmp_path: Path) -> None:
    done = ctl(tmp_path, "--only", "daemon", "--only", "folders", "--json")
    found = json.loads(done.stdout)
    assert done.return_value == 0
    assert [each["check"] for each in found] == ["folders"] * 3 + ["daemon"]
    assert found[-1] == {
        "check": "daemon",
        "outcome": "warn",
        "found": "it does not run",
        "fix": "start it: `pipelinectl start`",
    }
    assert "0 FAIL" in done.stderr


def test_a_daemon_that_holds_its_lock_and_does_not_answer_is_a_failure(tmp_path: Path) -> None:
    lock = Pidfile(f"{tmp_path}/state_dir")
    lock.acquire()
    try:
        done = ctl(tmp_path, "--only", "daemon")
    finally:
        lock.release()
    assert done.return_value == 1
    assert f"pid {os.getpid()}" in done.stdout


def test_a_daemon_of_another_version_and_a_worker_that_was_given_up_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = [{"type": "upload", "index": 0, "state": "FATAL", "reason": "given up: exit 78"}]
    document = {
        "versions": {"pipelined": "0.0.1"},
        "pid": os.getpid(),
        "state": "degraded",
        "since": "…",
        "workers": workers,
    }
    monkeypatch.setattr(command, "holder", lambda _: 1)
    monkeypatch.setattr(command, "request", lambda *_: {"status": document})
    done = ctl(tmp_path, "--only", "daemon")
    assert f"it is version 0.0.1, and this is {__version__}" in done.stdout
    assert "FAIL  daemon  upload/0 is FATAL: given up: exit 78 → " in done.stdout
    assert pidfile.holder(str(tmp_path)) is None


def test_the_names_that_the_command_takes_are_those_of_the_checks(tmp_path: Path) -> None:
    assert set(command.NAMES) == {each.name for each in CHECKS} | {"configuration", "service", "daemon"}
    done = ctl(tmp_path, "--only", "service")
    assert done.return_value == 0
    assert done.stdout.startswith("ok    service  ")


def test_each_check_is_on_its_how_to_page() -> None:
    page = (Path(__file__).parents[2] / "docs/how-to/doctor.md").read_text()
    assert [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")] == [*command.NAMES]


def test_the_command_has_one_thread_when_it_forks_its_checks() -> None:
    program = (
        "import os, sys, pipelined.cli.pipelinectl; "
        "print(len(os.listdir('/proc/self/task')), {'deltalake', 'obstore', 'pyarrow'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "1 set()\n", "a lock that a thread holds would stay held in the child"
