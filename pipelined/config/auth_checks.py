"""What must hold of every login beyond the limits of each key alone."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from pipelined.config.auth import LOGIN_HOSTS, Auth
from pipelined.config.problems import Problem, relative
from pipelined.config.tree import Config
from pipelined.config.trust import may_carry_token

__all__ = ["logins", "logins_here", "stores"]

_NEEDED = {
    "client_secret": ("tenant_id", "client_id", "client_secret"),
    "certificate": ("tenant_id", "client_id", "certificate_file"),
    "token_file": ("token_file",),
}
#: What workload_identity takes from the environment where the key is empty.
_VARIABLES = {
    "tenant_id": "AZURE_TENANT_ID",
    "client_id": "AZURE_CLIENT_ID",
    "token_file": "AZURE_FEDERATED_TOKEN_FILE",
}
_FILES = {
    "certificate": ("certificate_file",),
    "token_file": ("token_file",),
    "workload_identity": ("token_file",),
}
_SHAPES = {
    "tenant_id": (re.compile(r"[A-Za-z0-9.-]*"), "the tenant's id or domain"),
    "client_id": (re.compile(r"[A-Za-z0-9-]*"), "the id of an application or a managed identity"),
    "scope": (re.compile(r"(\S+/\.default)?"), "RESOURCE/.default"),
}
#: The stores that take a bearer token: by the schemes of their URLs, and where such a URL names a host.
_AZURE = frozenset({"abfs", "abfss", "adl", "az", "azure"})
_STORE_HOSTS = ("core.windows.net", "fabric.microsoft.com")


def logins(config: Config) -> Iterator[Problem]:
    """Each login has what its method needs, and tells its secrets to a known login service only."""
    for section, auth in _sections(config):
        for name in _NEEDED.get(auth.method, ()):
            if not getattr(auth, name):
                key, method = f"{section}.{name}", f"{section}.method"
                yield Problem((key, method), f'{key}: needed with {method} = "{auth.method}"')
        for name, (shape, wanted) in _SHAPES.items():
            if not shape.fullmatch(given := getattr(auth, name)):
                key = f"{section}.{name}"
                yield Problem((key,), f'{key}: "{given}" is not allowed: expected {wanted}')
        for name in ("certificate_file", "token_file"):
            if (path := getattr(auth, name)) and not path.startswith("/"):
                yield relative(f"{section}.{name}", path)
        if not _is_authority(auth.authority):
            key, hosts = f"{section}.authority", ", ".join(LOGIN_HOSTS)
            yield Problem(
                (key,), f'{key}: "{auth.authority}" is not allowed: expected https:// and one of {hosts}'
            )


def _is_authority(url: str) -> bool:
    if not may_carry_token(url, LOGIN_HOSTS):
        return False
    parts = urlsplit(url)
    return parts.scheme == "https" and parts.path in ("", "/") and not parts.query


def logins_here(config: Config, environ: Mapping[str, str] | None = None) -> Iterator[Problem]:
    """The files of each login can be read here, and the variables it relies on are set."""
    environ = os.environ if environ is None else environ
    for section, auth in _sections(config):
        given = {
            name: getattr(auth, name) for name in ("tenant_id", "client_id", *_FILES.get(auth.method, ()))
        }
        if auth.method == "workload_identity":
            for name, variable in _VARIABLES.items():
                given[name] = given[name] or environ.get(variable, "")
                if not given[name]:
                    key = f"{section}.{name}"
                    yield Problem((key,), f"{key}: needed, since the variable {variable} is not set")
        for name in _FILES.get(auth.method, ()):
            if given[name] and not os.access(given[name], os.R_OK):
                key = f"{section}.{name}"
                yield Problem((key,), f"{key}: {given[name]} cannot be read")


def stores(config: Config) -> Iterator[Problem]:
    """A store that is logged in to takes a bearer token, and is one of Microsoft's."""
    for name, url, auth in (
        ("upload", config.upload.url, config.upload.auth),
        ("tables", config.tables.url, config.tables.auth),
    ):
        keys = (f"{name}.url", f"{name}.auth.method")
        scheme, _, rest = url.partition("://")
        if auth.method == "none" or scheme == "file":
            continue
        if scheme not in _AZURE:
            yield Problem(
                keys,
                f'{keys[1]}: {scheme}:// takes no bearer token: set it to "none", and give the credentials '
                "in the environment",
            )
        host = rest.partition("/")[0].rpartition("@")[2]
        if "@" in rest.partition("/")[0] and not may_carry_token(f"https://{host}", _STORE_HOSTS):
            yield Problem(
                keys, f"{keys[0]}: no token is sent to {host}: expected a host of {' or '.join(_STORE_HOSTS)}"
            )


def _sections(config: Config) -> Iterator[tuple[str, Auth]]:
    yield "eventhouse.auth", config.eventhouse.auth
    yield "eventhub.auth", config.eventhub.auth
    yield "upload.auth", config.upload.auth
    yield "tables.auth", config.tables.auth
