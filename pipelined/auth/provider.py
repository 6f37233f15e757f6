"""The one way to a token, whatever the method of the login."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol
from urllib.parse import urlsplit

from pipelined.auth.azcli import AzureCli
from pipelined.auth.grant import Grant
from pipelined.auth.renewal import Renewal
from pipelined.auth.tokenfile import TokenFile
from pipelined.config.auth import Auth

__all__ = ["STORAGE_SCOPE", "TokenProvider", "provider"]

#: What a token for OneLake and Azure Storage is asked for.
STORAGE_SCOPE = "https://storage.azure.com/.default"


class TokenProvider(Protocol):
    """Gives the token of one login, to any thread of the process that first asked for it."""

    @property
    def expires_at(self) -> float | None:
        """When the token in hand ends, in seconds since the epoch; None where that is not known."""

    def token(self) -> str:
        """The token to send; empty for the method none.

        At once where there is one: it is renewed ahead of its end, in the background. Else it waits for
        the login, for a minute at most. Raises AuthError (an operator has to mend something, and the
        text says what), or DependencyError (the login service cannot be reached or does not answer).
        """

    def refresh(self, refused: str = "") -> None:
        """A service answered 401: the token in hand is not used again, the next one is asked for anew.

        ``refused`` is the token that was sent: where another one is in hand meanwhile, nothing is done.
        """

    def close(self) -> None:
        """Stop renewing it."""


def provider(auth: Auth, default_scope: str, *, section: str = "auth", host: str = "") -> TokenProvider:
    """The provider of tokens for ``auth``: nothing is asked for, and nothing started, before the first token.

    ``default_scope`` is what the token is for (RESOURCE/.default) where the configuration does not say it.
    ``section`` is where ``auth`` stands in the configuration (eventhouse.auth), for errors. ``host`` is
    the service's host: its token is taken where a token file has several.
    """
    scope = auth.scope or default_scope
    if auth.method == "none":
        return NoToken()
    if auth.method == "token_file":
        return TokenFile(auth.token_file, (host, urlsplit(scope).hostname or ""), section)
    return Renewal(_login(auth, scope, section), section)


def _login(auth: Auth, scope: str, section: str) -> Callable[[], Grant]:
    if auth.method == "az_cli":
        return AzureCli(scope, auth.tenant_id, section)
    # msal and what it needs take 20 MB and a quarter of a second: only for whoever uses them.
    from pipelined.auth.entra import Application, ManagedIdentity

    if auth.method == "managed_identity":
        return ManagedIdentity(auth, scope, section)
    return Application(auth, scope, section)


class NoToken:
    """No login: a token that is empty, and is not to be sent."""

    expires_at: float | None = None

    def token(self) -> str:
        """Empty."""
        return ""

    def refresh(self, refused: str = "") -> None:
        """There is none to refresh."""

    def close(self) -> None:
        """There is nothing to stop."""
