"""What every level of tests shares."""

from __future__ import annotations

import secrets
import signal
from typing import Any

import hypothesis
import pytest

import realparts
import sharedkafka

# How long an example takes says how busy the machine is, and nothing else.
hypothesis.settings.register_profile("ours", deadline=None)
hypothesis.settings.load_profile("ours")

SHARED = pytest.StashKey[sharedkafka.SharedKafka]()


def pytest_configure(config: pytest.Config) -> None:
    """Own the run's Kafka, unless this is a worker of a run."""
    # In the background of a shell Ctrl-C is ignored, and what the tests start would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if not hasattr(config, "workerinput"):
        config.stash[SHARED] = sharedkafka.SharedKafka()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell an xdist worker where to ask for the run's Kafka."""
    node.workerinput["shared_kafka"] = node.config.stash[SHARED].serve()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the run's Kafka."""
    if shared := config.stash.get(SHARED, None):
        shared.close()


@pytest.fixture(scope="session")
def kafka_bootstrap(pytestconfig: pytest.Config) -> str:
    """``bootstrap.servers`` of a real Kafka shared by the whole run; keep to your own ``domain`` on it."""
    if configured := sharedkafka.configured():
        return configured
    if worker := getattr(pytestconfig, "workerinput", None):
        bootstrap, failure = sharedkafka.ask(worker["shared_kafka"])
    else:
        bootstrap, failure = pytestconfig.stash[SHARED].bootstrap()
    realparts.require("the local Kafka", failure)
    return bootstrap


@pytest.fixture
def domain() -> str:
    """A topic domain of the test's own: the prefix that keeps it apart from others on the same cluster."""
    return f"t{secrets.token_hex(4)}"
