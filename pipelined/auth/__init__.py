"""Logging in to Microsoft's services: one provider of tokens for whoever sends one."""

from __future__ import annotations

from pipelined.auth.provider import STORAGE_SCOPE, TokenProvider, provider

__all__ = ["STORAGE_SCOPE", "TokenProvider", "provider"]
