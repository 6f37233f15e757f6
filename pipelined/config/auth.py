"""How a service of Microsoft's is logged in to: the same section wherever there is one."""

from __future__ import annotations

from dataclasses import dataclass

from pipelined.config.keys import SECRET_HELP, key

__all__ = ["LOGIN_HOSTS", "Auth"]

METHODS = (
    "none",
    "client_secret",
    "certificate",
    "managed_identity",
    "workload_identity",
    "az_cli",
    "token_file",
)
#: The login services of Microsoft's clouds; nothing else is told a secret, but this machine.
LOGIN_HOSTS = (
    "login.microsoftonline.com",
    "login.microsoftonline.us",
    "login.partner.microsoftonline.cn",
    "login.microsoft.com",
)


@dataclass(frozen=True, slots=True)
class Auth:
    """How to log in to a service of Microsoft's (Entra ID)."""

    method: str = key(
        "none",
        "How to log in; none: no token is sent. What each method needs: docs/how-to/login.md.",
        choices=METHODS,
    )
    tenant_id: str = key(
        "",
        "Tenant of the application: its id or domain. For client_secret, certificate and workload_identity "
        "(there, empty: AZURE_TENANT_ID); az_cli asks for a token of this tenant.",
    )
    client_id: str = key(
        "",
        "The application (for workload_identity, empty: AZURE_CLIENT_ID), or the user-assigned managed "
        "identity (empty: the system-assigned one).",
    )
    client_secret: str = key("", "Secret of the application. " + SECRET_HELP, secret=True)
    certificate_file: str = key("", "File (PEM) of the application's private key and certificate chain.")
    certificate_password: str = key("", "Password of that private key. " + SECRET_HELP, secret=True)
    token_file: str = key(
        "",
        "For token_file: a file of a bearer token, plain or a JSON object of tokens by host; read again when "
        "it changes. For workload_identity: that of the federated token; empty: AZURE_FEDERATED_TOKEN_FILE.",
    )
    scope: str = key(
        "", "What the token is asked for: RESOURCE/.default; empty: the usual one of the service."
    )
    authority: str = key(
        "https://login.microsoftonline.com", "The login service; another one in a national cloud."
    )
