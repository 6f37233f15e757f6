"""Secrets: given by reference only, read where they are used, never printed.

A reference is ``env:NAME`` (an environment variable), ``file:/path`` (a file, such as a systemd
credential) or empty for none.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from pipelined.errors import ConfigError

__all__ = ["is_reference", "resolve", "variable_of"]

_ENV = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)")
_FILE = re.compile(r"file:(/[^\x00-\x1f\x7f]+)")


def is_reference(text: str) -> bool:
    """Whether ``text`` is a reference (or empty), and so may be shown."""
    return not text or bool(_ENV.fullmatch(text) or _FILE.fullmatch(text))


def variable_of(reference: str) -> str | None:
    """The environment variable a reference names, if it names one."""
    match = _ENV.fullmatch(reference)
    return match[1] if match else None


def resolve(reference: str, environ: Mapping[str, str] | None = None) -> str:
    """The secret behind a reference; empty for an empty reference.

    A file's byte order mark and trailing line end are not part of the secret. Raises ConfigError for
    what is no reference (without repeating it), a variable that is not set, a file that cannot be
    read, and an empty secret.
    """
    if not reference:
        return ""
    if (name := variable_of(reference)) is not None:
        secret = (os.environ if environ is None else environ).get(name, "")
        if not secret:
            raise ConfigError(f"the secret {reference}: the environment variable is not set, or is empty")
        return secret
    if match := _FILE.fullmatch(reference):
        return _from_file(reference, Path(match[1]))
    raise ConfigError(
        'a secret goes by reference, "env:NAME" or "file:/path", never as itself; what was given is neither'
    )


def _from_file(reference: str, path: Path) -> str:
    try:
        secret = path.read_text(encoding="utf-8-sig").rstrip("\r\n")
    except OSError as error:
        raise ConfigError(
            f"the secret {reference}: the file cannot be read: {error.strerror or error}"
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"the secret {reference}: the file is not UTF-8 text") from None
    if not secret:
        raise ConfigError(f"the secret {reference}: the file is empty")
    return secret
