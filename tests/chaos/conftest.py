"""An installation of the test's own on the run's Kafka."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flow import Flow
from pipelined.local.fileserver import FileServer


@pytest.fixture
def flow(tmp_path: Path, kafka_bootstrap: str, domain: str) -> Iterator[Flow]:
    """Configuration and topics are there, the daemon is not started; nothing runs at the end."""
    with FileServer() as files, Flow(tmp_path, kafka_bootstrap, domain, files.url) as made:
        made.apply_topics()
        yield made
