"""``pipelinectl`` as an operator calls it: a process of its own, at a supervised daemon."""

from __future__ import annotations

import subprocess
import sys

from supervised import ENVIRONMENT, Daemon

CTL = [sys.executable, "-c", "from pipelined.cli.pipelinectl import main; main()"]


def whereabouts(run: Daemon) -> list[str]:
    return [f"--set={key}={run.order[key]}" for key in ("state_dir", "runtime_dir")]


def command(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in ENVIRONMENT.items() if not name.startswith("PIPELINED_")}
    return subprocess.run(
        [*CTL, *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=kept | environ,
        timeout=60,
        check=False,
    )


def ctl(run: Daemon, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return command(*whereabouts(run), *arguments, **environ)
