"""The links to a generated event's attachments: most good and signed, a share of them faulty.

Where a fault is the server's doing the link's path orders it of the local file server; the others are in the
link itself: a signature that has expired, a host that is on no allow-list.
"""

from __future__ import annotations

import datetime as dt
import itertools
import random
from typing import Final, NamedTuple
from urllib.parse import quote

from pipelined.local.fileserver import file_path

__all__ = ["MOST", "Link", "Links"]


class Link(NamedTuple):
    """One attachment. ``delivered``: whether it can arrive in the end, whatever ``fault`` it has first."""

    url: str
    size: int
    fault: str
    delivered: bool


# Fault → its share of the attachments and whether the file arrives in the end. Those the file server knows
# are ordered of it by this name.
_FAULTS: Final[dict[str, tuple[float, bool]]] = {
    "missing": (0.004, False),
    "flaky-1": (0.003, True),
    "flaky-2": (0.002, True),
    "ratelimit-1": (0.002, True),
    "slow": (0.004, True),
    "cut": (0.003, False),
    "cut-1": (0.003, True),
    "nolength": (0.003, False),
    "redirect": (0.003, True),
    "astray": (0.002, False),
    "wrongtype": (0.003, False),
    "disguised": (0.003, False),
    "program": (0.003, False),
    "expired": (0.005, False),
    "forbidden_host": (0.004, False),
}
_NAMES: Final = ("ok", *_FAULTS)
_SHARES: Final = tuple(share for share, _ in _FAULTS.values())
_BOUNDS: Final = tuple(itertools.accumulate((1 - sum(_SHARES), *_SHARES)))
_SAME_NAME: Final = 0.015  # of the events with two or three attachments
_LEAST: Final = 2_000
MOST: Final = 2_000_000
_MU: Final = 9.35  # with sigma, of the logarithm of a size: 11.5 kB in the middle, 40 kB on average
_SIGMA: Final = 1.6
_METADATA: Final = "http://169.254.169.254/latest/meta-data/iam"
_NOBODYS_HOST: Final = "https://files.attacker.example"

_EXTENSIONS: Final = ("pdf", "PDF", "jpg", "JPG", "jpeg", "png", "xml", "XML", "zip", "esx", "ESX", "txt")
_EXTENSION_WEIGHTS: Final = tuple(itertools.accumulate((30, 15, 10, 6, 2, 14, 8, 4, 5, 2, 1, 3)))
_STEMS: Final = (
    "GENERIC",
    "GENERIC_ROUGHDRAFT",
    "ESTIMATE",
    "FinalDraft",
    "photo",
    "IMG",
    "Claim Report",
    "XACTDOC",
    "Invoice (final)",
    "StandardizedEstimate",
    "loss-notice",
    "scan",
)
# Names as people and attackers write them; {} stands for the extension.
_ODD: Final = (
    "Überweisung Müller.{}",
    "Cafe\u0301 Rene\u0301.{}",
    "見積書（最終）.{}",
    "Dach – Foto №1.{}",
    "צילום נזק.{}",
    "🏠 water damage 🌊.{}",
    'a:b*c?"<d>|e.{}',
    "..\\..\\windows\\system.{}",
    "../../etc/passwd.{}",
    "  spaces around  .{}",
    "ends in dots..{}. .",
    "tab\tand\x01control.{}",
    "100% loss + #1 & more;a=b.{}",
    "長" * 90 + ".{}",
    "x" * 250 + ".{}",
)
_ENCODED: Final = ("M%FCller.{}", "caf%C3%A9%20%E2%98%95%ZZ.{}")


class Links:
    """Makes links to ``files_url`` (of a local file server) and, the forbidden ones, ``forbidden_url``.

    No file is larger than ``largest`` bytes.
    """

    def __init__(self, files_url: str, forbidden_url: str | None = None, largest: int = MOST) -> None:
        self._largest = largest
        self._files_url = files_url.rstrip("/")
        self._forbidden_url = (forbidden_url or _NOBODYS_HOST).rstrip("/")

    def make(self, rng: random.Random, when: dt.datetime) -> list[Link]:
        """One to three links of an event at ``when``, signed then and good for a week unless at fault."""
        count = 1 + int(3 * rng.random())
        if count > 1 and rng.random() < _SAME_NAME:
            name = _name(rng)
            return [self._link(rng, when, "ok", name)._replace(fault="same_name") for _ in range(count)]
        return [self._link(rng, when, rng.choices(_NAMES, cum_weights=_BOUNDS)[0]) for _ in range(count)]

    def _link(self, rng: random.Random, when: dt.datetime, fault: str, name: str | None = None) -> Link:
        size = min(self._largest, max(_LEAST, int(rng.lognormvariate(_MU, _SIGMA))))
        name = name or _name(rng)
        host, order = self._files_url, fault
        if fault == "program":
            name, order = "setup.exe", "ok"
        elif fault == "expired":
            order = "ok"
        elif fault == "forbidden_host":
            host, order = (self._forbidden_url, "ok") if rng.random() < 0.6 else (_METADATA, "ok")
        query = _signature(rng, when, expired=fault == "expired")
        url = host + file_path(order, size, rng.getrandbits(64), name) + query
        return Link(url, size, fault, _FAULTS[fault][1] if fault in _FAULTS else True)


def _name(rng: random.Random) -> str:
    """A percent-encoded file name; about one in eight an odd one."""
    extension = rng.choices(_EXTENSIONS, cum_weights=_EXTENSION_WEIGHTS)[0]
    draw = rng.random()
    if draw < 0.12:
        return quote(rng.choice(_ODD).format(extension), safe="")
    if draw < 0.125:
        return rng.choice(_ENCODED).format(extension)
    stem = rng.choice(_STEMS)
    if draw < 0.7:
        stem = f"{stem}_{int(10_000 * rng.random())}"
    return quote(f"{stem}.{extension}", safe="")


def _signature(rng: random.Random, when: dt.datetime, *, expired: bool) -> str:
    """The query of a link signed for a week at ``when``, or for one hour two days before that."""
    begun, life = (when - dt.timedelta(days=2), 3_600) if expired else (when, 604_800)
    draw = rng.random()
    if draw < 0.8:
        return (
            "?X-Amz-Algorithm=AWS4-HMAC-SHA256"
            f"&X-Amz-Credential=AKIAEXAMPLE%2F{begun:%Y%m%d}%2Fus-west-2%2Fs3%2Faws4_request"
            f"&X-Amz-Date={begun:%Y%m%dT%H%M%SZ}&X-Amz-Expires={life}"
            f"&X-Amz-SignedHeaders=host&X-Amz-Signature={rng.getrandbits(256):064x}"
        )
    if draw < 0.9:
        end = begun + dt.timedelta(seconds=life)
        return (
            f"?sv=2024-11-04&sr=b&sp=r&st={begun:%Y-%m-%dT%H:%M:%SZ}&se={end:%Y-%m-%dT%H:%M:%SZ}"
            f"&sig={rng.getrandbits(256):064x}%3D"
        )
    if draw < 0.97 or expired:
        date = int(begun.timestamp() * 1000)
        return f"?systemDate={date}&expires={life * 1000}&signature={rng.getrandbits(128):032x}"
    return ""
