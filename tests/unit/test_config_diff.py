"""Which keys differ, and who has to begin anew because of them."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import pytest

import pipelined
from pipelined.config.diff import AT_ONCE, DAEMON, NEEDS, changes, claimed, fixed, matches, reload_of, touches
from pipelined.config.leaves import built, leaves, sections
from pipelined.config.tree import WORKER_TYPES, Config

PATHS = [leaf.path for leaf in leaves()]


@pytest.mark.parametrize("path", PATHS)
def test_every_key_is_claimed_by_somebody(path: str) -> None:
    assert claimed(path) or matches(path, DAEMON) or matches(path, AT_ONCE), (
        f"nobody says what a reload does with {path}: claim it in config/diff.py"
    )


@pytest.mark.parametrize(
    "pattern", sorted({*DAEMON, *AT_ONCE, *(p for each in NEEDS.values() for p in each)})
)
def test_every_claim_is_of_keys_that_exist(pattern: str) -> None:
    assert [path for path in PATHS if matches(path, [pattern])]


def test_every_worker_type_says_what_it_needs() -> None:
    assert tuple(NEEDS) == WORKER_TYPES


def test_no_configuration_differs_from_itself() -> None:
    assert changes(Config(), Config()) == []


def test_a_change_is_told_as_the_file_would_write_it() -> None:
    new = built({"download.concurrency": 60, "urls.allowed_hosts": ("a.example",)})
    assert [str(change) for change in changes(Config(), new)] == [
        'urls.allowed_hosts: ["*.amazonaws.com", "*.blob.core.windows.net"] → ["a.example"]',
        "download.concurrency: 50 → 60",
    ]


@pytest.mark.parametrize(
    ("path", "value", "types"),
    [
        ("download.concurrency", 60, {"download"}),
        ("urls.allow_http", True, {"event-ingester", "download"}),
        ("tables.flush_rows", 5, {"event-writer", "result-processor", "table-maintenance"}),
        ("tables.url", "file:///t", {"event-writer", "result-processor", "table-maintenance", "endpoint"}),
        ("kafka.compression", "zstd", set(WORKER_TYPES) - {"table-maintenance", "endpoint"}),
        ("logs.level", "DEBUG", set()),
        ("logs.format", "text", set(WORKER_TYPES)),
        ("workers.upload.processes", 4, set()),
        ("workers.upload.batch_records", 4, {"upload"}),
        ("workers.upload.hang_s", 4.0, set(WORKER_TYPES) - {"table-maintenance"}),
        ("supervisor.healthy_s", 4.0, set()),
    ],
)
def test_only_those_begin_anew_that_look_at_the_key(path: str, value: object, types: set[str]) -> None:
    differing = changes(Config(), built({path: value}))
    assert len(differing) == 1
    assert {each for each in WORKER_TYPES if touches(differing, each)} == types
    assert fixed(differing) == []


@pytest.mark.parametrize("path", ["domain", "state_dir", "kafka.host", "topics.events_raw.name"])
def test_what_the_daemon_is_known_by_stays_for_its_life(path: str) -> None:
    assert [change.path for change in fixed(changes(Config(), built({path: "other"})))] == [path]


#: Where a section is looked at by its name, and by whom that module is used.
_USERS = {
    "stages/download.py": {"download"},
    "stages/upload.py": {"upload"},
    "workers/endpoint.py": {"endpoint"},
    "workers/runtime.py": {"event-ingester", "retry-scheduler", "download", "upload"},
    "workers/tables.py": {"event-writer", "result-processor"},
    "workers/source.py": {"eventhouse-poller", "eventhub-reader"},
    "workers/routing.py": {"event-ingester", "retry-scheduler", "download", "upload"},
}


@pytest.mark.parametrize("module", _USERS)
def test_what_a_module_reads_is_claimed_by_the_workers_that_use_it(module: str) -> None:
    names = {field.name for field in dataclasses.fields(Config)} - {"workers"}
    tree = ast.parse((Path(pipelined.__file__).parent / module).read_text(encoding="utf-8"))
    read = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr in names
        and ast.unparse(node.value) in {"config", "self._config"}
    }
    assert read
    for name in read:
        keys = [path for path in PATHS if path == name or path.startswith(name + ".")]
        if not matches(name, DAEMON):
            for worker_type in _USERS[module]:
                assert any(worker_type in claimed(key) for key in keys), (name, worker_type)


def test_the_sections_of_the_workers_are_those_of_the_table() -> None:
    own = {
        section.path.removeprefix("workers.") for section in sections() if section.path.startswith("workers.")
    }
    assert own == {worker_type.replace("-", "_") for worker_type in NEEDS}


def test_what_a_reload_would_do_is_told_before_it_is_done() -> None:
    before = built({"workers.upload.processes": 0})
    after = built(
        {
            "workers.upload.processes": 2,
            "download.concurrency": 60,
            "upload.concurrency": 9,
            "domain": "other",
        }
    )
    outcome = reload_of(before, after)
    assert outcome.restarts == ["download"], "upload does not run: there is nothing to restart"
    assert outcome.processes == {"upload": (0, 2)}
    assert outcome.refused == ["domain"]
    nothing = reload_of(before, before)
    assert (nothing.restarts, nothing.processes, nothing.refused) == ([], {}, [])
