"""The services that events come from, and the logins of all of them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from pipelined.config import Config
from pipelined.config.auth import Auth
from pipelined.doctor.finding import Finding, failed, fine, warned
from pipelined.errors import AuthError, ConfigError, DependencyError, UnavailableError

__all__ = ["eventhouse", "eventhub", "logins"]

_QUERY_S: Final = 8.0
_SOON_S: Final = 300.0
_NONE: Final = "not configured"


def eventhouse(config: Config) -> Iterator[Finding]:
    """The login, the table and its columns, the filter, the cursors, and the position of the source."""
    if not config.eventhouse.url:
        yield fine(_NONE)
        return
    from pipelined.auth import provider
    from pipelined.sources.eventhouse.access import Access
    from pipelined.sources.eventhouse.client import Client
    from pipelined.sources.eventhouse.cursors import CursorReader, NoCursorsError
    from pipelined.sources.eventhouse.diagnosis import check_table
    from pipelined.sources.eventhouse.errors import RefusedError
    from pipelined.sources.eventhouse.source import SCOPE

    where = dataclasses.replace(config.eventhouse, timeout_s=min(_QUERY_S, config.eventhouse.timeout_s))
    host = urlsplit(where.url).hostname or ""
    access = Access(where, Client(where, provider(where.auth, SCOPE, section="eventhouse.auth", host=host)))
    (moment,) = access.one(access.queries.clock())
    yield fine(f"{host} answers as database {where.database}; its clock says {moment}")
    try:
        check_table(access.client, access.queries, where)
    except ConfigError as error:
        for problem in error.problems:
            yield failed(problem, "set eventhouse.table and eventhouse.columns to what is there")
        return
    yield fine(f"the table {where.table} has the columns")
    if where.filter.strip():
        try:
            access.client.query(access.queries.filtered(), {})
        except RefusedError as error:
            yield failed(f"eventhouse.filter is refused: {error}", "mend the filter")
    try:
        CursorReader(access).current()
    except NoCursorsError:
        fix = f"nothing, if rows come no later than eventhouse.overlap_seconds ({where.overlap_seconds:g} s)"
        yield warned("the database has no cursors: the table is read by ingestion time", fix)
    yield from _position(config)


def _position(config: Config) -> Iterator[Finding]:
    """Whether the source can go on from where it is."""
    from pipelined.kafka.checkpoints import read_checkpoint
    from pipelined.sources.eventhouse.source import EventhouseSource, table_key

    try:
        position = read_checkpoint(config, table_key(config.eventhouse))
    except UnavailableError as error:
        yield warned(f"its position is not known: {error}", "see the findings of brokers and topics")
        return
    if position is None:
        yield fine(f"there is no position yet: reading begins at {config.eventhouse.start}")
        return
    source = EventhouseSource(config)
    try:
        source.resume(position)
        source.probe()
    except ConfigError as error:
        yield failed(str(error), "run `pipelinectl sources reset eventhouse`")
    else:
        yield fine("reading can go on from its position")
    finally:
        source.close()


def eventhub(config: Config) -> Iterator[Finding]:
    """The login, the hub and its partitions."""
    hub = config.eventhub
    if not hub.bootstrap:
        yield fine(_NONE)
        return
    from pipelined.kafka.hub import HubConnection
    from pipelined.sources.hub_login import Login

    login = Login(config)
    connection = HubConnection(config, login.settings(), login.refused)
    numbers = connection.partitions()
    waiting = sum(bounds.high - bounds.low for bounds in connection.bounds(numbers).values())
    yield fine(f"{hub.topic} at {hub.bootstrap}: {len(numbers)} partitions, {waiting:,} events kept there")


def logins(config: Config) -> Iterator[Finding]:
    """A token of each login that is configured, and how long it lives."""
    from pipelined.auth import STORAGE_SCOPE, provider
    from pipelined.sources.eventhouse.source import SCOPE
    from pipelined.sources.hub_login import hub_host

    hub = hub_host(config)
    asked: dict[str, tuple[Auth, str, str]] = {
        "upload.auth": (config.upload.auth, STORAGE_SCOPE, urlsplit(config.upload.url).hostname or ""),
        "tables.auth": (config.tables.auth, STORAGE_SCOPE, urlsplit(config.tables.url).hostname or ""),
        "eventhouse.auth": (config.eventhouse.auth, SCOPE, urlsplit(config.eventhouse.url).hostname or ""),
        "eventhub.auth": (config.eventhub.auth, f"https://{hub}/.default", hub),
    }
    configured = {name: login for name, login in asked.items() if login[0].method != "none"}
    for name, (auth, scope, host) in configured.items():
        tokens = provider(auth, scope, section=name, host=host)
        try:
            tokens.token()
        except (AuthError, DependencyError) as error:
            yield failed(str(error), f"see [{name}] and docs/how-to/login.md")
        else:
            yield _token(f"{name} ({auth.method})", tokens.expires_at)
        finally:
            tokens.close()
    if not configured:
        yield fine("no login by Entra ID is configured")


def _token(name: str, expires: float | None) -> Finding:
    if expires is None:
        return fine(f"{name}: there is a token; when it ends is not known")
    left = expires - time.time()
    if left <= 0:
        return failed(
            f"{name}: the token ended {-left / 60:.0f} minutes ago", "renew it, and check the clock"
        )
    text = f"{name}: a token for {left / 60:.0f} more minutes"
    return warned(text, "see that it is renewed in time") if left < _SOON_S else fine(text)
