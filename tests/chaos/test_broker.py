"""The broker is not there, or goes away: the daemon waits, says so, and nothing is lost or doubled."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import realparts
from chaos.day.brokers import launch
from flow import Flow
from pipelined.errors import UnavailableError
from pipelined.local.fileserver import FileServer
from pipelined.local.kafka import Cluster

pytestmark = [pytest.mark.xdist_group("own-kafka"), pytest.mark.timeout(150)]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A Kafka of the test's own, running; its data survive a stop."""
    realparts.require("the local Kafka", realparts.local_kafka_missing())
    made = Cluster(directory=tmp_path / "kafka")
    try:
        made.start()
    except UnavailableError as error:
        realparts.require("the local Kafka", str(error))
    yield made
    made.stop()


@pytest.fixture
def on_own_kafka(tmp_path: Path, cluster: Cluster, domain: str) -> Iterator[Flow]:
    with FileServer() as files, Flow(tmp_path, cluster.bootstrap, domain, files.url) as made:
        made.apply_topics()
        yield made


def test_a_daemon_without_a_broker_waits_unready_and_works_when_it_comes(
    cluster: Cluster, on_own_kafka: Flow
) -> None:
    flow = on_own_kafka
    cluster.nodes[0].stop()
    flow.start(wait=False)
    flow.until_logged("waiting for Kafka")
    flow.until_logged(cluster.bootstrap)
    assert flow.status()["state"] == "starting"
    assert flow.http("/livez") == (200, "ok\n"), "waiting is no reason to be restarted"
    code, reasons = flow.http("/readyz")
    assert code == 503
    assert "result-processor[0]: STARTING" in reasons

    cluster.nodes[0].start()
    status = flow.until_state("running")
    assert all(worker["restarts"] == 0 for worker in status["workers"]), status
    flow.load(flow.day(40, seed=4).lines())
    flow.settle()
    assert flow.http("/readyz") == (200, "ok\n")


def test_a_broker_killed_in_the_middle_of_the_flow_costs_nothing(
    cluster: Cluster, on_own_kafka: Flow
) -> None:
    flow = on_own_kafka
    flow.start()
    files = [flow.write(flow.day(60, seed).lines()) for seed in range(8)]
    with ThreadPoolExecutor(1) as pool:
        loading = [pool.submit(flow.load_whatever_happens, file) for file in files]
        flow.until_worker("download", lambda worker: worker["records_in"] > 20, "is at work")
        cluster.nodes[0].kill()
        time.sleep(2)  # how long it is away
        assert flow.http("/livez") == (200, "ok\n")
        launch(cluster.nodes, print)
        for each in loading:
            each.result()
    balance = flow.settle()
    assert balance.read == 8 * 60
    assert balance.completed > 100
    flow.until_state("running", 30)
    assert flow.stop() == 0
