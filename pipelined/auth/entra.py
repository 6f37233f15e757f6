"""Logins at Entra ID by msal: of an application, and of the managed identity of a machine.

Each login has an msal object of its own. One that is kept answers out of its memory: an error of the login
service for a minute although the secret was mended, and a token until five minutes before its end.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msal
import requests

from pipelined.auth.certificates import certificate_credential
from pipelined.auth.grant import Grant, brief, is_token
from pipelined.config import secrets
from pipelined.config.auth import LOGIN_HOSTS, Auth
from pipelined.config.trust import is_loopback, may_carry_token
from pipelined.errors import AuthError, ConfigError, DependencyError, RecordError

__all__ = ["Application", "ManagedIdentity"]

_CONNECT_S, _READ_S = 10.0, 20.0

#: What to do about an error of the login service, by its number.
_ADVICE = {
    "7000215": "client_secret must be the value of the secret, not its id",
    "7000222": "the client secret has expired: make a new one",
    "7000112": "the application is disabled in the tenant",
    "7000229": "the application has no service principal in this tenant",
    "700016": "there is no such application in this tenant: check client_id and tenant_id",
    "90002": "there is no such tenant: check tenant_id",
    "900023": "there is no such tenant: check tenant_id",
    "700024": "the assertion is not valid now: check this machine's clock, or who renews the token file",
    "700027": "the certificate is not registered with the application",
    "70021": "the application has no federated credential for this issuer and subject",
    "700211": "the application has no federated credential for this issuer",
    "700212": "the application has no federated credential for this audience",
    "700213": "the application has no federated credential for this subject",
    "500011": "the tenant does not know the resource: check scope",
    "1002012": "the scope must be RESOURCE/.default: check scope",
    "70011": "the scope must be RESOURCE/.default: check scope",
    "53003": "Conditional Access forbids it",
}
_NUMBER = re.compile(r"AADSTS(\d+)")
#: Answers that pass by themselves; what gives a machine its identity says 404 and 410 while it is restarted.
_DOWN = frozenset({408, 425, 429})
_MACHINE_DOWN = _DOWN | {404, 410}


class _Session(requests.Session):
    """What msal speaks through: with time limits, without redirects (a secret stays where it was sent)."""

    def __init__(self) -> None:
        super().__init__()
        self.status = 0  # of the last answer; 0 before the first
        self.retry_after: float | None = None

    def request(self, method: str, url: str | bytes, *args: Any, **kwargs: Any) -> requests.Response:
        """As of requests; what was answered is kept."""
        kwargs.setdefault("timeout", (_CONNECT_S, _READ_S))
        kwargs["allow_redirects"] = False
        response = super().request(method, url, *args, **kwargs)
        self.status = response.status_code
        asked = response.headers.get("Retry-After", "")
        self.retry_after = float(asked) if asked.isdecimal() else None
        return response


class _Login:
    """One login: what msal answers or raises becomes a token or an error of ours."""

    def __init__(self, section: str, who: str, *, machine: bool = False) -> None:
        self._section = section
        self._who = who
        self._machine = machine
        self._down = _MACHINE_DOWN if machine else _DOWN

    def run(self, ask: Callable[[_Session], Any], hidden: Iterable[str] = ()) -> Grant:
        """The token that ``ask`` gets through a session; ``hidden`` must not be seen in any error."""
        with _Session() as session:
            # What gives a machine its identity is on it or on its link: no proxy is between.
            session.trust_env = not self._machine
            try:
                answer = ask(session)
            except RecordError:
                raise
            except requests.RequestException as error:
                raise DependencyError(
                    "login_unreachable",
                    f"{self._section}: the login service cannot be reached: {brief(error, hidden)}",
                ) from None
            # msal and what it uses raise nearly anything over an answer they did not expect.
            except Exception as error:  # noqa: BLE001
                raise self._failure(session, f"{type(error).__name__}: {error}", hidden) from None
            if isinstance(answer, dict) and is_token(token := str(answer.get("access_token", ""))):
                return Grant.lasting(token, float(answer.get("expires_in", 3600)), _refresh_in(answer))
            raise self._failure(session, _said(answer), hidden)

    def _failure(self, session: _Session, said: str, hidden: Iterable[str]) -> RecordError:
        text = brief(said, hidden)
        status = session.status
        if status in self._down or status >= 500 or 0 < status < 400:
            return DependencyError(
                "login_down",
                f"{self._section}: the login service does not answer as it should (HTTP {status}): {text}",
                http_status=status,
                retry_after=session.retry_after,
            )
        number = _NUMBER.search(said)
        advice = _ADVICE.get(number[1] if number else "", "check the keys of this section")
        return AuthError(
            "login_refused",
            f"{self._section}: the login of {self._who} was refused; {advice}. {text}",
            http_status=status or None,
        )


class Application:
    """Logs in as an application: by its secret, its certificate, or a token of another issuer it trusts."""

    def __init__(self, auth: Auth, scope: str, section: str) -> None:
        self._auth = auth
        self._scope = scope
        self._section = section

    def __call__(self) -> Grant:
        """A new token; secret, certificate or federated token are read anew each time."""
        auth = self._auth
        federated = auth.method == "workload_identity"
        client = auth.client_id or (self._variable("AZURE_CLIENT_ID", "client_id") if federated else "")
        tenant = auth.tenant_id or (self._variable("AZURE_TENANT_ID", "tenant_id") if federated else "")
        credential, hidden = self._credential()
        authority = auth.authority.rstrip("/")
        if not may_carry_token(authority, LOGIN_HOSTS):
            raise AuthError(
                "login_refused", f"{self._section}.authority: a secret may not be sent to {authority}"
            )

        def ask(session: _Session) -> Any:
            application = msal.ConfidentialClientApplication(
                client,
                authority=f"{authority}/{tenant}",
                client_credential=credential,
                http_client=session,
                # Else Microsoft is asked whether it knows this machine.
                instance_discovery=None if not is_loopback(urlsplit(authority).hostname or "") else False,
            )
            return application.acquire_token_for_client([self._scope])

        who = f"application {client} in tenant {tenant}"
        return _Login(self._section, who).run(ask, hidden)

    def _credential(self) -> tuple[Any, list[str]]:
        """What msal takes as the proof, and the secrets in it."""
        auth = self._auth
        if auth.method == "client_secret":
            secret = self._secret("client_secret", auth.client_secret)
            return secret, [secret]
        if auth.method == "certificate":
            password = self._secret("certificate_password", auth.certificate_password)
            return certificate_credential(Path(auth.certificate_file), password, self._section), [password]
        file = auth.token_file or self._variable("AZURE_FEDERATED_TOKEN_FILE", "token_file")
        try:
            token = Path(file).read_text(encoding="utf-8-sig").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise AuthError(
                "token_file", f"{self._section}.token_file: {file} cannot be read: {error}"
            ) from None
        if not is_token(token):
            raise AuthError("token_file", f"{self._section}.token_file: {file} holds no token")
        # As a function: msal warns of one that is given as it is, since it would not be renewed.
        return {"client_assertion": lambda: token}, [token]

    def _secret(self, key: str, reference: str) -> str:
        try:
            return secrets.resolve(reference)
        except ConfigError as error:
            raise AuthError("login_secret", f"{self._section}.{key}, {error}") from None

    def _variable(self, name: str, key: str) -> str:
        if value := os.environ.get(name, ""):
            return value
        raise AuthError(
            "login_refused",
            f"{self._section}.{key} is not set, and neither is the environment variable {name}",
        )


class ManagedIdentity:
    """Logs in as the identity that Azure gave this machine, container or app."""

    def __init__(self, auth: Auth, scope: str, section: str) -> None:
        self._client_id = auth.client_id
        self._resource = scope.removesuffix("/.default")
        self._section = section

    def __call__(self) -> Grant:
        """A token; the machine's service keeps it, and may give the same one until it is about to end."""

        def ask(session: _Session) -> Any:
            identity = (
                msal.UserAssignedManagedIdentity(client_id=self._client_id)
                if self._client_id
                else msal.SystemAssignedManagedIdentity()
            )
            client = msal.ManagedIdentityClient(identity, http_client=session)
            return client.acquire_token_for_client(resource=self._resource)

        named = f" {self._client_id}" if self._client_id else " of the system"
        return _Login(self._section, f"the managed identity{named}", machine=True).run(ask)


def _refresh_in(answer: dict[str, Any]) -> float:
    """When whoever gave the token would renew it, in seconds from now."""
    when = answer.get("refresh_on")
    return max(0.0, float(when) - time.time()) if when else math.inf


def _said(answer: Any) -> str:
    """The error in an answer; a managed identity's may lie deeper."""
    if not isinstance(answer, dict):
        return "an answer without a token"
    error = answer.get("error", "")
    if isinstance(error, dict):
        return f"{error.get('code', '')} {error.get('message', '')}"
    return f"{error} {answer.get('error_description', '')}"
