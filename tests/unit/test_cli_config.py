"""``pipelinectl config``, and how every command ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from pipelined.cli.config import config
from pipelined.cli.errors import run
from pipelined.cli.settings import Settings, config_options
from pipelined.config import Config, loading
from pipelined.config.leaves import leaves
from pipelined.errors import ConfigError, ExitCode, UnavailableError

ROOT = Path(__file__).parents[2]


@click.group()
@config_options
def group() -> None:
    """A group as pipelined and pipelinectl are."""


group.add_command(config)


@group.command()
@click.pass_obj
def domain(obj: Settings) -> None:
    """A command as others are: obj() is the configuration."""
    click.echo(obj().domain)


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "DEFAULT_FILE", tmp_path / "absent.toml")
    for name in [name for name in os.environ if name.startswith("PIPELINED_")]:
        monkeypatch.delenv(name)


def command_that(action: Callable[[], object]) -> click.Command:
    return click.Command("x", callback=action)


def raising(error: BaseException) -> click.Command:
    def action() -> None:
        raise error

    return command_that(action)


def test_check_says_how_many_keys_are_set_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = loading.DEFAULT_FILE
    assert run(group, ["config", "check"]) == 0
    assert capsys.readouterr().out == f"ok: {len(leaves())} keys, none of them set, there is no {absent}\n"
    file = tmp_path / "my.toml"
    file.write_text('domain = "a"\n[endpoint]\nport = 3333\n')
    monkeypatch.setenv("PIPELINED_DOMAIN", "b")
    assert run(group, ["--config", str(file), "--set", "logs.level=DEBUG", "config", "check"]) == 0
    captured = capsys.readouterr()
    assert captured.out == (
        f"ok: {len(leaves())} keys, 1 set in the environment, 1 set in {file}, 1 set on the command line\n"
    )
    assert captured.err == ""


def test_check_tells_every_problem_and_exits_78(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text('domain = "a b"\n[endpoint]\nprot = 3\n')
    assert run(group, ["config", "check", str(file)]) == ExitCode.CONFIG == 78
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("error: ") and str(file) in line for line in lines)


def test_check_finds_a_missing_secret_and_prints_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("THERE", "hunter2")
    settings = [
        "--set",
        "upload.auth.client_secret=env:THERE",
        "--set",
        "tables.auth.client_secret=env:NOT_THERE",
    ]
    assert run(group, [*settings, "config", "check"]) == 78
    assert run(group, [*settings, "config", "show"]) == 0
    captured = capsys.readouterr()
    assert "env:NOT_THERE: the environment variable is not set" in captured.err
    assert "env:THERE" not in captured.err
    assert "hunter2" not in captured.out + captured.err


def test_a_secret_given_as_itself_is_in_no_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIPELINED_KAFKA_SASL_PASSWORD", "hunter2")
    for command in (["config", "check"], ["config", "show"], ["config", "show", "--json"]):
        assert run(group, ["--set", "upload.auth.client_secret=hunter2", *command]) == 78
    captured = capsys.readouterr()
    assert captured.err.count("PIPELINED_KAFKA_SASL_PASSWORD") == 3
    assert "hunter2" not in captured.out + captured.err


def test_show_is_toml_with_the_origin_of_every_value(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(group, ["--set", "kafka.host=a", "config", "show"]) == 0
    text = capsys.readouterr().out
    assert tomllib.loads(text)["kafka"]["host"] == "a"
    lines = {line.split(" = ")[0]: line for line in text.splitlines()}
    assert set(lines) == {leaf.path for leaf in leaves()}
    assert lines["kafka.host"].endswith("  # command line")
    assert lines["domain"].endswith("  # default")


def test_what_show_prints_can_be_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(group, ["config", "show"]) == 0
    file = tmp_path / "shown.toml"
    file.write_text(capsys.readouterr().out)
    assert loading.load(file, environ={}).config == Config()


def test_show_as_json_has_value_and_origin(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(group, ["--set", "retry.delays_s=1,2", "config", "show", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert set(shown) == {leaf.path for leaf in leaves()}
    assert shown["retry.delays_s"] == {"value": [1.0, 2.0], "origin": "command line"}


def test_a_command_gets_the_configuration_from_its_object(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "some.toml"
    file.write_text('domain = "mine"\n')
    assert run(group, ["--config", str(file), "domain"]) == 0
    assert capsys.readouterr().out == "mine\n"


def test_the_configuration_is_loaded_once() -> None:
    settings = Settings(None, ("domain=x",))
    assert settings() is settings.loaded().config
    assert settings() is settings()


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (ConfigError(["one", "two"]), 78, "error: one\nerror: two\n"),
        (UnavailableError("no broker at Bearer abc"), 69, "error: no broker at Bearer ***\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (click.Abort(), 130, "interrupted\n"),
        (click.ClickException("no"), 1, "Error: no\n"),
        (ConnectionResetError("gone"), 1, "error: gone\n"),
        (BrokenPipeError("the daemon went away"), 1, "error: the daemon went away\n"),
    ],
)
def test_an_error_gives_its_exit_code_and_its_text(
    error: BaseException, code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(raising(error), []) == code
    assert capsys.readouterr().err == told


def test_an_unexpected_exception_is_told_in_full_but_masked(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(raising(RuntimeError("password=hunter2")), []) == ExitCode.SOFTWARE == 70
    told = capsys.readouterr().err
    assert "Traceback" in told
    assert "RuntimeError: password=***" in told
    assert "hunter2" not in told


@pytest.mark.parametrize("arguments", [["nonsense"], ["--nonsense"], ["config", "show", "x"], []])
def test_wrong_usage_is_64(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(group, arguments) == 64
    assert "Usage" in capsys.readouterr().err


def test_help_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(group, ["config", "--help"]) == 0
    assert "show" in capsys.readouterr().out


def test_a_command_may_choose_its_exit_code() -> None:
    assert run(command_that(lambda: 3), []) == 3
    assert run(command_that(lambda: click.get_current_context().exit(4)), []) == 4
    assert run(command_that(lambda: None), []) == 0


def test_a_reader_that_has_enough_is_no_error() -> None:
    program = (
        "import sys; sys.path.insert(0, 'tests/unit'); from test_cli_config import group;"
        "from pipelined.cli.errors import main_wrapper; main_wrapper(group)()"
    )
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-c", program, "config", "show"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "PIPELINED_CONFIG": str(ROOT / "etc/pipelined.toml")}
    try:
        result = subprocess.run(
            command, cwd=ROOT, env=environ, stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False
        )
    finally:
        os.close(writer)
    assert result.stderr == b""
    assert result.returncode == 1
