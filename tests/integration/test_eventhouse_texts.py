"""The list of query texts that Microsoft's parser binds is all that the source ever sends."""

from __future__ import annotations

import re

import pytest
from eventhouse_queries import texts

from eventhouse_table import Table, events, polling
from pipelined.errors import ConfigError
from pipelined.local.eventhouse import Eventhouse
from pipelined.sources.eventhouse.range import Range, RangeReader


def sent(house: Eventhouse) -> set[str]:
    """What was asked by us, whatever the size of the page."""
    ours = (each for each in house.requests() if each["headers"]["x-ms-app"].startswith("pipelined/"))
    return {re.sub(r"\btake [0-9]{2,}", "take 100", each["text"]) for each in ours}


def test_what_is_sent_is_in_the_list() -> None:
    with Eventhouse() as house:
        table = Table(house)
        with polling(table, page_rows=20, filter="isnotempty(['type'])") as poller:
            table.ingest([*events(70), *events(50, traceId=None)])
            poller.drain()
            poller.source.probe()
            poller.source.begin_at("now")
            poller.source.resume(poller.source.begin_at("2001-01-01"))
            poller.drain()
            poller.changes["filter"] = "nothing"
            poller.again()
            with pytest.raises(ConfigError, match=r"eventhouse\.filter"):
                poller.step()
            reader = RangeReader(table.config(filter=""), Range.times("2001-01-01", "2101-01-01"), 20)
            reader.count()
            key, finished = None, False
            while not finished:
                _, key, finished, _ = reader.read(key)
            reader.close()
            house.change_settings(cursors="off")
            poller.changes["filter"] = ""
            poller.position = None
            poller.again(start="now")
            poller.drain()
            table.ingest(events(30))
            table.ingest(events(30), ingested=1)
            poller.drain()
            table.ingest(events(30))
            poller.again(filter="isnotempty(['type'])")
            poller.drain()
        asked = sent(house)
        sections = [
            table.config(filter=condition).eventhouse for condition in ("", "nothing", "isnotempty(['type'])")
        ]
        known = {text for section in sections for text in texts(section).values()}
        assert asked <= known
        assert len(asked) >= 15
        table.close()
