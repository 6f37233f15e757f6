"""Reading the configuration again: where from, and what is a reason to refuse it."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from pipelined.cli.revision import Sources
from pipelined.config import Config, load
from pipelined.errors import ConfigError, UnavailableError
from pipelined.kafka import limits, topics

GOOD = '[kafka]\nbootstrap = "a:1"\n'


def away(*_: object, **__: object) -> None:
    raise UnavailableError("no broker answers")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(topics, "check", lambda *_, **__: None)
    monkeypatch.setattr(limits, "check", lambda *_, **__: None)
    path = tmp_path / "pipelined.toml"
    path.write_text(GOOD)
    return path


def test_the_file_is_read_again_and_the_command_line_still_wins(file: Path) -> None:
    sources = Sources(file, ("download.concurrency=7",))
    present = load(file, sources.overrides).config
    file.write_text(GOOD + "[download]\nconcurrency = 9\ntimeout_s = 30.0\n")
    config = sources.check(present, None)
    assert (config.download.concurrency, config.download.timeout_s) == (7, 30.0)


def test_every_problem_is_told_a_syntax_error_with_its_line(file: Path) -> None:
    file.write_text(GOOD + "[download\n")
    with pytest.raises(ConfigError, match=r"not valid TOML.*line 3"):
        Sources(file, ()).check(Config(), None)
    file.write_text(GOOD + '[download]\nconcurrency = 0\nnosuch = 1\nretries = "x"\n')
    with pytest.raises(ConfigError) as error:
        Sources(file, ()).check(Config(), None)
    assert len(error.value.problems) == 3


def test_what_is_wanted_is_judged_like_a_file(file: Path) -> None:
    wanted = load(file, ["download.concurrency=8"]).config
    assert Sources(file, ()).check(Config(), wanted) == wanted
    enabled = load(None, [], {}).config
    reader = type(enabled.workers.eventhub_reader)(processes=1)
    workers = type(enabled.workers)(eventhub_reader=reader)
    with pytest.raises(ConfigError, match="eventhub"):
        Sources(file, ()).check(enabled, type(enabled)(workers=workers))


def test_brokers_that_are_away_are_a_reason_only_where_they_are_new(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(topics, "check", away)
    present = load(file, []).config
    file.write_text(GOOD + "[download]\nconcurrency = 9\n")
    with caplog.at_level(logging.WARNING):
        assert Sources(file, ()).check(present, None).download.concurrency == 9
    assert "going on all the same" in caplog.text
    file.write_text('[kafka]\nbootstrap = "b:1"\n')
    with pytest.raises(UnavailableError, match="the new settings cannot be tried: no broker answers"):
        Sources(file, ()).check(present, None)
