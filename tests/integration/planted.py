"""Provoke every error that a login, a store, a table and an Eventhouse can have (test_secrets_unseen.py).

Its arguments: the configuration file, the URL of a service that repeats what it is told, and how to log. All
of it goes to standard output and error, as it would from the daemon, and more than that.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Callable
from pathlib import Path

from azure.kusto.data import KustoConnectionStringBuilder

from pipelined.auth import provider
from pipelined.config import Config, load
from pipelined.config.auth import Auth
from pipelined.config.tree import Logs
from pipelined.lake import schemas
from pipelined.lake.faults import classified
from pipelined.lake.tables import source
from pipelined.ledger.files import FileReader
from pipelined.ledger.tables import TableReader
from pipelined.logs.setup import setup
from pipelined.sources.eventhouse.client import Client
from pipelined.sources.hub_login import Login
from pipelined.storage.stores import open_store

_log = logging.getLogger("pipelined.tests")


def main(file: Path, echo: str, form: str) -> None:
    """Everything that can go wrong, one after the other; what does not go wrong is told as well."""
    setup(Logs(level="DEBUG", format=form), worker="test", index=0)
    loaded = load(file)
    config = loaded.config
    for thing in (loaded, config, config.kafka, config.eventhouse, config.upload.auth):
        tell(thing)
    for auth in logins(config):
        attempt(lambda auth=auth: tokens(auth))
    store = open_store(config.upload.url, timeout_s=5, auth=config.upload.auth)
    tell(store)
    attempt(lambda: store.put("a/b", file, 1, "0"))
    attempt(lambda: [*FileReader(config).paths()])
    table = source(config, schemas.EVENTS)
    tell(table)

    def opened() -> None:
        with classified(table.url):
            table.open()

    attempt(opened)
    attempt(lambda: TableReader(config).event_rows())
    attempt(lambda: tell(Login(config).settings()["sasl.username"]))
    here = dataclasses.replace(config.eventhouse, url=echo)
    login = provider(here.auth, "https://kusto.kusto.windows.net/.default", section="eventhouse.auth")
    client = Client(here, login)
    tell(client)
    for query in ("T | take 1", "print 'other'"):
        attempt(lambda query=query: client.query(query, {"k": "v"}))
    # Its repr prints its secrets; its str does not, and nothing of ours shows either.
    _log.error("str: %s", KustoConnectionStringBuilder.with_aad_application_token_authentication(echo, "x"))


def logins(config: Config) -> list[Auth]:
    """One of each method, with the secrets of the configuration."""
    given = config.tables.auth
    methods = (
        "client_secret",
        "certificate",
        "workload_identity",
        "az_cli",
        "managed_identity",
        "token_file",
    )
    made = [dataclasses.replace(given, method=method) for method in methods]
    broken = Path(given.token_file).with_suffix(".broken")
    return [*made, dataclasses.replace(given, method="token_file", token_file=str(broken))]


def tokens(auth: Auth) -> None:
    """A token asked for twice, and refused by the service between."""
    given = provider(auth, "https://storage.azure.com/.default", section="tables.auth", host="onelake")
    tell(given)
    for _ in range(2):
        try:
            token = given.token()
            given.refresh(token)
        finally:
            tell(vars(given).get("_grant"))


def tell(thing: object) -> None:
    """Show a thing in the ways a thing is shown by accident."""
    _log.info("%r %s", thing, thing, extra={"thing": thing})
    sys.stdout.write(f"{thing!r}\n{thing}\n")


def attempt(action: Callable[[], object]) -> None:
    """Tell the error of an action, with its traceback."""
    try:
        action()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is shown
        _log.exception("%s failed", action, extra={"error": error})
        sys.stdout.write(f"{error!r}\n")
    else:
        _log.info("nothing failed")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
