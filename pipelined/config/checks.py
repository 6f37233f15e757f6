"""What must hold of a configuration beyond the limits of each key alone.

:func:`run` judges the configuration by itself; :func:`run_here` judges what it points at on this
machine: secrets and files.
"""

from __future__ import annotations

import ipaddress
import itertools
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath
from urllib.parse import SplitResult, urlsplit

from pipelined.config import (
    auth_checks,
    cluster_checks,
    eventhouse_checks,
    hub_checks,
    secrets,
    source_checks,
)
from pipelined.config.leaves import leaves
from pipelined.config.problems import Problem, is_host, relative
from pipelined.config.tree import SOURCE_TYPES, WORKER_TYPES, Config
from pipelined.errors import ConfigError

__all__ = ["run", "run_here"]

_EXTENSION = re.compile(r"[a-z0-9]{1,16}")
_CONTENT_TYPE = re.compile(r"[a-z0-9.+-]+/([a-z0-9.+-]+\*?|\*)")
_SCHEMES = ("file", "abfss", "abfs", "az", "azure", "adl", "s3", "s3a", "gs")
#: A Unix socket's path has at most 107 bytes; this leaves room for the socket's name.
_RUNTIME_DIR_BYTES = 90


def run(config: Config) -> Iterator[Problem]:
    """Every problem of this configuration by itself; nothing outside it is looked at."""
    for check in _CHECKS:
        yield from check(config)


def run_here(config: Config, environ: Mapping[str, str] | None = None) -> Iterator[Problem]:
    """Every secret and file it refers to that cannot be read here. No secret is ever part of a text."""
    for leaf in leaves(config):
        if leaf.spec.secret:
            try:
                secrets.resolve(leaf.default, environ)
            except ConfigError as error:
                yield Problem((leaf.path,), f"{leaf.path}, {error}")
    if config.kafka.ca_file and not os.access(config.kafka.ca_file, os.R_OK):
        yield Problem(("kafka.ca_file",), f"kafka.ca_file: {config.kafka.ca_file} cannot be read")
    yield from auth_checks.logins_here(config, environ)
    yield from hub_checks.hub_here(config)


def _folders(config: Config) -> Iterator[Problem]:
    kept = {"state_dir": config.state_dir, "runtime_dir": config.runtime_dir}
    for key, path in {**kept, "cache_dir": config.cache_dir}.items():
        if not PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            yield relative(key, path)
    if len(config.runtime_dir.encode()) > _RUNTIME_DIR_BYTES:
        yield Problem(
            ("runtime_dir",),
            f"runtime_dir: at most {_RUNTIME_DIR_BYTES} bytes, or its control socket's path is too long",
        )
    for key, url in (("upload.url", config.upload.url), ("tables.url", config.tables.url)):
        if url.startswith("file:///"):
            kept[key] = url.removeprefix("file://")
    for key, path in kept.items():
        if PurePosixPath(path).is_relative_to(config.cache_dir):
            yield Problem(
                ("cache_dir", key),
                f"cache_dir: {config.cache_dir} is swept of old files, and {key} ({path}) lies in it",
            )


def _stores(config: Config) -> Iterator[Problem]:
    for key, url in (("upload.url", config.upload.url), ("tables.url", config.tables.url)):
        if wrong := _store_problem(url):
            yield Problem((key,), f"{key}: {wrong}")


def _store_problem(url: str) -> str:
    """What is wrong with a store's URL; parts that may be a secret are not repeated."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        return f"is no URL: {error}"
    if parts.scheme not in _SCHEMES:
        return f'the scheme "{parts.scheme}" is not known: expected one of {", ".join(_SCHEMES)}'
    if parts.query or parts.fragment or ":" in parts.netloc.rpartition("@")[0]:
        return "expected no query, fragment or password: how to log in is said in `auth`"
    if parts.scheme == "file":
        return _folder_problem(parts)
    return "" if parts.netloc else f"expected {parts.scheme}://CONTAINER/…"


def _folder_problem(parts: SplitResult) -> str:
    if parts.netloc or len(parts.path) < 2:
        return "expected file:///FOLDER, with an absolute path"
    return "expected a path without .." if ".." in PurePosixPath(parts.path).parts else ""


def _what_is_fetched(config: Config) -> Iterator[Problem]:
    for host in config.urls.allowed_hosts:
        if not is_host(host.removeprefix("*.")):
            yield _item("urls.allowed_hosts", host, "a host name, or *.suffix")
    for port in config.urls.allowed_ports:
        if not 0 < port < 65536:
            yield _item("urls.allowed_ports", port, "1 to 65535")
    for network in config.urls.allowed_networks:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            yield _item("urls.allowed_networks", network, f"a network such as 10.0.0.0/8 ({error})")
    for extension in config.files.extensions:
        if not _EXTENSION.fullmatch(extension):
            yield _item("files.extensions", extension, "lower-case letters and digits, without the dot")
    for content_type in config.files.content_types:
        if not _CONTENT_TYPE.fullmatch(content_type):
            yield _item("files.content_types", content_type, "type/subtype in lower case, * only at the end")


def _item(key: str, item: object, wanted: str) -> Problem:
    return Problem((key,), f'{key}: "{item}" is not allowed: expected {wanted}')


def _retries(config: Config) -> Iterator[Problem]:
    delays = config.retry.delays_s
    ascending = all(first < second for first, second in itertools.pairwise(delays))
    if not ascending or any(delay <= 0 for delay in delays):
        yield Problem(("retry.delays_s",), "retry.delays_s: expected positive numbers, each above the last")
    if config.retry.max_attempts and not delays:
        yield Problem(
            ("retry.delays_s", "retry.max_attempts"),
            f"retry.delays_s: expected at least one delay with max_attempts {config.retry.max_attempts}",
        )


#: Types of which a daemon has one process.
_SINGLE = (*SOURCE_TYPES, "event-writer", "result-processor", "table-maintenance", "endpoint")


def _workers(config: Config) -> Iterator[Problem]:
    for worker_type in WORKER_TYPES:
        worker = config.worker(worker_type)
        key = f"workers.{worker_type.replace('-', '_')}"
        if worker_type in _SINGLE and worker.processes > 1:
            yield Problem(
                (f"{key}.processes",),
                f"{key}.processes: {worker.processes} is not allowed: expected 0 or 1",
            )
        if worker.window_records < worker.batch_records:
            yield Problem(
                (f"{key}.window_records", f"{key}.batch_records"),
                f"{key}.window_records: {worker.window_records} is smaller than batch_records, "
                f"{worker.batch_records}",
            )


def _at_most(key: str, value: float, other: str, bound: float) -> Iterator[Problem]:
    if value > bound:
        yield Problem((key, other), f"{key}: {value:g} is more than {other}, {bound:g}")


def _times(config: Config) -> Iterator[Problem]:
    supervisor, download = config.supervisor, config.download
    first, longest = supervisor.backoff_first_s, supervisor.backoff_max_s
    yield from _at_most("supervisor.backoff_first_s", first, "supervisor.backoff_max_s", longest)
    connect, whole = download.connect_timeout_s, download.timeout_s
    yield from _at_most("download.connect_timeout_s", connect, "download.timeout_s", whole)
    if not is_host(config.endpoint.host):
        yield Problem(
            ("endpoint.host",),
            f'endpoint.host: "{config.endpoint.host}" is not allowed: expected an address or a host name',
        )


_CHECKS: tuple[Callable[[Config], Iterator[Problem]], ...] = (
    cluster_checks.names,
    cluster_checks.cluster,
    cluster_checks.topics,
    _folders,
    _stores,
    auth_checks.logins,
    auth_checks.stores,
    _what_is_fetched,
    _retries,
    _workers,
    _times,
    source_checks.sources,
    hub_checks.hub,
    eventhouse_checks.eventhouse,
)
