"""Events from a table of an Eventhouse (KQL), gap-free: windows of database cursors, page by page."""

from __future__ import annotations

from pipelined.sources.eventhouse.source import EventhouseSource

__all__ = ["EventhouseSource"]
