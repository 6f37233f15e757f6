"""A token with the time it lives, and what may be said of either."""

from __future__ import annotations

import base64
import binascii
import json
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from pipelined.logs.masking import MASKED, mask

__all__ = ["REFUSED_S", "Grant", "brief", "expiry_of", "is_token"]

#: A token that a service refused is not used again for so long; the service may have been wrong.
REFUSED_S = 30.0
#: A token is renewed so long before its end, or, where it lives shortly, by a share of what is left.
_AHEAD_S = 900.0
_AHEAD_SHARE = 1 / 3
_SOONEST_S = 1.0
_SHOWN = 400


@dataclass(frozen=True, slots=True)
class Grant:
    """What a login gave. Its end is kept by both clocks: one of them may be set meanwhile."""

    token: str = field(repr=False)
    expires_at: float
    ends: float
    renew_in: float

    @classmethod
    def lasting(cls, token: str, seconds: float, refresh_in: float = math.inf) -> Grant:
        """A token that lives for ``seconds``, and that whoever gave it would renew after ``refresh_in``."""
        ahead = min(_AHEAD_S, seconds * _AHEAD_SHARE)
        renew_in = max(_SOONEST_S, min(seconds - ahead, refresh_in))
        return cls(token, time.time() + seconds, time.monotonic() + seconds, renew_in)

    def left(self) -> float:
        """Seconds it lives yet; negative after its end."""
        return min(self.expires_at - time.time(), self.ends - time.monotonic())


def is_token(text: str) -> bool:
    """Whether this can stand in a header as a bearer token."""
    return bool(text) and text.isascii() and text.isprintable() and " " not in text


def expiry_of(token: str) -> float | None:
    """When a token ends, in seconds since the epoch, where it is a JWT that says so."""
    _, _, rest = token.partition(".")
    payload, _, _ = rest.partition(".")
    try:
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return float(claims["exp"])
    except (binascii.Error, ValueError, TypeError, KeyError):
        return None


def brief(text: object, secrets: Iterable[str] = ()) -> str:
    """``text`` of somebody else's on one short line, without ``secrets`` and what looks like one."""
    line = " ".join(str(text).split())
    for secret in secrets:
        if secret:
            line = line.replace(secret, MASKED)
    return mask(line)[:_SHOWN]
