"""Loading: four sources in order, origins, and every problem at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelined.config import Config, Loaded, load, loading
from pipelined.config.leaves import Leaf, leaves
from pipelined.config.loading import RESERVED
from pipelined.config.values import written
from pipelined.errors import ConfigError, ExitCode

LEAVES = leaves()

# Where "the default and a bit more" would not be a valid value: another value that is.
OTHER: dict[str, Any] = {
    "domain": "other",
    "state_dir": "/elsewhere/state",
    "cache_dir": "/elsewhere/cache",
    "runtime_dir": "/elsewhere/run",
    "kafka.bootstrap": "a:9092,[::1]:9093",
    "kafka.ca_file": "/etc/ca.pem",
    "topics.checkpoints.retention_hours": 24.0,
    "urls.allowed_hosts": ("files.example.org", "*.example.net"),
    "urls.allowed_ports": (443, 8443),
    "urls.allowed_networks": ("127.0.0.0/8", "fd00::/8"),
    "files.extensions": ("pdf", "tar"),
    "files.content_types": ("text/plain", "image/*"),
    "upload.url": "abfss://workspace@onelake.dfs.fabric.microsoft.com/item/Files/x",
    "tables.url": "abfss://workspace@onelake.dfs.fabric.microsoft.com/item/Tables/x",
    "eventhouse.url": "http://127.0.0.1:8080",
    "eventhouse.hosts": ("kusto.example.org",),
    "eventhouse.start": "2026-01-05T00:00:00Z",
    "eventhub.bootstrap": "y.servicebus.windows.net:9093",
    "sources.pause_stages": ("event-ingester", "download"),
    "retry.delays_s": (0.5, 60.0),
    "endpoint.host": "::1",
    "workers.event_writer.processes": 0,
    "workers.result_processor.processes": 0,
    "workers.table_maintenance.processes": 0,
    "workers.endpoint.processes": 0,
}
OTHER |= {
    f"{section}.auth.{name}": value
    for section in ("eventhouse", "eventhub", "upload", "tables")
    for name, value in {
        "method": "managed_identity",
        "certificate_file": "/etc/app.pem",
        "token_file": "/run/token",
        "scope": "https://service.example/.default",
        "authority": "https://login.microsoftonline.us",
    }.items()
}
# What another value needs beside it.
WITH: dict[str, dict[str, Any]] = {
    "kafka.transaction_timeout_s": {"kafka.session_timeout_s": 60.0},
    "topics.events_raw.partitions": {"topics.events_ingested.partitions": 7},
    "topics.events_ingested.partitions": {"topics.events_raw.partitions": 7},
    "workers.table_maintenance.batch_records": {"workers.table_maintenance.window_records": 2},
    "workers.endpoint.batch_records": {"workers.endpoint.window_records": 2},
    "workers.eventhouse_poller.batch_records": {"workers.eventhouse_poller.window_records": 2},
    "workers.eventhub_reader.batch_records": {"workers.eventhub_reader.window_records": 2},
    "workers.eventhouse_poller.processes": {
        "eventhouse.url": "http://127.0.0.1:8080",
        "eventhouse.database": "d",
    },
    "eventhub.bootstrap": {"eventhub.topic": "events", "eventhub.auth.method": "managed_identity"},
    "workers.eventhub_reader.processes": {
        "eventhub.bootstrap": "x.servicebus.windows.net:9093",
        "eventhub.topic": "events",
        "eventhub.auth.method": "managed_identity",
    },
}
# Keys whose every other value is refused: seen, but never let through.
REFUSED = {
    leaf.path for leaf in LEAVES if leaf.name == "compacted" and leaf.path != "topics.checkpoints.compacted"
}


def another(leaf: Leaf) -> Any:
    """A valid value that is not the default."""
    if leaf.path in OTHER:
        return OTHER[leaf.path]
    if leaf.spec.secret:
        return "env:SOME_SECRET"
    if leaf.kind is bool:
        return not leaf.default
    if leaf.spec.choices:
        return next(choice for choice in leaf.spec.choices if choice != leaf.default)
    if leaf.kind is str:
        return leaf.default + "x"
    more = leaf.default + 1
    return more if leaf.spec.high is None or more <= leaf.spec.high else leaf.default / 2


def as_text(value: Any) -> str:
    """A value as the environment and the command line write it."""
    if isinstance(value, tuple):
        return ",".join(as_text(item) for item in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def at(config: Config, path: str) -> Any:
    node: Any = config
    for name in path.split("."):
        node = getattr(node, name)
    return node


@pytest.fixture(autouse=True)
def _no_default_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "DEFAULT_FILE", tmp_path / "etc" / "pipelined.toml")


def load_toml(tmp_path: Path, text: str, **environ: str) -> Loaded:
    file = tmp_path / "some.toml"
    file.write_text(text, encoding="utf-8")
    return load(file, environ=environ)


def problems(*overrides: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        load(None, overrides, environ)
    return raised.value.problems


@pytest.mark.parametrize("way", ["file", "environment", "command line"])
@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: leaf.path)
def test_every_key_reaches_the_configuration_by_every_way(leaf: Leaf, way: str, tmp_path: Path) -> None:
    value = another(leaf)
    given = {leaf.path: value, **WITH.get(leaf.path, {})}
    file, overrides, environ = None, [], {}
    if way == "file":
        file = tmp_path / "some.toml"
        file.write_text("".join(f"{path} = {written(each)}\n" for path, each in given.items()))
        origin = str(file)
    elif way == "environment":
        environ = {each.variable: as_text(given[each.path]) for each in LEAVES if each.path in given}
        origin = f"environment {leaf.variable}"
    else:
        overrides = [f"{path}={as_text(each)}" for path, each in given.items()]
        origin = "command line"
    if leaf.path in REFUSED:
        with pytest.raises(ConfigError, match=f"{leaf.path}.*{origin}"):
            load(file, overrides, environ)
        return
    loaded = load(file, overrides, environ)
    assert value != leaf.default
    assert at(loaded.config, leaf.path) == value
    assert type(at(loaded.config, leaf.path)) is type(leaf.default)
    assert loaded.origins[leaf.path] == origin
    changed = {each.path for each in LEAVES if at(loaded.config, each.path) != each.default}
    assert changed == set(given)


def test_nothing_given_is_the_default_configuration() -> None:
    loaded = load(environ={})
    assert loaded.config == Config()
    assert set(loaded.origins) == {leaf.path for leaf in LEAVES}
    assert set(loaded.origins.values()) == {"default"}


def test_the_command_line_goes_before_the_environment_and_that_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "some.toml"
    file.write_text('domain = "file"\n[kafka]\nhost = "file"\nsasl_username = "file"\n')
    environ = {"PIPELINED_DOMAIN": "env", "PIPELINED_KAFKA_HOST": "env"}
    loaded = load(file, ["domain=first", "domain=line"], environ)
    kafka = loaded.config.kafka
    assert (loaded.config.domain, kafka.host, kafka.sasl_username) == ("line", "env", "file")
    assert loaded.origins["domain"] == "command line"
    assert loaded.origins["kafka.host"] == "environment PIPELINED_KAFKA_HOST"
    assert loaded.origins["kafka.sasl_username"] == str(file)


def test_the_file_is_the_argument_or_the_variable_or_the_default_one(tmp_path: Path) -> None:
    named, standard, given = (tmp_path / name for name in ("named", "etc/pipelined.toml", "given"))
    for file in (named, standard, given):
        file.parent.mkdir(exist_ok=True)
        file.write_text(f'domain = "{file.name[:5]}"\n'.replace(".", "-"))
    environ = {"PIPELINED_CONFIG": str(named)}
    assert load(given, environ=environ).config.domain == "given"
    assert load(environ=environ).config.domain == "named"
    assert load(environ={}).origins["domain"] == str(standard)


def test_a_named_file_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml: cannot be read: No such file"):
        load(tmp_path / "absent.toml", environ={})
    with pytest.raises(ConfigError, match="cannot be read"):
        load(environ={"PIPELINED_CONFIG": "/absent.toml"})


def test_broken_toml_is_told_with_its_line_and_column(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"some\.toml: is not valid TOML: .*line 2, column 1"):
        load_toml(tmp_path, 'domain = "x"\n= 3\n')


def test_a_file_that_is_not_utf8_is_told(tmp_path: Path) -> None:
    file = tmp_path / "some.toml"
    file.write_bytes(b'domain = "\xff"\n')
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        load(file, environ={})


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    assert load_toml(tmp_path, '\ufeffdomain = "x"\n').config.domain == "x"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[kafka]\nbootstrp = "x"', r"kafka\.bootstrp \(.*some\.toml\): unknown key.*kafka\.bootstrap"),
        ("[kafak]\nhost = 1\nport = 2", r"\[kafak\] \(.*\): unknown section; the nearest is \[kafka\]"),
        ("[topics.event_raw]\npartitions = 3", r"unknown section; the nearest is \[topics\.events_raw\]"),
        ("kafka = 3", r"kafka \(.*\): is a section"),
        ("[kafka.bootstrap]\nx = 3", r"kafka\.bootstrap \(.*\): .* expected one line of text"),
        ("[endpoint]\nport = 70000", r"70000 is not allowed: expected a whole number, 0 to 65535"),
        ("[endpoint]\nport = true", r"true is not allowed: expected a whole number"),
        ('[urls]\nallowed_hosts = "a.b"', "expected a list of texts"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_what_is_right(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        load_toml(tmp_path, text + "\n")
    assert len(raised.value.problems) == 1


def test_an_unknown_variable_is_an_error_that_names_the_nearest() -> None:
    assert problems(PIPELINED_KAFKA_BOOTSTRP="x") == [
        "environment PIPELINED_KAFKA_BOOTSTRP: no key has this variable; the nearest is "
        "PIPELINED_KAFKA_BOOTSTRAP"
    ]


def test_other_variables_are_none_of_our_business() -> None:
    environ = {"KAFKA_BOOTSTRAP": "x:1", "HOME": "/", **dict.fromkeys(RESERVED - {"PIPELINED_CONFIG"}, "x")}
    assert load(environ=environ).config == Config()


def test_a_secret_may_be_kept_in_a_variable_of_our_prefix() -> None:
    environ = {"PIPELINED_STORE_TOKEN": "abc"}
    assert load(
        None, ["upload.auth.client_secret=env:PIPELINED_STORE_TOKEN"], environ
    ).config.upload.auth.client_secret
    assert "PIPELINED_STORE_TOKEN" in problems(**environ)[0]


def test_no_two_keys_share_a_variable() -> None:
    variables = [leaf.variable for leaf in LEAVES]
    assert len(set(variables)) == len(variables)
    assert not RESERVED.intersection(variables)


def test_every_problem_of_every_source_is_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "some.toml"
    file.write_text("nonsense = 1\n[logs]\nlevel = 'LOUD'\n")
    with pytest.raises(ConfigError) as raised:
        load(file, ["endpoint.port=many", "no-equals", "retry.delays_s=3,2"], {"PIPELINED_NO": "x"})
    told = "\n".join(raised.value.problems)
    assert len(raised.value.problems) == 6
    for part in ("nonsense", "logs.level", "endpoint.port", "no-equals", "retry.delays_s", "PIPELINED_NO"):
        assert part in told
    assert raised.value.exit_code == ExitCode.CONFIG == 78


def test_a_wrong_value_brings_no_second_problem_about_what_does_not_fit_it() -> None:
    told = problems("workers.upload.batch_records=many", "workers.upload.window_records=3")
    assert len(told) == 1
    assert "batch_records" in told[0]


def test_values_that_do_not_fit_together_are_told_with_both_origins() -> None:
    (told,) = problems("workers.upload.window_records=3", PIPELINED_WORKERS_UPLOAD_BATCH_RECORDS="4")
    assert "workers.upload.window_records from command line" in told
    assert "from environment PIPELINED_WORKERS_UPLOAD_BATCH_RECORDS" in told


@pytest.mark.parametrize("secret", [leaf.path for leaf in LEAVES if leaf.spec.secret])
def test_a_secret_given_as_itself_is_refused_and_never_repeated(secret: str, tmp_path: Path) -> None:
    planted = "hunter2"
    variable = next(leaf.variable for leaf in LEAVES if leaf.path == secret)
    told = problems(f"{secret}={planted}", f"{secret} {planted}", **{variable: planted})
    for text in (f'{secret} = "{planted}"', f"{secret} = [1, '{planted}']", f"{secret} = '{planted}\n'"):
        with pytest.raises(ConfigError) as raised:
            load_toml(tmp_path, text)
        told += raised.value.problems
    assert len(told) == 6
    assert all(secret in each or "TOML" in each for each in told)
    assert planted not in "\n".join(told)
