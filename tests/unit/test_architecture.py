"""The drawing of the design, held against the imports: they run one way, and what must not know does not.

``ORDER`` is the drawing: each package may import those after it. Packages of one line are siblings, which
do not import each other, except along ``SEAMS``:

* ``stages.contract`` is plain types (Record, Output, Outcome): what kafka and sources pass on.
* A stage is made of tools: ``fetch`` (URL policy, transfers) and ``storage`` (cache, store) serve stages.
* ``sources`` put events on Kafka: position and events go through ``kafka`` in one transaction.
* What a full disk is, ``storage.disk`` knows for whoever writes files: transfers do.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import pipelined

ROOT = Path(pipelined.__file__).parent
LONGEST = 350

ORDER = (
    {"cli"},
    {"doctor"},
    {"supervisor"},
    {"workers"},
    {"sources", "stages", "kafka", "lake", "storage", "fetch"},
    {"messages"},
    {"auth"},
    {"stats", "logs", "config", "crashpoints"},
    {"errors"},
)
LEVELS = {package: level for level, packages in enumerate(ORDER) for package in packages}
#: Importer and imported, a prefix of the module's name; allowed although they stand on one line.
SEAMS = (
    ("kafka", "stages.contract"),
    ("sources", "stages.contract"),
    ("sources", "kafka."),
    ("stages", "fetch."),
    ("stages", "storage."),
    ("fetch", "storage.disk"),
)
#: What the judge of the pipeline may know of it: how to connect and where things lie, not how it works.
JUDGE_MAY = {"ledger", "auth", "config", "errors", "logs"}
#: Beside the drawing: the judge, and the local stack.
BESIDE = {"ledger", "local"}
#: The commands that start the local stack.
LOCAL_STARTERS = ("cli.demo", "cli.run", "local.")


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the package by its name without ``pipelined.``, parsed."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        found[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return found


def _imports(tree: ast.AST, *, at_import: bool) -> Iterator[str]:
    """The full names that are imported; only those that run when the module is imported, or all."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif not (at_import and _runs_later(node)):
            yield from _imports(node, at_import=at_import)


def _runs_later(node: ast.AST) -> bool:
    """Whether it does not run when its module is imported: a function's body, and what is for types only."""
    for_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    return for_types or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


@cache
def imports(name: str, *, at_import: bool = False) -> set[str]:
    """The modules of ours that a module imports, by their names without ``pipelined.``."""
    found = set()
    for full in _imports(modules()[name], at_import=at_import):
        if full.startswith("pipelined."):
            short = full.removeprefix("pipelined.")
            found.add(short if short in modules() else short.rpartition(".")[0])
    return found - {name}


def foreign(name: str) -> set[str]:
    """The top-level packages of others that a module imports, anywhere."""
    return {full.partition(".")[0] for full in _imports(modules()[name], at_import=False)} - {"pipelined"}


def package(name: str) -> str:
    return name.partition(".")[0]


def edges() -> Iterator[tuple[str, str]]:
    """Who imports whom, packages of one's own left out."""
    for name in modules():
        for other in imports(name):
            if package(name) != package(other):
                yield name, other


def test_every_package_has_its_place_in_the_drawing() -> None:
    known = LEVELS.keys() | BESIDE | {"__init__", "__main__", ""}
    assert {package(name) for name in modules()} <= known


def test_imports_run_one_way() -> None:
    wrong = []
    for name, other in edges():
        here, there = LEVELS.get(package(name)), LEVELS.get(package(other))
        if here is None or there is None:
            continue
        seam = any(package(name) == a and other.startswith(b) for a, b in SEAMS)
        if there < here or (there == here and not seam and here == 3):
            wrong.append(f"{name} imports {other}")
    assert wrong == []


def test_each_seam_is_used() -> None:
    unused = [
        (a, b) for a, b in SEAMS if not any(package(n) == a and other.startswith(b) for n, other in edges())
    ]
    assert unused == [], "a seam that nobody needs is no seam"


def test_the_contract_of_the_stages_stands_on_nothing_but_errors() -> None:
    assert imports("stages.contract") <= {"errors"}


def test_a_stage_knows_nothing_of_kafka_tables_or_workers() -> None:
    for name in modules():
        if package(name) == "stages":
            known = {package(other) for other in imports(name)}
            assert known.isdisjoint({"kafka", "lake", "workers", "supervisor", "cli", "sources"}), name
            assert foreign(name).isdisjoint({"confluent_kafka", "deltalake"}), name


def test_only_kafka_and_the_runtimes_speak_to_kafka_and_only_lake_to_tables() -> None:
    users = {name for name in modules() if "confluent_kafka" in foreign(name)}
    assert {package(name) for name in users} <= {"kafka", "workers", "ledger", "local"}
    users = {name for name in modules() if "deltalake" in foreign(name)}
    assert {package(name) for name in users} <= {"lake", "ledger", "local"}


def test_the_supervisor_imports_neither_workers_nor_stages_nor_any_client() -> None:
    for name in modules():
        if package(name) == "supervisor":
            known = {package(other) for other in imports(name)}
            assert known <= {"supervisor", "stats", "logs", "config", "errors"}, name
            heavy = {"confluent_kafka", "deltalake", "pyarrow", "pycurl", "obstore", "urllib3", "threading"}
            assert foreign(name).isdisjoint(heavy), name


def test_the_ledger_knows_nothing_of_how_the_pipeline_works() -> None:
    for name in modules():
        if package(name) == "ledger":
            assert {package(other) for other in imports(name)} <= JUDGE_MAY, name


def test_nothing_knows_the_local_stack_but_the_commands_that_start_it() -> None:
    knowing = {name for name, other in edges() if package(other) == "local"}
    assert {name for name in knowing if not f"{name}.".startswith(LOCAL_STARTERS)} == set()


def test_the_local_stack_is_loaded_only_when_it_is_started() -> None:
    eager = {name for name in modules() if any(package(o) == "local" for o in imports(name, at_import=True))}
    assert {name for name in eager if package(name) != "local"} == set()


def test_nothing_imports_itself_in_a_circle() -> None:
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " → ".join((*path[path.index(name) :], name))
        if name in done:
            return
        for other in sorted(imports(name, at_import=True)):
            if other in modules():
                visit(other, (*path, name))
        done.add(name)

    for name in modules():
        visit(name, ())
    assert done >= modules().keys()


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_module_is_too_long(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST
