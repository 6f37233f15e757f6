"""Where the daemon is, read from a configuration that does not load."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelined.cli.settings import Settings
from pipelined.config import Config, loading
from pipelined.config.loading import salvage
from pipelined.errors import ConfigError

RIGHT = 'runtime_dir = "/srv/run"\nstate_dir = "/srv/state"\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "pipelined.toml"


def found(file: Path, text: str | bytes, *overrides: str, **environ: str) -> tuple[str, str]:
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    config = salvage(file, overrides, environ).config
    return config.runtime_dir, config.state_dir


@pytest.mark.parametrize(
    "mistake",
    [
        "[kafka\n",
        "[kafka]\nbootstrap = \n",
        '[kafka]\nbootstrap = "a"\nbootstrap = "b"\n',
        "[nosuch]\n",
        "[workers.download]\nbatch_records = 'many'\n",
        "no_such_key = 1\n",
        "half a line",
        "domain = 'never closed\n[kafka]\nruntime_dir = '/wrong'\n",
        b"[kafka]\nbootstrap = '\xff\xfe'\n",
    ],
)
def test_a_mistake_elsewhere_in_the_file_does_not_hide_the_daemon(file: Path, mistake: str | bytes) -> None:
    text = RIGHT.encode() + (mistake if isinstance(mistake, bytes) else mistake.encode())
    assert found(file, text) == ("/srv/run", "/srv/state")


def test_what_the_file_does_not_say_has_its_default(file: Path) -> None:
    assert found(file, "[kafka") == (Config().runtime_dir, Config().state_dir)


def test_command_line_and_environment_come_before_the_broken_file(file: Path) -> None:
    assert found(file, RIGHT + "[kafka", "runtime_dir=/cli", PIPELINED_STATE_DIR="/env") == ("/cli", "/env")
    broken = "runtime_dir = \nstate_dir = 7\n"
    assert found(file, broken, "runtime_dir=/cli", PIPELINED_STATE_DIR="/env") == ("/cli", "/env")


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ('runtime_dir = "/srv/run\nstate_dir = "/srv/state"\n', "runtime_dir"),
        ('runtime_dir /srv/run\nstate_dir = "/srv/state"\n', "runtime_dir"),
        ('runtime_dir = "/srv/run"\nstate_dir = 7\n', "state_dir"),
        ('runtimedir = "/srv/run"\nstate_dir = "/srv/state"\n', "runtime_dir"),
    ],
)
def test_the_default_is_not_taken_for_a_folder_that_is_there_but_cannot_be_read(
    file: Path, text: str, missing: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        found(file, text)
    assert raised.value.problems[-1].endswith(f"cannot be told: give it with --set {missing}=FOLDER")


def test_a_file_that_is_not_there_may_have_named_any_daemon(file: Path) -> None:
    with pytest.raises(ConfigError, match="--set runtime_dir=FOLDER --set state_dir=FOLDER"):
        salvage(file, (), {})
    config = salvage(file, ("runtime_dir=/r", "state_dir=/s"), {}).config
    assert (config.runtime_dir, config.state_dir) == ("/r", "/s")


def test_a_mistake_on_the_command_line_itself_is_refused(file: Path) -> None:
    with pytest.raises(ConfigError, match="unknown key"):
        found(file, RIGHT + "[kafka", "statedir=/elsewhere")


def test_one_line_says_what_is_broken_and_what_is_used(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPELINED_STATE_DIR", "/env/state")
    monkeypatch.delenv("PIPELINED_RUNTIME_DIR", raising=False)
    file.write_text("no_such_key = 1\nno_other_key = 2\n")
    config = Settings(file).whereabouts()
    assert (config.runtime_dir, config.state_dir) == (Config().runtime_dir, "/env/state")
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    assert line.startswith(f"warning: the configuration is broken: no_such_key ({file}): unknown key")
    assert "(and 1 more); looking in runtime_dir /run/pipelined (the default)" in line
    assert line.endswith("state_dir /env/state (from environment PIPELINED_STATE_DIR)")


def test_nothing_is_said_of_a_configuration_that_loads(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(loading, "DEFAULT_FILE", tmp_path / "none.toml")
    assert Settings(None, ("state_dir=/s",)).whereabouts().state_dir == "/s"
    assert capsys.readouterr().err == ""
