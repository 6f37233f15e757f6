"""Microsoft's own KQL parser binds every query we send; that the local Eventhouse runs them says less."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from eventhouse_queries import NAMED, NAMED_TYPES, texts

import kustoqueries as kql
import npmparts
import realparts
from pipelined.config.sources import Eventhouse

FILES = Path(__file__).with_name("kqlparser")
BIND_SECONDS = 120


@pytest.fixture(scope="module")
def parser() -> Path:
    folder, missing = npmparts.installed(FILES)
    realparts.require("Microsoft's KQL parser", missing)
    return folder


#: The table as it is described, and one whose columns may have any type and name.
TABLES = {
    kql.TABLE: kql.COLUMNS,
    "Texts": dict.fromkeys(kql.COLUMNS, "string"),
    NAMED.table: NAMED_TYPES,
}


def bound(parser: Path, queries: Mapping[str, str]) -> dict[str, list[str]]:
    """What the parser has to say about each query, on the poller's tables."""
    done = subprocess.run(
        ["node", str(FILES / "bind.js")],
        cwd=parser,
        input=json.dumps({"tables": TABLES, "queries": queries}),
        capture_output=True,
        text=True,
        timeout=BIND_SECONDS,
        check=True,
    )
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


def test_every_query_that_is_sent_is_bound_without_a_word(parser: Path) -> None:
    condition = "type startswith 'verisk.claims' and version in (1, 2) // ours"
    sections = {
        "plain": Eventhouse(table=kql.TABLE),
        "filtered": Eventhouse(table=kql.TABLE, filter=condition),
        "of texts": Eventhouse(table="Texts"),
        "named": NAMED,
    }
    queries = {
        f"{kind}: {name}": text for kind, section in sections.items() for name, text in texts(section).items()
    }
    assert bound(parser, queries) == {name: [] for name in queries}


def test_the_parser_finds_what_the_local_eventhouse_lets_through(parser: Path) -> None:
    wrong = {
        "text is not ordered": f"{kql.TABLE} | where ['type'] > 'a'",
        "case counts": f"{kql.TABLE} | where TraceId == guid(null)",
        "text is no time": f"{kql.TABLE} | where utcDateTime > '2026-01-05'",
        "no such table": "Other | take 1",
        "no such function": f"{kql.TABLE} | where cursor_behind('')",
        "no KQL": f"{kql.TABLE} | wher 1",
    }
    assert {name for name, told in bound(parser, wrong).items() if told} == set(wrong)
