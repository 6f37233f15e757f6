"""What is refused at the start, and how it is said: configuration, topics, a second daemon, a port in use."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import pytest

from flow import Flow, pipelinectl_command, pipelined_command

SECRET = "s3cr3t-Tr0ub4dor-7"


@pytest.fixture
def bare(tmp_path: Path, kafka_bootstrap: str, domain: str) -> Flow:
    """An installation whose topics are missing, and without a file server."""
    return Flow(tmp_path, kafka_bootstrap, domain, "http://127.0.0.1:9")


def test_a_wrong_configuration_is_refused_with_every_problem_and_the_nearest_key(bare: Flow) -> None:
    bare.configure(
        {
            "kafka.bootstrp": "127.0.0.1:9092",
            "download.concurrency": 0,
            "upload.timeout_s": "long",
            "retry.delays_s": [2.0, 1.0],
            "kafka.sasl_password": SECRET,
        }
    )
    for command in (
        pipelined_command("--config", bare.config_file, "run"),
        pipelinectl_command("--config", bare.config_file, "config", "check"),
        pipelinectl_command("--config", bare.config_file, "load", "-"),
    ):
        refused = bare.run(command)
        assert refused.returncode == 78, command
        lines = refused.stderr.splitlines()
        assert all(line.startswith("error: ") for line in lines)
        assert any("kafka.bootstrp" in line and "the nearest is kafka.bootstrap" in line for line in lines)
        for key in ("download.concurrency", "upload.timeout_s", "retry.delays_s", "kafka.sasl_password"):
            assert any(key in line for line in lines), f"{key} is not told: {refused.stderr}"
        assert SECRET not in refused.stdout + refused.stderr
    assert not (bare.folder / "state").exists(), "nothing was begun"


def test_a_secret_in_a_file_is_used_and_never_printed(bare: Flow) -> None:
    secret = bare.folder / "password"
    secret.write_text(SECRET + "\n")
    bare.configure(
        {
            "kafka.security_protocol": "SASL_PLAINTEXT",
            "kafka.sasl_username": "pipelined",
            "kafka.sasl_password": f"file:{secret}",
            "logs.level": "DEBUG",
        }
    )
    shown = bare.ctl("config", "show")
    assert shown.returncode == 0, shown.stderr
    assert f"file:{secret}" in shown.stdout
    with bare:
        # The broker of the tests speaks no SASL: what the clients say of that must not tell the secret.
        bare.start(wait=False)
        bare.until_logged("waiting for Kafka")
        told = json.dumps(bare.status()) + shown.stdout + shown.stderr
        assert bare.stop() == 0
    assert SECRET not in told + bare.log()
    secret.unlink()
    checked = bare.ctl("config", "check")
    assert checked.returncode == 78
    assert f"file:{secret}" in checked.stderr


def test_without_its_topics_the_daemon_refuses_and_names_the_command_that_makes_them(bare: Flow) -> None:
    with bare:
        refused = bare.run(pipelined_command("--config", bare.config_file, "run"))
        assert refused.returncode == 78
        assert f"{bare.domain}.events.raw" in refused.stderr
        assert "pipelinectl topics apply" in refused.stderr

        assert bare.ctl("topics", "apply").returncode == 0
        assert bare.ctl("topics", "plan").stdout == "the topics are as declared\n"
        bare.start()
        assert bare.stop() == 0


def test_a_second_daemon_on_the_same_folder_is_refused_with_the_pid_of_the_first(flow: Flow) -> None:
    flow.start()
    first = flow.status()["pid"]
    refused = flow.run(pipelined_command("--config", flow.config_file, "run"))
    assert refused.returncode == 73
    assert re.search(rf"error: .*\(pid {first}\)", refused.stderr), refused.stderr
    assert flow.until_state("running")["pid"] == first
    flow.load(flow.day(20, seed=3).lines())
    flow.settle()


def test_a_port_in_use_is_told_and_keeps_nobody_from_working(flow: Flow) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        flow.configure({"endpoint.port": port})
        flow.start(wait=False)
        status = flow.until_state("degraded", patience=20)
        states = {worker["type"]: worker["state"] for worker in status["workers"]}
        assert states.pop("endpoint") in {"BACKOFF", "STARTING"}
        assert set(states.values()) == {"RUNNING"}
        flow.until_logged(
            f"the endpoint cannot listen on 127.0.0.1:{port}: Address already in use; "
            "set endpoint.port to a free port"
        )
        assert "Traceback" not in flow.log(), "what happened is told in one line"
        assert flow.ctl("status").returncode == 1
        flow.load(flow.day(20, seed=3).lines())
        flow.settle()
    flow.until_state("running", patience=30)
    assert flow.http("/livez") == (200, "ok\n")
