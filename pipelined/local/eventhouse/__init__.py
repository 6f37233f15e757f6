"""A local Eventhouse: the Kusto REST protocol in front of a real KQL engine, for first runs and tests.

``Eventhouse`` starts one. It answers the unmodified client as the service does: queries with parameters and
options, commands, database cursors, ingestion times of seven digits, limits, and every failure a poller must
live through. What it cannot be trusted for is what KQL the service accepts: the engine takes more, and less.
"""

from __future__ import annotations

from pipelined.local.eventhouse.process import Eventhouse

__all__ = ["Eventhouse"]
