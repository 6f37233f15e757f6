"""What a local Eventhouse can be told while it runs."""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["DEFAULT_MAX_BYTES", "DEFAULT_MAX_RECORDS", "Settings"]

#: The service's own limits of one answer.
DEFAULT_MAX_RECORDS = 500_000
DEFAULT_MAX_BYTES = 64 * 1024 * 1024


class Settings(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Behaviour that stays until it is changed; the faults are for single requests."""

    #: An answer with more is cut: as an error in its rows or, where the request wants it, a partial failure.
    max_records: int = DEFAULT_MAX_RECORDS
    max_bytes: int = DEFAULT_MAX_BYTES
    #: The bearer tokens that are let in; None: nobody is asked for one.
    tokens: list[str] | None = None
    #: ``off``: the cursor functions are unknown here; ``empty``: ``cursor_current()`` is the empty string.
    cursors: Literal["on", "off", "empty"] = "on"
    #: Whether ``cursor_current()`` moves on though no rows came.
    cursor_always_moves: bool = False
    #: How long rows of streaming ingestion are visible before they have a cursor; None: until ``seal``.
    streaming_cursor_lag_s: float | None = 0.0
    #: What the clock of the service is ahead of this machine's.
    clock_offset_s: float = 0.0
    #: Whether dynamic values come as JSON text instead of JSON; both are met in the wild.
    dynamic_as_text: bool = False
    #: What the metadata of the cluster names as the place to log in.
    login_endpoint: str = "https://login.microsoftonline.com"
