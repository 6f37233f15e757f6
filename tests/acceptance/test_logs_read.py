"""``pipelinectl logs`` of a daemon in the background that works."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from flow import Flow, event, pipelinectl_command, trace_ids
from pipelined.local.fileserver import file_path
from pipelined.logs.events import EVENTS
from waiting import until


def entries(flow: Flow, *arguments: str) -> list[dict[str, str]]:
    """What it prints as JSON."""
    done = flow.ctl("logs", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stderr == f"from {flow.config.state_dir}/pipelined.log\n"
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_log_of_a_daemon_in_the_background_is_read_by_type_level_and_trace(flow: Flow) -> None:
    flow.configure({"workers.download.stuck_s": 1.0, "download.low_speed_s": 30.0, "logs.format": "auto"})
    assert flow.ctl("logs").returncode == 69, "nothing has logged yet"
    started = flow.ctl("start")
    assert started.returncode == 0, started.stderr
    try:
        trace, other = trace_ids(2)
        urls = [flow.files_url + file_path("stall-1", 20_000, number, "GENERIC.pdf") for number in range(2)]
        flow.load(event(name, [url]) for name, url in zip((trace, other), urls, strict=True))
        (told,) = until(lambda: entries(flow, "--trace", trace), "one is put off", 60)[:1]
        assert (told["event"], told["worker"], told["level"]) == ("record.stuck", "download", "WARNING")
        assert told["topic"] == f"{flow.domain}.downloads.pending"
        assert told["instance"] == f"{flow.domain}.here.download.0"
        assert {each["worker"] for each in entries(flow, "upload", "--since", "1h")} == {
            "upload",
            "supervisor",
        }
        assert {each["level"] for each in entries(flow, "--level", "warning")} == {"WARNING"}

        first = flow.run(["sh", "-c", f"{follow(flow)} | head -1"], timeout=30)
        assert first.stdout.count("\n") == 1
        assert "Traceback" not in first.stderr
    finally:
        assert flow.ctl("stop").returncode == 0
    all_of_them = entries(flow, "--since", "1h")
    assert all_of_them[-1]["event"] == "daemon.ended"
    ours = [each for each in all_of_them if each.get("logger", "").startswith("pipelined")]
    assert {each["event"] for each in ours} <= {event.code for event in EVENTS}, "each has a code"
    assert len(ours) > 20


def test_the_log_of_a_daemon_in_the_background_stays_small_and_whole(flow: Flow) -> None:
    log = Path(flow.config.state_dir) / "pipelined.log"
    log.parent.mkdir()
    log.write_bytes(b"a line of a daemon long ago\n" * 40_000)
    flow.configure({"logs.file_mb": 1.0, "logs.format": "json"})
    assert flow.ctl("start").returncode == 0
    try:
        until(lambda: log.with_name("pipelined.log.1").exists(), "the full one is put aside")
        streams = [Path(f"/proc/{pid}/fd/{fd}") for pid in flow.processes() for fd in (1, 2)]
        assert len(streams) > 10
        until(lambda: {each.readlink() for each in streams} == {log}, "all of them write to the new one")
        assert log.stat().st_size < 1_000_000
        assert flow.ctl("reload").returncode == 0
    finally:
        assert flow.ctl("stop").returncode == 0
    told = [each["event"] for each in entries(flow, "supervisor", "--since", "1h") if "event" in each]
    (at,) = [number for number, event in enumerate(told) if event == "log.goes_on"]
    assert "daemon.starts" in told[:at], "what was logged before is read as well"
    assert told[-1] == "daemon.ended"


def follow(flow: Flow) -> str:
    """A command that would go on for ever."""
    return shlex.join(map(str, [*pipelinectl_command("--config", flow.config_file), "logs", "--follow"]))
