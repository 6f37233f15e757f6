"""The configuration: its tree, its loading with origins, and its rendering."""

from __future__ import annotations

from pipelined.config.loading import Loaded, load
from pipelined.config.tree import WORKER_TYPES, Config

__all__ = ["WORKER_TYPES", "Config", "Loaded", "load"]
