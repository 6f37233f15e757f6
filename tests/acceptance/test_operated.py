"""A daemon that is reloaded, scaled, restarted and paused while it works, by the commands of the how-to."""

from __future__ import annotations

import socket

import pytest

from flow import Flow


@pytest.mark.timeout(180)
def test_the_ledger_balances_across_everything_that_an_operator_does_meanwhile(flow: Flow) -> None:
    flow.start()
    pids = {name: worker["pid"] for name, worker in flow.workers().items()}
    flow.load(flow.day(300, seed=11).lines())

    paused = flow.ctl("pause", "upload")
    assert paused.returncode == 0, paused.stderr
    flow.load(flow.day(200, seed=12).lines())
    assert "upload[0]: paused by an operator" in flow.http("/readyz")[1]

    flow.configure({"download.concurrency": 20, "workers.download.batch_records": 200})
    reloaded = flow.ctl("reload")
    assert (reloaded.returncode, reloaded.stdout.splitlines()) == (
        0,
        [
            "download.concurrency: 50 → 20",
            "workers.download.batch_records: 500 → 200",
            "download/0 is renewed",
        ],
    )
    scaled = flow.ctl("scale", "download", "3")
    assert scaled.returncode == 0, (scaled.stderr, flow.tail())
    flow.load(flow.day(200, seed=13).lines())
    assert flow.ctl("scale", "download", "1").returncode == 0
    restarted = flow.ctl("restart", "event-ingester")
    assert restarted.stdout == "event-ingester/0 is renewed\n", restarted.stderr
    assert flow.ctl("resume", "upload").returncode == 0

    flow.settle()
    after = {name: worker["pid"] for name, worker in flow.workers().items()}
    assert {name for name in pids if pids[name] != after[name]} == {"download", "event-ingester"}
    assert {worker["restarts"] for worker in flow.status()["workers"]} == {0}
    assert flow.stop() == 0


def test_no_mistake_in_the_configuration_takes_a_running_pipeline_down(flow: Flow) -> None:
    flow.start()
    pids = {name: worker["pid"] for name, worker in flow.workers().items()}
    good = flow.config_file.read_text()

    flow.config_file.write_text(good + "[nosuch\n")
    broken = flow.ctl("reload")
    assert (broken.returncode, "is not valid TOML" in broken.stderr) == (78, True)
    flow.config_file.write_text(good)

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        flow.configure({"kafka.bootstrap": "127.0.0.1:1"})
        away = flow.ctl("reload")
        assert away.returncode == 78
        assert "the new settings cannot be tried" in away.stderr
        flow.config_file.write_text(good)
        flow.configure({"kafka.bootstrap": flow.config.kafka.bootstrap, "endpoint.port": port})
        back = flow.ctl("reload")
    assert back.returncode == 1
    assert "endpoint/0 does not come up" in back.stderr
    assert "endpoint/0 is put back" in back.stdout
    flow.until_state("running")
    after = {name: worker["pid"] for name, worker in flow.workers().items()}
    assert {name for name in pids if pids[name] != after[name]} == {"endpoint"}
    assert flow.http("/readyz") == (200, "ok\n")

    assert flow.daemon is not None
    flow.config_file.write_text(good + "[nosuch]\n")
    assert flow.ctl("restart").returncode == 78
    assert flow.daemon.poll() is None, "nothing is stopped for a configuration that is wrong"
    flow.config_file.write_text(good)
    again = flow.ctl("restart")
    assert again.returncode == 0, again.stderr
    assert flow.daemon.wait(5) == 0
    assert flow.ctl("status").returncode == 0
    assert flow.ctl("stop").returncode == 0
