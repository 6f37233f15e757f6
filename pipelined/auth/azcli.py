"""The login of whoever ran ``az login`` on this machine, by the az command."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import signal
import subprocess
import time

from pipelined.auth.grant import Grant, brief, is_token
from pipelined.errors import AuthError, DependencyError

__all__ = ["AzureCli"]

_TIMEOUT_S = 45.0
#: What az says where the network is to blame, in lower case.
_NETWORK = ("max retries exceeded", "connection", "timed out", "name resolution", "proxyerror", "ssl")


class AzureCli:
    """Asks ``az account get-access-token``; called for each token."""

    def __init__(self, scope: str, tenant: str, section: str) -> None:
        self._section = section
        self._arguments = ["account", "get-access-token", "--output", "json", "--scope", scope]
        if tenant:
            self._arguments += ["--tenant", tenant]

    def __call__(self) -> Grant:
        """A token; az keeps it, and gives the same one until it is about to end."""
        az = shutil.which("az")
        if az is None:
            raise AuthError(
                "login_refused",
                f"{self._section}: there is no az command in this process's PATH; install the Azure CLI, or "
                "choose another method",
            )
        code, out, err = self._run([az, *self._arguments])
        if code == 0:
            return self._grant(out)
        said = brief(err) or "nothing"
        if any(sign in said.lower() for sign in _NETWORK):
            raise DependencyError(
                "login_unreachable", f"{self._section}: az cannot reach the login service: {said}"
            )
        raise AuthError(
            "login_refused",
            f"{self._section}: az gives no token; run az login as the user of this process. It said: {said}",
        )

    def _run(self, command: list[str]) -> tuple[int, str, str]:
        """The exit code and what was written; az and whatever it started is killed when its time is over."""
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process:
            try:
                out, err = process.communicate(timeout=_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise DependencyError(
                    "login_timeout", f"{self._section}: az has not answered within {_TIMEOUT_S:g} s"
                ) from None
        return process.returncode, out, err

    def _grant(self, out: str) -> Grant:
        try:
            answer = json.loads(out)
            token, ends = str(answer["accessToken"]), _expiry(answer)
        except (ValueError, TypeError, KeyError, OverflowError):
            token, ends = "", 0.0
        if not is_token(token):
            raise DependencyError(
                "login_down", f"{self._section}: az answered something else than a token; is it up to date?"
            )
        return Grant.lasting(token, ends - time.time())


def _expiry(answer: dict[str, object]) -> float:
    """When it ends: ``expires_on`` is seconds since the epoch, and what older ones only have, local time."""
    if (epoch := answer.get("expires_on")) is not None:
        return float(str(epoch))
    return dt.datetime.fromisoformat(str(answer["expiresOn"])).timestamp()
