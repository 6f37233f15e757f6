"""The installed commands as processes of their own: a daemon, its configuration, and a clean end.

Every process that a :class:`Flow` starts, and all that these start in turn, carries a mark in its
environment, so that what is left of them can be found, and ended, whatever session or parent it has.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import secrets
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import pipelined
from pipelined.config import WORKER_TYPES, Config, load
from pipelined.errors import UnavailableError
from pipelined.kafka import topics
from pipelined.ledger import Balance, judge
from pipelined.local.generator import Day
from pipelined.sources.file import load_file
from pipelined.supervisor.protocol import ask
from waiting import PATIENCE_S, until

T = TypeVar("T")

MARK = "FLOW_MARK"
#: The worker types that run where nothing is configured: a source is enabled by whoever has one.
RUNNING = tuple(name for name in WORKER_TYPES if Config().worker(name).processes)

_ROOT = Path(pipelined.__file__).parents[1]
_INSTALLED = Path(sys.executable).with_name("pipelinectl")


def pipelined_command(*arguments: str | Path) -> list[str]:
    """The daemon's command line."""
    return [sys.executable, "-m", "pipelined", *map(str, arguments)]


def pipelinectl_command(*arguments: str | Path) -> list[str]:
    """The operator's command line: the installed script where there is one, else its entry point."""
    if _INSTALLED.exists():
        return [str(_INSTALLED), *map(str, arguments)]
    entry = "from pipelined.cli.pipelinectl import main; main()"
    return [sys.executable, "-c", entry, *map(str, arguments)]


class Marked:
    """Runs commands whose processes can all be found again; a context manager that leaves none behind."""

    def __init__(self) -> None:
        self.mark = secrets.token_hex(12)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PIPELINED_")}
        if cache := os.environ.get("PIPELINED_CACHE"):
            kept["PIPELINED_CACHE"] = cache
        path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
        self.environment = kept | {MARK: self.mark, "PYTHONPATH": path}

    def run(
        self, command: list[str], *, timeout: float = PATIENCE_S, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; what it prints is in the result."""
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=self.environment,
            check=False,
            cwd=cwd,
        )

    def popen(
        self, command: list[str], log: Path, *, stdin: int = subprocess.DEVNULL, cwd: Path | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a command in a session of its own, its output at the end of ``log``."""
        with log.open("ab") as output:
            return subprocess.Popen(
                command,
                stdin=stdin,
                cwd=cwd,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env=self.environment,
            )

    def processes(self) -> dict[int, str]:
        """The processes that run now, with their command lines."""
        wanted = f"{MARK}={self.mark}".encode()
        found = {}
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            with contextlib.suppress(OSError):  # it ended meanwhile, or is not ours to look at
                # A zombie has no environment any more: it runs no longer.
                if wanted in (folder / "environ").read_bytes().split(b"\0"):
                    line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    found[int(folder.name)] = line.strip()
        return found

    def end(self) -> None:
        """Kill what is left."""

        def none_left() -> bool:
            left = self.processes()
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not left

        until(none_left, "the processes of the test end", 20)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()


class Flow(Marked):
    """One installation below ``folder``: its configuration, its topics, its daemon.

    ``settings`` are keys by their path, such as ``{"workers.download.processes": 2}``; they come on top
    of short waits for tests.
    """

    def __init__(
        self,
        folder: Path,
        bootstrap: str,
        domain: str,
        files_url: str,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.folder = folder
        self.domain = domain
        self.files_url = files_url
        self.config_file = folder / "pipelined.toml"
        self.log_file = folder / "daemon.log"
        self.daemon: subprocess.Popen[bytes] | None = None
        #: What goes before the daemon's command line; it must end by becoming the daemon.
        self.wrapper: list[str] = []
        self.balance: Balance | None = None
        self._files = 0
        partitions = "events_raw events_ingested downloads_pending downloads_cached downloads_results".split()
        single = "events_dlq downloads_retry downloads_dlq".split()
        self._settings: dict[str, Any] = {
            "domain": domain,
            "state_dir": f"{folder}/state",
            "runtime_dir": f"{folder}/state",
            "cache_dir": f"{folder}/cache",
            "kafka.bootstrap": bootstrap,
            "kafka.host": "here",
            "kafka.session_timeout_s": 6.0,
            "kafka.transaction_timeout_s": 4.0,
            "topics.replication_factor": 1,
            "topics.min_insync_replicas": 1,
            **{f"topics.{stream}.partitions": 3 for stream in partitions},
            **{f"topics.{stream}.partitions": 1 for stream in single},
            "urls.allowed_hosts": ["127.0.0.1"],
            "urls.allowed_ports": [443, int(files_url.rpartition(":")[2])],
            "urls.allow_http": True,
            "urls.allowed_networks": ["127.0.0.0/8"],
            "download.low_speed_s": 2.0,
            "upload.url": f"file://{folder}/files",
            "tables.url": f"file://{folder}/tables",
            "tables.flush_seconds": 0.3,
            "retry.delays_s": [0.5, 1.0],
            "retry.pause_s": 0.5,
            "breaker.open_s": 0.5,
            "supervisor.backoff_first_s": 0.2,
            "endpoint.port": 0,
            "logs.format": "text",
        }
        self.configure(settings or {})

    def beside(self, host: str, settings: Mapping[str, Any] | None = None) -> Flow:
        """Another host of this installation: topics, tables and files in common, state and cache its own.

        Processes that it starts bear its own mark: end it too.
        """
        folder = self.folder / host
        folder.mkdir()
        shared = {
            "kafka.host": host,
            "state_dir": f"{folder}/state",
            "runtime_dir": f"{folder}/state",
            "cache_dir": f"{folder}/cache",
        }
        made = Flow(folder, self.config.kafka.bootstrap, self.domain, self.files_url)
        made.configure(self._settings | shared | dict(settings or {}))
        return made

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Change the configuration file; a daemon that runs keeps what it has."""
        self._settings |= settings
        # A number, a text, a list and a truth value are the same in JSON and TOML.
        lines = (f"{key} = {json.dumps(value)}\n" for key, value in self._settings.items())
        self.config_file.write_text("".join(lines))

    @property
    def config(self) -> Config:
        """The configuration as it is now."""
        return load(self.config_file, environ={}).config

    def apply_topics(self) -> None:
        """Make the topics."""
        config = self.config
        topics.apply(config, topics.plan(config))

    def start(self, *, wait: bool = True) -> Self:
        """Start ``pipelined run``, and wait until all its workers run."""
        command = pipelined_command("--config", self.config_file, "run")
        self.daemon = self.popen([*self.wrapper, *command], self.log_file)
        if wait:
            self.until_state("running")
        return self

    def until_state(self, state: str, patience: float = PATIENCE_S) -> dict[str, Any]:
        """Wait until the daemon is in this state; its status."""

        def reached() -> dict[str, Any] | None:
            status = self._status_if_any()
            return status if status and status["state"] == state else None

        return self._until(reached, f"the daemon is {state}", patience)

    def status(self) -> dict[str, Any]:
        """The status as the control socket tells it."""
        document: dict[str, Any] = ask(self.config.runtime_dir, {"cmd": "status"})["status"]
        return document

    def workers(self) -> dict[str, dict[str, Any]]:
        """The status of the first process of each worker type."""
        return {worker["type"]: worker for worker in self.status()["workers"] if not worker["index"]}

    def until_worker(
        self, name: str, condition: Callable[[dict[str, Any]], bool], what: str, patience: float = PATIENCE_S
    ) -> dict[str, Any]:
        """Wait until the first process of that type is in the wanted condition; its status."""

        def reached() -> dict[str, Any] | None:
            status = self._status_if_any()
            found = [each for each in status["workers"] if each["type"] == name] if status else []
            return found[0] if found and condition(found[0]) else None

        return self._until(reached, f"{name} {what}", patience)

    def _status_if_any(self) -> dict[str, Any] | None:
        """The status; None while the daemon does not listen yet."""
        assert self.daemon is None or self.daemon.poll() is None, "the daemon ended"
        with contextlib.suppress(UnavailableError):
            return self.status()
        return None

    def _until(self, condition: Callable[[], T | None], what: str, patience: float) -> T:
        try:
            found = until(condition, what, patience)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.tail()}") from None
        assert found is not None
        return found

    def ctl(self, *arguments: str | Path, timeout: float = PATIENCE_S) -> subprocess.CompletedProcess[str]:
        """Run ``pipelinectl`` with this configuration."""
        return self.run(pipelinectl_command("--config", self.config_file, *arguments), timeout=timeout)

    def http(self, path: str, port: int | None = None) -> tuple[int, str]:
        """Status and body of a GET at the endpoint, on the port that the status publishes, or on this one."""
        port = port or self.workers()["endpoint"]["published"]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def load(self, lines: Iterable[bytes]) -> int:
        """Load these lines as a file; returns how many."""
        path = self.write(lines)
        return load_file(self.config, str(path)).lines

    def write(self, lines: Iterable[bytes]) -> Path:
        """A new file of these lines."""
        self._files += 1
        path = self.folder / f"events-{self._files}.jsonl"
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        return path

    def load_whatever_happens(self, path: Path) -> None:
        """Load a file while brokers come and go: the same again, until it is done."""

        def done() -> bool:
            with contextlib.suppress(UnavailableError):
                return load_file(self.config, str(path)).complete
            return False

        until(done, f"{path.name} is loaded", 90)

    def day(self, events: int, seed: int) -> Day:
        """A generated day whose attachments lie on this test's file server."""
        return Day(events, seed, self.files_url, start=dt.datetime.now(dt.UTC))

    def settle(self, wait: float = PATIENCE_S) -> Balance:
        """Wait until everything is accounted for, and insist on it; the balance."""
        balance = judge(self.config, wait)
        assert balance.balanced, f"{json.dumps(balance.as_json(), indent=1)}\n{self.tail()}"
        self.balance = balance
        return balance

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Have the daemon drain and end; its exit code."""
        assert self.daemon is not None
        self.daemon.send_signal(number)
        return self.daemon.wait(PATIENCE_S)

    def log(self) -> str:
        """What the daemon logged so far."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def until_logged(self, text: str, patience: float = 20) -> None:
        """Wait until this is in the log: a thread of its own writes it, a moment later."""
        self._until(lambda: text in self.log() or None, f"the log says {text!r}", patience)

    def tail(self, lines: int = 60) -> str:
        """The end of the daemon's log."""
        return "\n".join(self.log().splitlines()[-lines:])

    def end(self) -> None:
        """Kill what is left."""
        super().end()
        if self.daemon is not None:
            self.daemon.wait()


def event(trace_id: str, urls: Iterable[str] = (), subtype: str = "documentsReceived") -> bytes:
    """One event of an assignment, as a source would send it."""
    return json.dumps(
        {
            "type": f"verisk.claims.property.xn.{subtype}",
            "version": 1,
            "utcDateTime": dt.datetime.now(dt.UTC).isoformat(),
            "traceId": trace_id,
            "data": {"assignmentId": "05QK7ZD", "attachments": list(urls)},
        }
    ).encode()


def trace_ids(count: int) -> Iterator[str]:
    """New trace ids."""
    for _ in range(count):
        bits = secrets.token_hex(16)
        yield f"{bits[:8]}-{bits[8:12]}-4{bits[13:16]}-a{bits[17:20]}-{bits[20:]}"


def are_all_running(status: Mapping[str, Any]) -> bool:
    """Whether every worker type is there that runs without a source, and each process RUNNING."""
    workers = status["workers"]
    return {worker["type"] for worker in workers} >= set(RUNNING) and all(
        worker["state"] == "RUNNING" for worker in workers
    )
