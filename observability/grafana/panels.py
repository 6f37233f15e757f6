"""What dashboards are made of: panels, packed into rows, as the JSON that Grafana reads.

Every panel has a title, a unit and a description. Every query is limited to the ``job`` and the ``instance``
that are chosen at the top of the dashboard: ``$of`` in its text stands for both.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Panel", "Query", "Row", "all_of", "dashboard", "one", "quantiles", "rate"]

_SOURCE = {"type": "prometheus", "uid": "$datasource"}
_OF = 'job=~"$job",instance=~"$instance"'
_COLUMNS = 24


@dataclass(frozen=True, slots=True)
class Query:
    """PromQL, and the text of the legend, with labels as ``{{worker}}``."""

    expr: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. ``kind`` is Grafana's: timeseries, stat or table; ``width`` is of 24 columns.

    ``unit`` is Grafana's, too: s, short, rows/sec, bytes, percentunit, dateTimeFromNow, bool_yes_no.
    ``steps`` are the values from which it is yellow and red; ``runbook`` is the alert it belongs to.
    """

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    kind: str = "timeseries"
    width: int = 8
    height: int = 7
    stacked: bool = False
    steps: tuple[float, float] | None = None
    runbook: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


def all_of(name: str, only: str = "") -> str:
    """The series of a metric, its name without ``pipelined_``; ``only`` limits them."""
    return f"pipelined_{name}{{$of{',' + only if only else ''}}}"


def rate(name: str, by: str, only: str = "") -> str:
    """A counter's growth a second, summed up by these labels."""
    return f"sum by ({by}) (rate({all_of(name, only)}[$__rate_interval]))"


def one(expr: str, legend: str) -> tuple[Query, ...]:
    """A single query."""
    return (Query(expr, legend),)


def quantiles(name: str, *which: float, only: str = "") -> tuple[Query, ...]:
    """Quantiles of a histogram, for each worker."""
    rates = rate(name + "_bucket", "worker, le", only)
    return tuple(Query(f"histogram_quantile({q}, {rates})", f"p{q * 100:g} {{{{worker}}}}") for q in which)


def dashboard(title: str, uid: str, description: str, rows: Sequence[Row]) -> str:
    """The dashboard as text; the same for the same description."""
    panels: list[dict[str, Any]] = []
    y = 0
    for row in rows:
        panels.append(_heading(row, y, len(panels) + 1))
        y += 1
        x, tallest = 0, 0
        for panel in row.panels:
            if x + panel.width > _COLUMNS:
                x, y, tallest = 0, y + tallest, 0
            place = {"x": x, "y": y, "w": panel.width, "h": panel.height}
            panels.append(_panel(panel, place, len(panels) + 1))
            x, tallest = x + panel.width, max(tallest, panel.height)
        y += tallest
    board = {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["pipelined"],
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "schemaVersion": 39,
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "",
        "templating": {"list": _variables()},
        "annotations": {"list": [_alerts()]},
        "links": [
            {
                "type": "dashboards",
                "title": "pipelined",
                "tags": ["pipelined"],
                "asDropdown": False,
                "keepTime": True,
                "includeVars": True,
            }
        ],
        "panels": panels,
    }
    board["version"] = int(hashlib.sha256(json.dumps(board).encode()).hexdigest()[:6], 16)
    return json.dumps(board, indent=1) + "\n"


def _heading(row: Row, y: int, number: int) -> dict[str, Any]:
    place = {"x": 0, "y": y, "w": _COLUMNS, "h": 1}
    return {
        "id": number,
        "type": "row",
        "title": row.title,
        "gridPos": place,
        "collapsed": False,
        "panels": [],
    }


def _panel(panel: Panel, place: dict[str, int], number: int) -> dict[str, Any]:
    description = panel.description
    if panel.runbook:
        description += f" Runbook: docs/runbooks/{panel.runbook}.md"
    colours: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.steps:
        yellow, red = panel.steps
        colours += [{"color": "yellow", "value": yellow}, {"color": "red", "value": red}]
    custom: dict[str, Any] = {}
    options: dict[str, Any] = {}
    if panel.kind == "timeseries":
        custom = {"fillOpacity": 20 if panel.stacked else 0, "showPoints": "never"}
        custom["stacking"] = {"mode": "normal" if panel.stacked else "none"}
        options = {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}}
    elif panel.kind == "stat":
        options = {"reduceOptions": {"calcs": ["lastNotNull"]}, "textMode": "auto", "colorMode": "value"}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": description,
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "custom": custom,
                "thresholds": {"mode": "absolute", "steps": colours},
            },
            "overrides": [],
        },
        "options": options,
        "targets": [_target(query, panel.kind, chr(65 + place)) for place, query in enumerate(panel.queries)],
    }


def _target(query: Query, kind: str, letter: str) -> dict[str, Any]:
    return {
        "refId": letter,
        "datasource": _SOURCE,
        "expr": query.expr.replace("$of", _OF),
        "legendFormat": query.legend,
        "instant": kind != "timeseries",
        "range": kind == "timeseries",
    }


def _variables() -> list[dict[str, Any]]:
    def values(name: str, label: str, query: str) -> dict[str, Any]:
        return {
            "name": name,
            "label": label,
            "type": "query",
            "datasource": _SOURCE,
            "query": {"query": query, "refId": name},
            "refresh": 2,
            "sort": 1,
            "multi": True,
            "includeAll": True,
            "allValue": ".+",
            "current": {"text": "All", "value": "$__all"},
        }

    return [
        {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
        values("job", "Job", "label_values(pipelined_build_info, job)"),
        values("instance", "Host", 'label_values(pipelined_build_info{job=~"$job"}, instance)'),
    ]


def _alerts() -> dict[str, Any]:
    return {
        "name": "Alerts",
        "datasource": _SOURCE,
        "enable": True,
        "iconColor": "red",
        "expr": 'ALERTS{alertstate="firing",job=~"$job"}',
        "titleFormat": "{{alertname}}",
        "textFormat": "{{worker}}{{source}}",
    }
