"""The metrics of the workers that bring events in; part of the registry, and declared here."""

from __future__ import annotations

import functools

from pipelined.stats.metric import SECONDS, Kind, Metric, declare

__all__ = ["SOURCE_METRICS"]

SOURCE_METRICS: list[Metric] = []
_declare = functools.partial(declare, SOURCE_METRICS)

POLLS = _declare(
    Kind.COUNTER,
    "source_polls_total",
    "Times that a source was asked for a page, by what came of it.",
    "failed: failures_total has the category, `pipelinectl status` the words. Many empty ones: it is quiet.",
    "result",
    ("page", "empty", "failed"),
)
QUERY_SECONDS = _declare(
    Kind.HISTOGRAM,
    "source_query_seconds",
    "Time of one request to a source.",
    "Slow: the service, its capacity, or the network to it.",
    buckets=SECONDS,
)
THROTTLED = _declare(
    Kind.COUNTER,
    "source_throttled_total",
    "Requests that a source refused because there were too many.",
    "For long: the capacity of the service is used up, by us or by others; poll less often, or buy more.",
)
SHORTENED = _declare(
    Kind.COUNTER,
    "source_pages_shortened_total",
    "Pages that a source could not give whole because of a limit, and that were asked for again, smaller.",
    "Steadily: make the pages smaller in the configuration of the source.",
)
LOST = _declare(
    Kind.COUNTER,
    "source_events_lost_total",
    "Events that the source removed before they were read.",
    "They are lost to the pipeline. Load them from elsewhere, keep events longer there, see why it lagged.",
)
RECONNECTS = _declare(
    Kind.COUNTER,
    "source_reconnects_total",
    "Times that a connection was made anew because nothing came although something waited.",
    "Now and then is nothing. Often: the network to the service, or the service.",
)
POSITION = _declare(
    Kind.GAUGE,
    "source_position_timestamp_seconds",
    "The position in the source as a time, by the source's clock: what came until then is taken; 0: unknown.",
    "Standing still while source_waiting is 1: see `pipelinectl status`.",
)
CLOCK = _declare(
    Kind.GAUGE,
    "source_clock_timestamp_seconds",
    "The source's own clock when it last told it, 0: it never did.",
    "Far from ours: one of the two clocks is wrong; nothing is lost by that.",
)
DELAY = _declare(
    Kind.GAUGE,
    "source_delay_seconds",
    "How far the position lies behind the source's clock.",
    "Growing: it is held back, cannot be read, or brings more than is taken; see `pipelinectl status`.",
)
RATE = _declare(
    Kind.GAUGE,
    "source_rate_rows",
    "Rows a second that the source brought lately.",
    "0 while source_waiting is 1: see `pipelinectl status`.",
)
WAITING = _declare(
    Kind.GAUGE,
    "source_waiting",
    "1 while rows are known to wait behind the position; 0: the source has nothing new, or is not asked.",
    "1 for long with source_rate_rows at 0: see `pipelinectl status`, which says what stands in the way.",
)
HELD = _declare(
    Kind.GAUGE,
    "source_held",
    "1 while nothing is read because the stages behind are too far behind (sources.pause_lag).",
    "The pipeline is slower than the source: see which worker is slow, or add processes.",
)
LAG = _declare(
    Kind.GAUGE,
    "source_stages_lag_records",
    "The lag that decides whether the source is held: the largest of sources.pause_stages.",
    "At sources.pause_lag the source is held.",
)
REFUSED = _declare(
    Kind.GAUGE,
    "source_refused",
    "1 while the source waits for an operator: what it needs is decided or mended by nobody else.",
    "`pipelinectl status` and the log say what.",
)
FALLBACK = _declare(
    Kind.GAUGE,
    "source_fallback",
    "1 while the source is read in a lesser way than it should be.",
    "`pipelinectl status` and the log say why.",
)
TOKEN = _declare(
    Kind.GAUGE,
    "source_token_expiry_timestamp_seconds",
    "When the present login at the source ends; 0: there is none.",
    "In the past: the login cannot be renewed; the log says why.",
)
