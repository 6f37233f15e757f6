"""A real Prometheus that scrapes a daemon of a test, with our rules."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, Self

from flow import Marked
from pipelined.local.ports import draw_ports
from waiting import until

OBSERVABILITY = Path(__file__).parents[1] / "observability" / "prometheus"


class Prometheus:
    """Scrapes ``target`` every second and judges our rules as often; a context manager.

    Its configuration is ours, but for target, times and where its rules are.
    """

    def __init__(self, marked: Marked, folder: Path, target: str) -> None:
        folder.mkdir()
        ours = (OBSERVABILITY / "prometheus.yml").read_text()
        config = folder / "prometheus.yml"
        changes = {
            "15s": "1s",
            "30s": "1s",
            "- rules/*.yml": f"- {OBSERVABILITY}/rules/*.yml",
            "127.0.0.1:9464": target,
        }
        for old, new in changes.items():
            assert ours.count(old) == 1, old
            ours = ours.replace(old, new)
        config.write_text(ours)
        self.url = f"http://127.0.0.1:{draw_ports(1)[0].plain}"
        self.log = folder / "prometheus.log"
        self._process = marked.popen(
            [
                "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={self.url.removeprefix('http://')}",
                "--log.level=warn",
            ],
            self.log,
        )

    def __enter__(self) -> Self:
        until(self._answers, "Prometheus starts")
        return self

    def __exit__(self, *about: object) -> None:
        self._process.terminate()
        self._process.wait(20)

    def _answers(self) -> bool:
        assert self._process.poll() is None, self.log.read_text()
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5):
                return True
        except (urllib.error.URLError, ConnectionError):
            return False

    def api(self, path: str, **parameters: str) -> Any:
        """The ``data`` of an answer of the API."""
        query = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}{query}", timeout=20) as answer:
            return json.load(answer)["data"]

    def ask(self, query: str) -> list[dict[str, Any]]:
        """The samples that a query has now."""
        found: list[dict[str, Any]] = self.api("query", query=query)["result"]
        return found
