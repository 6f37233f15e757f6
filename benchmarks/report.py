"""A benchmark's result: its figures and checks, as JSON for machines and in RESULTS.md for readers."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["HERE", "Check", "Figure", "Result", "render", "write"]

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Figure:
    """One thing measured several times."""

    name: str
    unit: str
    samples: Sequence[float]

    @property
    def median(self) -> float:
        """The median of the samples."""
        return statistics.median(self.samples)

    def as_json(self) -> dict[str, Any]:
        """The figure, ready for JSON."""
        return {
            "name": self.name,
            "unit": self.unit,
            "min": min(self.samples),
            "median": self.median,
            "max": max(self.samples),
            "samples": [round(sample, 6) for sample in self.samples],
        }


@dataclass(frozen=True)
class Check:
    """A target, and what was reached: ``bound`` is ``>=`` or ``<=``."""

    name: str
    value: float
    bound: str
    target: float
    unit: str = ""

    @property
    def met(self) -> bool:
        """Whether the target is reached."""
        return self.value >= self.target if self.bound == ">=" else self.value <= self.target


@dataclass
class Result:
    """What a benchmark came to. ``method`` says how it was measured, for someone who would repeat it."""

    name: str
    title: str
    method: str
    figures: list[Figure] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The result, ready for JSON."""
        return {
            "name": self.name,
            "title": self.title,
            **self.about,
            "method": self.method,
            "figures": [figure.as_json() for figure in self.figures],
            "checks": [{**asdict(check), "met": check.met} for check in self.checks],
        }


def write(result: Result) -> None:
    """Write ``results/NAME.json``, and RESULTS.md from all results there are."""
    folder = HERE / "results"
    folder.mkdir(exist_ok=True)
    (folder / f"{result.name}.json").write_text(json.dumps(result.as_json(), indent=1) + "\n")
    documents = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    (HERE / "RESULTS.md").write_text(
        "# Results\n\nMade by `python -m benchmarks` from results/*.json. Every figure is min / median / "
        "max of its\nrepetitions; ratios are of medians. How each was measured stands beside it; README.md "
        "says how to repeat it.\n" + "".join("\n" + render(document) for document in documents)
    )


def render(document: dict[str, Any]) -> str:
    """A result as Markdown."""
    machine, versions = document["machine"], document["versions"]
    lines = [
        f"## {document['title']} (`{document['name']}`)",
        "",
        document["method"],
        "",
        f"*{document['date']}; {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
        f"{machine['system']}, kernel {machine['kernel']}; "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + f"; load average before {document['load_before'][0]}, after {document['load_after'][0]}; "
        f"took {document['seconds']:.0f} s.*",
        "",
        "| figure | min | median | max | runs |",
        "|---|---:|---:|---:|---:|",
    ]
    for figure in document["figures"]:
        values = " | ".join(_number(figure[name]) for name in ("min", "median", "max"))
        lines.append(f"| {figure['name']}, {figure['unit']} | {values} | {len(figure['samples'])} |")
    if document["checks"]:
        lines += ["", "| target | wanted | reached | |", "|---|---:|---:|---|"]
        for check in document["checks"]:
            sign = "≥" if check["bound"] == ">=" else "≤"
            unit = f" {check['unit']}" if check["unit"] else ""
            lines.append(
                f"| {check['name']} | {sign} {_number(check['target'])}{unit} "
                f"| {_number(check['value'])}{unit} | {'met' if check['met'] else '**missed**'} |"
            )
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"
