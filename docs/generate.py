"""Writes what is generated: ``docs/reference``, ``etc/pipelined.toml`` and the dashboards for Grafana.

``python -m docs.generate`` writes the files; with ``--check`` it writes nothing, names those that differ,
and ends with 1 if any does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from docs import pages
from docs.commands import cli
from docs.crash_points import crash_points
from docs.failures import failures
from docs.log_events import log_events
from docs.messages import messages
from docs.status import status
from observability.grafana.overview import overview
from observability.grafana.sources import sources
from pipelined.config.rendering import to_reference, to_toml

__all__ = ["GENERATED", "differing", "main"]

ROOT = Path(__file__).resolve().parents[1]

#: Each generated file, from the root of the repository, and what renders its text.
GENERATED: dict[str, Callable[[], str]] = {
    "docs/reference/cli.md": cli,
    "docs/reference/configuration.md": to_reference,
    "docs/reference/crash-points.md": crash_points,
    "docs/reference/failures.md": failures,
    "docs/reference/log-events.md": log_events,
    "docs/reference/messages.md": messages,
    "docs/reference/metrics.md": pages.metrics,
    "docs/reference/status.md": status,
    "docs/reference/tables.md": pages.tables,
    "docs/reference/topics.md": pages.topics,
    "etc/pipelined.toml": to_toml,
    "observability/grafana/overview.json": overview,
    "observability/grafana/sources.json": sources,
}


def differing(root: Path = ROOT) -> list[str]:
    """The files that are not as they would be generated now."""
    return [name for name, render in GENERATED.items() if _text(root / name) != render()]


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def main(arguments: list[str]) -> int:
    """Write the files, or with ``--check`` tell which differ; returns the exit code."""
    if arguments not in ([], ["--check"]):
        sys.stderr.write("usage: python -m docs.generate [--check]\n")
        return 64
    names = differing()
    for name in names:
        if not arguments:
            path = ROOT / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(GENERATED[name](), encoding="utf-8")
        sys.stdout.write(f"{name} {'differs; run: make docs' if arguments else 'written'}\n")
    return 1 if names and arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
