"""What the configuration insists on where a source is enabled."""

from __future__ import annotations

import pytest

from pipelined.config import WORKER_TYPES, load
from pipelined.config.tree import SOURCE_TYPES, Config
from pipelined.errors import ConfigError

HOUSE = ("eventhouse.url=https://x.kusto.fabric.microsoft.com", "eventhouse.database=d")
HUB = ("eventhub.bootstrap=x.servicebus.windows.net:9093", "eventhub.topic=t")
POLL, READ = "workers.eventhouse_poller.processes", "workers.eventhub_reader.processes"


def problems(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        load(None, overrides, {})
    return raised.value.problems


def test_sources_stand_at_the_head_of_the_flow_and_are_off_until_they_are_enabled() -> None:
    assert WORKER_TYPES[: len(SOURCE_TYPES)] == SOURCE_TYPES
    assert [Config().worker(source).processes for source in SOURCE_TYPES] == [0, 0]


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ((f"{POLL}=1",), ["eventhouse.url", "eventhouse.database"]),
        ((f"{POLL}=1", HOUSE[0]), ["eventhouse.database"]),
        ((f"{READ}=1",), ["eventhub.bootstrap", "eventhub.topic"]),
        ((f"{READ}=1", HUB[0]), ["eventhub.topic"]),
        (("sources.pause_lag=10",), ["sources.resume_lag"]),
        (("sources.pause_stages=event-ingester,endpoint",), ["sources.pause_stages"]),
        (("sources.pause_stages=eventhouse-poller",), ["sources.pause_stages"]),
        (("sources.pause_stages=ingester",), ["sources.pause_stages"]),
        ((f"{POLL}=2", *HOUSE), [POLL]),
        ((f"{READ}=2", *HUB), [READ]),
    ],
    ids=lambda value: "",
)
def test_what_does_not_fit_is_named(overrides: tuple[str, ...], named: list[str]) -> None:
    found = problems(*overrides)
    for name in named:
        assert any(problem.startswith(name) for problem in found), found


def test_a_source_that_is_off_needs_nothing_and_an_enabled_one_has_all_it_needs() -> None:
    assert load(None, ("eventhouse.url=",), {}).config.eventhouse.url == ""
    auth = ("eventhouse.auth.method=managed_identity", "eventhub.auth.method=managed_identity")
    config = load(None, (f"{POLL}=1", f"{READ}=1", *HOUSE, *HUB, *auth), {}).config
    assert config.worker("eventhouse-poller").processes == config.worker("eventhub-reader").processes == 1
