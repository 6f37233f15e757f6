"""What the doctor finds, in a process of its own as its command is."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pipelined
from pipelined.config import Config
from pipelined.doctor.finding import Finding

__all__ = ["found"]

_ROOT = Path(pipelined.__file__).parents[1]
_PROGRAM = """
import pickle, sys
from pipelined.doctor.checks import CHECKS
from pipelined.doctor.examination import examine
config, names = pickle.load(sys.stdin.buffer)
found = list(examine(config, [check for check in CHECKS if check.name in names]))
pickle.dump(found, sys.stdout.buffer)
"""


def found(config: Config, *names: str, environ: Mapping[str, str] | None = None) -> dict[str, list[Finding]]:
    """What the checks of these names find, with ``environ`` on top of the environment.

    In a process that has used none of the clients before, as the command has not: the checks are forked.
    """
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        input=pickle.dumps((config, names)),
        stdout=subprocess.PIPE,
        check=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": str(_ROOT)} | dict(environ or {}),
    )
    told: dict[str, list[Finding]] = {name: [] for name in names}
    for name, finding in pickle.loads(done.stdout):
        told[name].append(finding)
    return told
