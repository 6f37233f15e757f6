"""What the shells themselves make of a word that is begun and the tabulator."""

from __future__ import annotations

import os
import pty
import select
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

import pipelined
from pipelined.cli.completion import SHELLS, completion
from realparts import command_missing, require

ROOT = Path(pipelined.__file__).parents[1]
DEADLINE_S = 40.0
#: A word that is begun, and what the tabulator makes of it.
WORDS = [
    ("pipelinectl topi", "topics "),
    ("pipelinectl doctor --only trans", "transactions "),
    ("pipelinectl restart table-m", "table-maintenance "),
    ("pipelinectl stop eventhub", "eventhub-reader "),
    ("pipelinectl --set kafka.boots", "kafka.bootstrap="),
    ("pipelinectl config che", "check "),
]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with the command in bin, and the script of each shell."""
    (tmp_path / "bin").mkdir()
    for name in ("pipelinectl", "pipelined"):
        program = f"from pipelined.cli.{name} import main; main()"
        command = tmp_path / "bin" / name
        command.write_text(
            f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -c {shlex.quote(program)} "$@"\n'
        )
        command.chmod(0o755)
    for shell in SHELLS:
        (tmp_path / shell).write_text(CliRunner().invoke(completion, [shell]).stdout)
    return tmp_path


def environment(home: Path) -> dict[str, str]:
    path = f"{home}/bin:{os.environ['PATH']}"
    return os.environ | {"PATH": path, "HOME": str(home), "TERM": "dumb", "PS1": "", "LC_ALL": "C.UTF-8"}


@contextmanager
def terminal(home: Path, command: list[str]) -> Iterator[Callable[[str, str], str]]:
    """An interactive shell; what it yields types something, and returns what appears until then."""
    ours, theirs = pty.openpty()
    shell = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment(home), start_new_session=True
    )
    os.close(theirs)

    def typed(text: str, awaited: str) -> str:
        os.write(ours, text.encode())
        seen, deadline = "", time.monotonic() + DEADLINE_S
        while awaited not in seen and time.monotonic() < deadline:
            if select.select([ours], [], [], 0.2)[0]:
                seen += os.read(ours, 65536).decode(errors="replace")
        return seen

    try:
        yield typed
    finally:
        shell.kill()
        shell.wait()
        os.close(ours)


@pytest.mark.parametrize(
    ("command", "setup"),
    [
        (["bash", "--norc", "--noprofile", "-i"], "source {home}/bash; echo rea''dy\n"),
        (["zsh", "-f", "-i"], "autoload -U compinit; compinit -u; source {home}/zsh; echo rea''dy\n"),
    ],
    ids=["bash", "zsh"],
)
def test_a_word_that_is_begun_is_completed_at_the_prompt(home: Path, command: list[str], setup: str) -> None:
    require(command[0], command_missing(command[0]))
    with terminal(home, command) as typed:
        assert "ready" in typed(setup.format(home=home), "ready")
        for begun, whole in WORDS:
            last = begun.rpartition(" ")[2]
            seen = typed(f"{begun}\t", whole.removeprefix(last).strip())
            assert whole.strip() in seen.replace("\r", "").replace("\n", ""), (begun, seen)
            typed("\x15", "")  # nothing is left of the line


def test_fish_offers_what_completes_a_word(home: Path) -> None:
    require("fish", command_missing("fish"))
    for begun, whole in WORDS:
        asked = f"source {home}/fish; complete -C {shlex.quote(begun)}"
        done = subprocess.run(
            ["fish", "--no-config", "-c", asked],
            env=environment(home),
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert whole.strip() in [line.partition("\t")[0] for line in done.stdout.splitlines()], done


def test_bash_is_offered_every_check_and_no_space_behind_a_key(home: Path) -> None:
    asked = (
        f"source {home}/bash; compopt() {{ echo compopt $*; }}; COMP_WORDS=(pipelinectl --set kafka.boots); "
        'COMP_CWORD=2; _pipelinectl_completion pipelinectl; echo "${COMPREPLY[*]}"; COMPREPLY=(); '
        "COMP_WORDS=(pipelinectl doctor --only ''); COMP_CWORD=3; _pipelinectl_completion pipelinectl; "
        'echo "${COMPREPLY[*]}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", asked], env=environment(home), capture_output=True, text=True, check=True
    )
    option, key, checks = done.stdout.splitlines()
    assert (option, key) == ("compopt -o nospace", "kafka.bootstrap=")
    assert {"configuration", "brokers", "daemon"} < {*checks.split()}


def test_the_script_of_each_shell_names_its_command() -> None:
    for shell in SHELLS:
        assert "pipelinectl" in CliRunner().invoke(completion, [shell]).stdout
        script = CliRunner().invoke(completion, [shell, "--for", "pipelined"]).stdout
        assert "_PIPELINED_COMPLETE" in script
        assert "pipelinectl" not in script
    assert CliRunner().invoke(completion, ["tcsh"]).exit_code != 0
