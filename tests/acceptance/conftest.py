"""An installation of the test's own on the run's Kafka, and a booted systemd to install one in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from service_host import installed

import machine as machine_module
import realparts
from flow import Flow
from machine import Machine
from pipelined.local.fileserver import FileServer


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A booted systemd with the package installed, for a module of tests."""
    realparts.require("a systemd of our own", machine_module.missing())
    with installed(tmp_path_factory.mktemp("machine")) as made:
        yield made


@pytest.fixture
def flow(tmp_path: Path, kafka_bootstrap: str, domain: str) -> Iterator[Flow]:
    """Configuration and topics are there, the daemon is not started; nothing runs at the end."""
    with FileServer() as files, Flow(tmp_path, kafka_bootstrap, domain, files.url) as made:
        made.apply_topics()
        yield made
