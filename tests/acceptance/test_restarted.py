"""``pipelinectl restart`` of a daemon that no service runs: it comes back as it was called."""

from __future__ import annotations

import json

import pytest

from flow import Flow, pipelined_command


def running(flow: Flow) -> dict[str, str]:
    """What the running daemon has otherwise than the file."""
    done = flow.ctl("config", "diff", "--json")
    assert done.returncode in {0, 1}, done.stderr
    return {each["key"]: each["old"] for each in json.loads(done.stdout)["changes"]}


@pytest.mark.timeout(180)
def test_a_restarted_daemon_has_the_options_that_it_had_and_those_of_the_restart(flow: Flow) -> None:
    first = flow.popen(
        pipelined_command(
            *("--config", flow.config_file.name, "--set", "download.concurrency=33"),
            *("--set", "upload.concurrency=7", "run", "--worker", "upload", "--worker", "endpoint"),
        ),
        flow.log_file,
        cwd=flow.folder,
    )
    flow.until_state("running")

    flow.configure({"breaker.open_s": 0.7})
    flow.config_file.write_text(flow.config_file.read_text() + "[nosuch]\n")
    refused = flow.ctl("restart")
    assert (refused.returncode, first.poll()) == (78, None), "nothing is stopped for a wrong configuration"
    flow.configure({})
    refused = flow.ctl("--set", "download.concurrency=nonsense", "restart")
    assert (refused.returncode, first.poll()) == (78, None)
    refused = flow.ctl("restart", "--timeout", "0")
    assert (refused.returncode, first.poll()) == (64, None), "it would not be started again"

    again = flow.ctl("--set", "upload.concurrency=9", "restart")
    assert again.returncode == 0, again.stderr
    assert first.wait(10) == 0, "it drained"
    wanted = f"pipelined --config {flow.config_file} --set download.concurrency=33 --set upload.concurrency=9"
    assert f"{wanted} run --worker upload --worker endpoint\n" in again.stderr
    assert flow.workers().keys() == {"upload", "endpoint"}
    assert running(flow) == {"download.concurrency": "33", "upload.concurrency": "9"}
    assert flow.config.breaker.open_s == 0.7, "and it has read the file again"

    assert flow.ctl("stop").returncode == 0
    fresh = flow.ctl("restart", "upload")
    assert fresh.returncode == 69
    fresh = flow.ctl("restart")
    assert (fresh.returncode, "started with" in fresh.stderr) == (0, False), fresh.stderr
    assert running(flow) == {}
    same = flow.ctl("restart")
    assert (same.returncode, "started with" in same.stderr) == (0, False), "nothing differs"
    assert flow.ctl("stop").returncode == 0
