"""A local Eventhouse in a process of its own, for whoever starts one: tests, and a first run."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pipelined.errors import UnavailableError
from pipelined.local.eventhouse.remote import Remote

__all__ = ["Eventhouse"]

_START_S = 60.0
_STOP_S = 10.0


class Eventhouse(Remote):
    """Starts when it is made and ends with its owner, however that ends. A context manager.

    ``directory`` keeps the tables for the next start; without one they go with the server. ``settings`` are
    those of settings.py. UnavailableError if it cannot be started.
    """

    def __init__(
        self, directory: Path | None = None, *, port: int = 0, database: str = "events", **settings: Any
    ) -> None:
        root = str(Path(__file__).parents[3])  # for a checkout that is not installed
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        command = [sys.executable, "-m", "pipelined.local.eventhouse", "--port", str(port)]
        command += ["--database", database, "--settings", json.dumps(settings)]
        if directory is not None:
            command += ["--directory", str(directory)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,  # a Ctrl-C in the owner's terminal is the owner's to handle
        )
        super().__init__(self._announced(), database)

    def _announced(self) -> str:
        assert self._process.stdout
        line = b""
        if select.select([self._process.stdout], [], [], _START_S)[0]:
            line = self._process.stdout.readline()
        if not line:
            self.stop()
            text = "the local Eventhouse did not start; what it wrote to stderr says why"
            raise UnavailableError(text)
        return str(json.loads(line)["url"])

    @property
    def pid(self) -> int:
        """The process id of the server."""
        return self._process.pid

    def stop(self) -> None:
        """End the server, if it still runs; it is gone when this returns."""
        with self._process as process:  # closes its pipes, which ends it, and waits
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        with self._process as process:
            process.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
