"""The package as it is given away: built without a network, installed in a bare environment, used there."""

from __future__ import annotations

import os
import subprocess
import tarfile
import venv
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest
from pip._vendor.packaging.requirements import Requirement

from distribution import Distribution, build, dependencies
from pipelined import __version__

pytestmark = pytest.mark.xdist_group("distribution")
ENVIRONMENT = {
    name: value for name, value in os.environ.items() if not name.startswith(("PIPELINED_", "PYTHON"))
}


@pytest.fixture(scope="module")
def distribution(tmp_path_factory: pytest.TempPathFactory) -> Distribution:
    return build(tmp_path_factory.mktemp("distribution"))


@pytest.fixture(scope="module")
def bare(distribution: Distribution, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The executables of an environment with the locked packages and, installed by pip, our wheel."""
    folder = tmp_path_factory.mktemp("bare") / "venv"
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "locked.pth").write_text(f"{dependencies()}\n")
    pip = [
        folder / "bin/python",
        "-m",
        "pip",
        "install",
        "--no-index",
        "--disable-pip-version-check",
        "--quiet",
    ]
    # First without a look at what is there: among the locked packages may be this very one, as a checkout.
    subprocess.run([*pip, "--no-deps", "--ignore-installed", distribution.wheel], check=True, env=ENVIRONMENT)
    # Then whether each package that it needs is there in a version that fits: pip has nowhere to fetch it.
    subprocess.run([*pip, distribution.wheel], check=True, env=ENVIRONMENT)
    return folder / "bin"


def run(*command: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=ENVIRONMENT, cwd="/", timeout=120
    )
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
    return done


def test_the_wheel_has_the_package_its_units_and_its_example_and_no_tests(distribution: Distribution) -> None:
    with zipfile.ZipFile(distribution.wheel) as wheel:
        names = set(wheel.namelist())
    data = f"pipelined-{__version__}.data/data/share/pipelined"
    assert {
        "pipelined/py.typed",
        "pipelined/local/kafka.lock",
        "pipelined/sources/eventhouse/source.py",
        f"{data}/pipelined.toml",
        f"{data}/systemd/pipelined.service",
        f"{data}/systemd/pipelined@.service",
        f"{data}/systemd/pipelined.sysusers",
        f"{data}/systemd/pipelined.tmpfiles",
    } <= names
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"pipelined", f"pipelined-{__version__}.dist-info", f"pipelined-{__version__}.data"}
    root = Path(__file__).parents[2]
    ours = {str(path.relative_to(root)) for path in (root / "pipelined").rglob("*.py")}
    assert ours <= names, "every module is in it"


def test_the_sdist_has_what_its_own_make_needs(distribution: Distribution) -> None:
    with tarfile.open(distribution.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "Makefile",
        "requirements.lock",
        "setup.cfg",
        "pyproject.toml",
        "README.md",
        "CHANGELOG.md",
        "systemd/pipelined.service",
        "etc/pipelined.toml",
        "bin/pipelined",
        "docs/generate.py",
        "tests/conftest.py",
        "tests/machine.py",
    } <= names
    assert not {name for name in names if "__pycache__" in name or name.startswith((".git/", "run/"))}


def test_the_commands_run_in_a_bare_environment(bare: Path, tmp_path: Path) -> None:
    for name in ("pipelined", "pipelinectl"):
        assert run(bare / name, "--version").stdout.strip().endswith(__version__)
        assert "Usage" in run(bare / name, "--help").stdout
    where = run(bare / "python", "-c", "import pipelined; print(pipelined.__file__)").stdout
    assert where.startswith(str(bare.parent)), "it is the wheel that runs, not the checkout"

    file = tmp_path / "pipelined.toml"
    file.write_text('kafka.bootstrap = "kafka-1:9092"\n')
    file.chmod(0o600)
    said = run(bare / "pipelinectl", "--config", file, "config", "check").stdout
    assert said.startswith("ok:")
    file.write_text('kafka.bootstrapp = "kafka-1:9092"\n')
    assert (
        "kafka.bootstrapp" in run(bare / "pipelinectl", "--config", file, "config", "check", code=78).stderr
    )


def test_the_example_that_is_installed_is_a_configuration(bare: Path) -> None:
    example = bare.parent / "share/pipelined/pipelined.toml"
    run(bare / "pipelinectl", "--config", example, "config", "check")


def test_the_lock_file_satisfies_what_the_package_asks_for() -> None:
    root = Path(__file__).parents[2]
    locked = {}
    for line in (root / "requirements.lock").read_text().splitlines():
        name, equal, rest = line.partition("==")
        if equal and not line.startswith((" ", "#")):
            locked[name.lower()] = rest.split()[0]
    parser = ConfigParser()
    parser.read(root / "setup.cfg")
    for line in parser["options"]["install_requires"].split("\n"):
        if line:
            wanted = Requirement(line)
            assert wanted.specifier.contains(locked[wanted.name.lower()]), line


def test_the_console_scripts_are_those_of_bin(bare: Path) -> None:
    root = Path(__file__).parents[2]
    assert {path.name for path in (root / "bin").iterdir()} == {"pipelined", "pipelinectl"}
    for name in ("pipelined", "pipelinectl"):
        assert (bare / name).read_text().startswith(f"#!{bare}/python")
        assert os.access(root / "bin" / name, os.X_OK)
