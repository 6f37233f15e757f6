"""Real parts that npm brings: installed once for all test runs, as their lock file says."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

from pipelined.local.jars import cache_folder, locked

_INSTALL_S = 240
_TRIES = 3


def installed(files: Path) -> tuple[Path, str | None]:
    """The folder with what the package and lock file in ``files`` name; and why it cannot be had, or None."""
    lock = files / "package-lock.json"
    folder = cache_folder() / f"{files.name}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
    npm = shutil.which("npm")
    if not shutil.which("node") or not npm:
        return folder, "node and npm are not installed"
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / "installed"
    with locked(folder / ".lock"):
        if not done.exists():
            for name in ("package.json", "package-lock.json"):
                shutil.copy(files / name, folder)
            if failed := _install(npm, folder):
                return folder, f"npm could not install it: {failed}"
            done.touch()
    return folder, None


def _install(npm: str, folder: Path) -> str | None:
    """Again where it fails: a registry may be busy. What npm says at last, None where it is installed."""
    said = ""
    for _ in range(_TRIES):
        tried = subprocess.run(
            [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=_INSTALL_S,
            check=False,
        )
        if tried.returncode == 0:
            return None
        said = tried.stderr[-500:]
    return said
