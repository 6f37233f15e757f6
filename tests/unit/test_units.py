"""The units as they are shipped, and as they are written for one host."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

import realparts
from pipelined.cli import service as service_module
from pipelined.cli import units
from pipelined.cli.service import service
from pipelined.cli.settings import Settings
from pipelined.cli.units import MARK, Service, installed_for
from pipelined.config import Config
from pipelined.config.tree import Tables, Upload
from pipelined.errors import PipelinedError, UnavailableError, UsageError

SHIPPED = Path(__file__).parents[2] / "systemd"
UNITS = ["pipelined.service", "pipelined@.service"]
FILE = Path("/etc/pipelined.toml")


@pytest.fixture(autouse=True)
def in_opt(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this were installed where the how-to installs it."""
    folders = [Path("/opt/pipelined/bin"), Path("/usr"), Path("/opt/pipelined/lib/pipelined")]
    monkeypatch.setattr(units, "_program_folders", lambda: folders)
    monkeypatch.setattr(units, "_executables", lambda: folders[0])


def unit(made: Service) -> str:
    return made.files()[units.unit_file(made.instance)]


@pytest.mark.parametrize("name", UNITS)
def test_a_shipped_unit_is_hardened(name: str, tmp_path: Path) -> None:
    realparts.require("systemd-analyze", realparts.command_missing("systemd-analyze"))
    copy = tmp_path / name.replace("@", "@one")
    copy.write_text((SHIPPED / name).read_text())
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=15", copy],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Overall exposure level" in done.stdout


@pytest.mark.parametrize("name", UNITS)
def test_systemd_understands_every_line_of_a_shipped_unit(name: str, tmp_path: Path) -> None:
    realparts.require("systemd-analyze", realparts.command_missing("systemd-analyze"))
    copy = tmp_path / name.replace("@", "@one")
    text = (SHIPPED / name).read_text()
    copy.write_text(
        text.replace("/opt/pipelined/bin/pipelined ", "/bin/true ").replace(
            "/opt/pipelined/bin/", "/bin/true "
        )
    )
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", copy],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_two_units_differ_in_names_and_folders_alone() -> None:
    one, many = (
        [line for line in (SHIPPED / name).read_text().splitlines() if not line.startswith("#")]
        for name in UNITS
    )
    for line, other in zip(one, many, strict=True):
        alike = other.replace("pipelined-%i", "pipelined").replace(
            "/etc/pipelined/%i.toml", "/etc/pipelined.toml"
        )
        assert alike.replace(" (%i)", "") == line


def test_the_unit_runs_this_environment_with_this_configuration() -> None:
    text = unit(Service(Config(), Path("/etc/claims/p.toml")))
    assert text.startswith(MARK)
    assert "ExecStart=/opt/pipelined/bin/pipelined --config /etc/claims/p.toml run\n" in text
    assert "ExecReload=/opt/pipelined/bin/pipelinectl --config /etc/claims/p.toml reload\n" in text
    assert "ProtectHome=yes\n" in text


def test_an_environment_in_a_home_can_be_read_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "_program_folders", lambda: [Path("/home/ops/venv/bin")])
    assert "ProtectHome=read-only\n" in unit(Service(Config(), FILE))


def test_folders_elsewhere_are_made_writable_and_waited_for() -> None:
    config = Config(
        upload=Upload(url="file:///srv/claims/100%"),
        tables=Tables(url="file:///srv/claims/tables"),
        cache_dir="/var/cache/pipelined",
    )
    text = Service(config, FILE).files()[units.folders_file("")]
    assert "RequiresMountsFor=/srv/claims/100%% /srv/claims/tables\n" in text
    assert "ReadWritePaths=-/srv/claims/100%% -/srv/claims/tables\n" in text


def test_stores_in_the_cloud_need_no_folders() -> None:
    config = Config(
        upload=Upload(url="s3://claims/files"), tables=Tables(url="abfss://a@b.dfs.core.windows.net/t")
    )
    assert units.folders_file("") not in Service(config, FILE).files()


def test_another_user_is_made_and_owns_the_folders() -> None:
    files = Service(Config(), FILE, user="claims").files()
    assert "User=claims\nGroup=claims\n" in files[units.unit_file("")]
    assert "u claims - " in files[units.SYSUSERS]
    assert "/var/lib/pipelined         0750 claims claims -" in files[units.TMPFILES]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tables": Tables(url="file:///tmp/tables")}, "has temporary folders of its own"),
        ({"upload": Upload(url="file:///home/me/files")}, "sees no homes"),
        ({"state_dir": "/srv/my state"}, "cannot be listed in a unit"),
    ],
)
def test_folders_that_a_service_cannot_write_to_are_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Service(Config(**change), FILE).files()  # type: ignore[arg-type] # a key for each case


def test_a_program_or_configuration_that_a_service_does_not_see_is_refused() -> None:
    with pytest.raises(UsageError, match="folder for temporary files"):
        Service(Config(), Path("/tmp/pipelined.toml"))
    with pytest.raises(UsageError, match="cannot be used in a unit"):
        Service(Config(), Path("/etc/my pipelined.toml"))


def test_an_instance_has_its_own_configuration_and_folders() -> None:
    file = units.instance_file("orders")
    own = Config(
        state_dir="/var/lib/pipelined-orders",
        cache_dir="/var/lib/pipelined-orders/cache",
        runtime_dir="/run/pipelined-orders",
        upload=Upload(url="s3://claims/files"),
        tables=Tables(url="s3://claims/tables"),
    )
    assert set(Service(own, file, "orders").files()) == {
        units.SYSUSERS,
        units.TMPFILES,
        Path("/etc/systemd/system/pipelined@.service"),
    }
    with pytest.raises(UsageError, match='runtime_dir = "/run/pipelined-orders"'):
        Service(Config(), file, "orders").files()
    with pytest.raises(UsageError, match=r"is /etc/pipelined/orders\.toml"):
        Service(own, FILE, "orders")
    with pytest.raises(UsageError, match="no name for an instance"):
        Service(own, file, "../orders")


def test_the_service_of_a_configuration_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "UNITS", tmp_path)
    monkeypatch.setattr(units, "BOOTED", tmp_path)
    monkeypatch.delenv("PIPELINED_CONFIG", raising=False)
    assert installed_for(None) is None
    own = units.instance_file("orders")
    (tmp_path / "pipelined.service").write_text((SHIPPED / "pipelined.service").read_text())
    (tmp_path / "pipelined@.service").write_text((SHIPPED / "pipelined@.service").read_text())
    assert installed_for(None) == "pipelined"
    assert installed_for(FILE) == "pipelined"
    assert installed_for(own) == "pipelined@orders"
    assert installed_for(Path("/srv/other.toml")) is None
    monkeypatch.setenv("PIPELINED_CONFIG", str(own))
    assert installed_for(None) == "pipelined@orders"
    monkeypatch.setattr(units, "BOOTED", tmp_path / "missing")
    assert installed_for(FILE) is None, "nothing can be started where systemd does not run"


def test_install_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failure(
        *arguments: str, file: Path = tmp_path / "p.toml", overrides: tuple[str, ...] = ()
    ) -> PipelinedError:
        result = CliRunner().invoke(service, arguments, obj=Settings(file, overrides))
        assert isinstance(result.exception, PipelinedError), result.output
        return result.exception

    monkeypatch.setattr(units, "_UNSEEN", ())
    assert "does not exist; write the configuration first" in str(failure("install"))
    (tmp_path / "p.toml").write_text('tables.url = "s3://a/b"\nupload.url = "s3://a/c"\n')
    assert "takes no --set" in str(failure("install", overrides=("domain=x",)))
    monkeypatch.setattr(units, "BOOTED", tmp_path / "missing")
    refused = failure("install")
    assert isinstance(refused, UnavailableError)
    assert "not booted with systemd" in str(refused)
    monkeypatch.setattr(units, "BOOTED", tmp_path)
    monkeypatch.setattr(service_module.shutil, "which", lambda _: "/bin/systemctl")
    monkeypatch.setattr(service_module.os, "geteuid", lambda: 1000)
    assert "only root" in str(failure("install"))
    assert "only root" in str(failure("uninstall"))
