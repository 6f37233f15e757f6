"""A local Eventhouse for a module of tests, and the unmodified client of Microsoft."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kustoasking import Asking

import kustoqueries as kql
from pipelined.local.eventhouse import Eventhouse


@pytest.fixture(scope="module")
def running() -> Iterator[Eventhouse]:
    with Eventhouse() as server:
        yield server


@pytest.fixture
def house(running: Eventhouse) -> Iterator[Eventhouse]:
    """An empty table, no faults, the settings a server starts with."""
    running.command(kql.CREATE)
    started_with = running.change_settings()
    yield running
    running.change_settings(**started_with)
    running.clear_faults()
    for table, *_ in running.command(".show tables"):
        running.command(f".drop table ['{table}']")


@pytest.fixture
def ask(house: Eventhouse) -> Iterator[Asking]:
    asking = Asking(house.url)
    yield asking
    asking.client.close()
