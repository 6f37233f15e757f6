"""The package as it is given away: the sdist of this tree, and the wheel that is built from it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path
from typing import NamedTuple

import pipelined

_ROOT = Path(pipelined.__file__).parents[1]
_BUILD = """
import sys
from setuptools import build_meta
print(getattr(build_meta, sys.argv[1])(sys.argv[2]))
"""
#: What the folder of a checkout has beside what is tracked.
_LEFT_OUT = shutil.ignore_patterns(
    ".*", "__pycache__", "*.egg-info", "build", "dist", "run", "pipelined-dev", "RECORDED*"
)


class Distribution(NamedTuple):
    """The two files."""

    sdist: Path
    wheel: Path


def build(folder: Path, version: str = pipelined.__version__) -> Distribution:
    """Build both below ``folder``: the sdist from a copy of the tree, the wheel from the unpacked sdist.

    Another ``version`` than this tree has is written to the copy.
    """
    tree, unpacked, out = folder / "tree", folder / "unpacked", folder / "out"
    shutil.copytree(_ROOT, tree, ignore=_LEFT_OUT)
    out.mkdir()
    module = tree / "pipelined/__init__.py"
    module.write_text(module.read_text().replace(f'"{pipelined.__version__}"', f'"{version}"'))
    sdist = out / _call("build_sdist", tree, out)
    with tarfile.open(sdist) as archive:
        archive.extractall(unpacked, filter="data")
    (source,) = unpacked.iterdir()
    return Distribution(sdist, out / _call("build_wheel", source, out))


def _call(hook: str, tree: Path, out: Path) -> str:
    """What a front end does, without making an environment and asking an index for setuptools."""
    done = subprocess.run(
        [sys.executable, "-c", _BUILD, hook, str(out)], cwd=tree, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def dependencies() -> Path:
    """The folder of the locked packages: those of the environment that the tests run in."""
    return Path(sysconfig.get_path("purelib"))
