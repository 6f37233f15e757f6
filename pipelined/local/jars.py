"""The jars of the local Kafka: which ones (kafka.lock), fetched once by their coordinates, each verified.

The lock has one line a jar: ``group:artifact:version[:classifier] sha256 bytes``. At run time exactly these
are fetched, through jgo and with jgo's own configuration (its repositories, its local repository), into the
cache folder; nothing is resolved. ``python -m pipelined.local.jars --update-lock`` resolves anew and writes
the lock.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelined.errors import UnavailableError

if TYPE_CHECKING:
    import jgo.maven

__all__ = ["KAFKA", "LOCK", "Jar", "Progress", "cache_folder", "fetch_jars", "locked", "read_lock"]

KAFKA = "org.apache.kafka:kafka_2.13:4.3.1"
LOGGING = "org.apache.logging.log4j:log4j-slf4j-impl:2.24.3"  # without it the broker logs nothing
LOCK = Path(__file__).with_name("kafka.lock")
INSTEAD = "set KAFKA_BOOTSTRAP=host:port to use an existing cluster instead"
FETCHERS = 6

Progress = Callable[[str, int, int], None]
"""Called with what is done, how much of it, and how much there is; from several threads, one at a time."""


@dataclass(frozen=True)
class Jar:
    """One jar: its coordinates, the sha256 of its bytes, and how many there are."""

    coordinates: str
    sha256: str
    size: int

    @property
    def filename(self) -> str:
        """``artifact-version[-classifier].jar``, as every repository names it."""
        return "-".join(self.coordinates.split(":")[1:]) + ".jar"


def read_lock(path: Path = LOCK) -> list[Jar]:
    """The jars of a lock file, in its order, which is the class path's. ValueError names a bad line."""
    jars = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if not line or line.startswith("#"):
            continue
        fields = line.split()
        if (
            len(fields) != 3
            or not 3 <= len(fields[0].split(":")) <= 4
            or len(fields[1]) != 64
            or not fields[2].isdigit()
        ):
            raise ValueError(
                f"{path}:{number}: not 'group:artifact:version[:classifier] sha256 bytes': {line}"
            )
        jars.append(Jar(fields[0], fields[1], int(fields[2])))
    return jars


def cache_folder() -> Path:
    """Where what was fetched is kept: $PIPELINED_CACHE, else pipelined/ in the user's cache folder."""
    if own := os.environ.get("PIPELINED_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pipelined"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the exclusive lock on the file ``path``; other processes wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def fetch_jars(folder: Path, jars: list[Jar], progress: Progress | None = None) -> list[Path]:
    """Have every jar in ``folder``, fetching what is missing; their paths in the order of ``jars``.

    A jar is in the folder under its name only once its sha256 was right. Those verified are noted in the
    stamp file by size and time of change, so a later start looks at these alone and needs no network.
    UnavailableError when something cannot be fetched or is not what the lock says.
    """
    paths = [folder / jar.filename for jar in jars]
    if _stamped(folder, paths):
        return paths
    with locked(folder / ".lock"):
        if not _stamped(folder, paths):
            wanted = [jar for jar, path in zip(jars, paths, strict=True) if not _verified(path, jar)]
            if wanted:
                _fetch(folder, wanted, progress)
            (folder / "stamp").write_text(_stamp(paths))
    return paths


def _stamp(paths: list[Path]) -> str:
    return "".join(f"{path.name} {(s := path.stat()).st_size} {s.st_mtime_ns}\n" for path in paths)


def _stamped(folder: Path, paths: list[Path]) -> bool:
    try:
        return (folder / "stamp").read_text() == _stamp(paths)
    except FileNotFoundError:
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _verified(path: Path, jar: Jar) -> bool:
    return path.exists() and _sha256(path) == jar.sha256


def _context(repository: Path) -> jgo.maven.MavenContext:
    """A context of jgo as the user has configured it, but storing into ``repository``."""
    try:
        from jgo.config import GlobalSettings
        from jgo.maven import MavenContext
    except ImportError as error:
        raise UnavailableError(
            f"fetching Kafka needs the package jgo: pip install 'pipelined[local]', or {INSTEAD}"
        ) from error
    settings = GlobalSettings.load()
    context = MavenContext(repo_cache=repository, local_repos=[settings.repo_cache], timeout=30)
    context.remote_repos.update(settings.repositories)
    return context


def _fetch(folder: Path, jars: list[Jar], progress: Progress | None) -> None:
    total = sum(jar.size for jar in jars)
    done = 0
    counting = threading.Lock()

    def count(size: int) -> None:
        nonlocal done
        with counting:
            done += size
            if progress:
                progress("fetching Apache Kafka", done, total)

    scratch = folder / ".fetch"  # the lock is held: one that is there was left by a killed process
    shutil.rmtree(scratch, ignore_errors=True)
    context = _context(scratch)
    try:
        with concurrent.futures.ThreadPoolExecutor(FETCHERS, thread_name_prefix="fetch-jars") as threads:
            fetches = [threads.submit(_fetch_one, context, folder, jar, count) for jar in jars]
            try:
                for fetched in concurrent.futures.as_completed(fetches):
                    fetched.result()
            except BaseException:
                threads.shutdown(cancel_futures=True)
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _fetch_one(context: jgo.maven.MavenContext, folder: Path, jar: Jar, count: Callable[[int], None]) -> None:
    import requests  # jgo's own client: its errors are what a failed download raises

    group, artifact, version, *classifier = jar.coordinates.split(":")
    wanted = context.project(group, artifact).at_version(version).artifact(*classifier)
    try:
        source = wanted.resolve()
    except (requests.RequestException, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise UnavailableError(
            f"cannot fetch {jar.coordinates} for the local Kafka: {reason}; {INSTEAD}"
        ) from error
    digest = _sha256(source)
    if digest != jar.sha256:
        raise UnavailableError(
            f"{source} is not the {jar.coordinates} of {LOCK.name}: its sha256 is {digest}, "
            f"not {jar.sha256}; remove it and try again, or {INSTEAD}"
        )
    if context.repo_cache in source.parents:
        source.replace(folder / jar.filename)
    else:  # the user's own repository: leave it there
        copy = context.repo_cache / jar.filename
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(source, copy)
        copy.replace(folder / jar.filename)
    count(jar.size)


def update_lock(path: Path = LOCK) -> int:
    """Resolve Kafka and its dependencies by jgo and write the lock; the number of jars."""
    with tempfile.TemporaryDirectory() as scratch:
        context = _context(Path(scratch))
        # "!": else jgo lets each one's own dependency management rule the other's dependencies.
        wanted = [context.create_dependency(f"{coordinates}!") for coordinates in (KAFKA, LOGGING)]
        inputs, transitive = context.resolver.resolve(wanted)
        lines = []
        for artifact in [
            dependency.artifact for dependency in (*inputs, *transitive) if not dependency.optional
        ]:
            parts = [artifact.groupId, artifact.artifactId, artifact.version, artifact.classifier]
            jar = artifact.resolve()
            lines.append(f"{':'.join(filter(None, parts))} {_sha256(jar)} {jar.stat().st_size}\n")
    path.write_text("# Written by python -m pipelined.local.jars --update-lock\n" + "".join(lines))
    return len(lines)


if __name__ == "__main__":
    if sys.argv[1:] != ["--update-lock"]:
        sys.exit("usage: python -m pipelined.local.jars --update-lock")
    sys.stdout.write(f"{update_lock()} jars in {LOCK}\n")
