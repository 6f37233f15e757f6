"""Microsoft's own KQL parser binds every query we send; that the local Eventhouse runs them says less."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from eventhouse_queries import NAMED, NAMED_TYPES, texts

import kustoqueries as kql
import realparts
from pipelined.config.sources import Eventhouse
from pipelined.local.jars import cache_folder, locked

FILES = Path(__file__).with_name("kqlparser")
INSTALL_SECONDS = 180
BIND_SECONDS = 120


def installed() -> tuple[Path, str | None]:
    """The folder with the parser of the lock file, fetched once; and why it cannot be had, or None."""
    lock = FILES / "package-lock.json"
    folder = cache_folder() / f"kqlparser-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
    npm = shutil.which("npm")
    if not shutil.which("node") or not npm:
        return folder, "node and npm are not installed"
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / "installed"
    with locked(folder / ".lock"):
        if not done.exists():
            for name in ("package.json", "package-lock.json"):
                shutil.copy(FILES / name, folder)
            command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            tried = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
            )
            if tried.returncode:
                return folder, f"npm could not install it: {tried.stderr[-500:]}"
            done.touch()
    return folder, None


@pytest.fixture(scope="module")
def parser() -> Path:
    folder, missing = installed()
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
