"""``etc/pipelined.toml`` and the reference agree with the code."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from pipelined.config import Config, load
from pipelined.config.leaves import leaves, sections
from pipelined.config.rendering import to_reference, to_toml

ROOT = Path(__file__).parents[2]
FILE = ROOT / "etc" / "pipelined.toml"


def test_the_committed_file_is_what_the_code_renders() -> None:
    assert FILE.read_text(encoding="utf-8") == to_toml(), (
        "run: python -m pipelined.config.rendering toml > etc/pipelined.toml"
    )


def test_the_file_loads_to_exactly_the_defaults() -> None:
    loaded = load(FILE, environ={})
    assert loaded.config == Config()
    assert set(loaded.origins.values()) == {str(FILE)}


def test_every_key_stands_in_the_file() -> None:
    found: set[str] = set()

    def walk(table: dict[str, object], prefix: str) -> None:
        for name, value in table.items():
            if isinstance(value, dict):
                walk(value, f"{prefix}{name}.")
            else:
                found.add(prefix + name)

    walk(tomllib.loads(FILE.read_text(encoding="utf-8")), "")
    assert found == {leaf.path for leaf in leaves()}


def test_every_key_is_explained_once_with_its_unit_its_limits_and_its_default() -> None:
    comments = " ".join(line[2:] for line in to_toml().splitlines() if line.startswith("# "))
    for section in sections():
        for leaf in section.leaves:
            assert leaf.spec.help in comments, leaf.path
            assert f"Unit: {leaf.spec.unit}." in comments or not leaf.spec.unit
            assert f"Allowed: {leaf.spec.allowed()}." in comments or not leaf.spec.allowed()
    assert (
        comments.count("Default: ")
        == comments.count("Number of partitions.")
        + sum(len(section.leaves) for section in {s.type_name: s for s in sections()}.values())
        - 1
    )


def test_no_line_of_the_file_is_too_long_to_read() -> None:
    assert max(map(len, to_toml().splitlines())) <= 110


def test_the_reference_has_a_row_for_every_key() -> None:
    rows = {line.split("`")[1]: line for line in to_reference().splitlines() if line.startswith("| `")}
    assert set(rows) == {leaf.path for leaf in leaves()}
    for leaf in leaves():
        assert leaf.variable in rows[leaf.path]
        assert leaf.spec.help.replace("|", "\\|") in rows[leaf.path]


@pytest.mark.parametrize(("word", "text"), [("toml", to_toml()), ("reference", to_reference())])
def test_the_module_prints_either_text(word: str, text: str) -> None:
    command = [sys.executable, "-m", "pipelined.config.rendering", word]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=60)
    assert result.stdout.decode() == text
