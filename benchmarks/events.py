"""The events of the benchmarks: 0.95 kB on average, every fifth with one to three attachments.

The generator of the package makes a day as it is, faults included, at 10,000 lines a second; here every
event is valid and new, and two hundred thousand of them are made in a second.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

from pipelined.local.fileserver import file_path

__all__ = ["FILE_BYTES", "Events"]

FILE_BYTES = 10_000

_SUBTYPES = (b"noteAdded", b"estimatePackageReceived", b"statusChanged", b"documentsReceived")
_NOTE = (
    b"Spoke with the insured about the water damage; mitigation is under way. The adjuster comes on Friday. "
)


class Events:
    """Numbered events; the same number gives the same event within one second, and no two a trace id.

    ``files_url`` is where the attachments lie. ``every`` is how many events there are to one with
    attachments, ``files`` how many it has (0: one to three in turn).
    """

    def __init__(self, files_url: str, *, every: int = 5, files: int = 0, series: int = 1) -> None:
        now = dt.datetime.now(dt.UTC)
        self._every = every
        self._files = files
        self._series = b"%08x" % series
        self._time = now.strftime("%Y-%m-%dT%H:%M:%S").encode()
        self._url = files_url.rstrip("/").encode()
        self._query = (
            f"?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAEXAMPLE%2F{now:%Y%m%d}%2Fus-west-2%2Fs3"
            f"%2Faws4_request&X-Amz-Date={now:%Y%m%dT%H%M%SZ}&X-Amz-Expires=604800&X-Amz-SignedHeaders=host"
            f"&X-Amz-Signature={'5e' * 32}"
        ).encode()

    def key(self, number: int) -> bytes:
        """The trace id of an event."""
        return b"%b-%04x-4000-8000-%012x" % (self._series, number >> 16 & 0xFFFF, number)

    def files(self, number: int) -> int:
        """How many attachments an event has."""
        if number % self._every:
            return 0
        return self._files or 1 + number // self._every % 3

    def url(self, number: int, place: int) -> bytes:
        """The link to one attachment."""
        path = file_path("ok", FILE_BYTES, number << 4 | place, f"photo_{number}_{place}.pdf")
        return self._url + path.encode() + self._query

    def value(self, number: int) -> bytes:
        """An event."""
        links = b",".join(b'"%b"' % self.url(number, place) for place in range(self.files(number)))
        assignment = b"05%05X" % (number & 0xFFFFF)
        return (
            b'{"type":"verisk.claims.property.xn.%b","version":1,"utcDateTime":"%b.%06dZ","traceId":"%b",'
            b'"data":{"assignmentId":"%b","originalAssignmentId":"%b","xnAddress":"%04X.C7","carrierId":"3012345",'
            b'"description":"An update of the assignment","dateTime":"2026-01-05 07:30:11",'
            b'"adm":{"coverageLoss":{"claimNumber":"CLM-%06d"}},'
            b'"contact":{"type":"Insured","name":"Avery Quinn","contactMethods":{'
            b'"phone":{"type":"Mobile","number":"555%04d","extension":"12"},'
            b'"email":{"address":"%06x@example.org"}}},"note":"%b","author":"Jordan Li",'
            b'"senderReviewerName":"Sam Ortiz","senderReviewerEmail":"sam.ortiz@carrier.example",'
            b'"estimateVersion":"2","attachments":[%b]}}'
        ) % (
            _SUBTYPES[number % 4],
            self._time,
            number % 1_000_000,
            self.key(number),
            assignment,
            assignment,
            number & 0xFFFF,
            number % 1_000_000,
            number % 10_000,
            number & 0xFFFFFF,
            _NOTE,
            links,
        )

    def range(self, count: int) -> Iterator[tuple[bytes, bytes]]:
        """The first ``count`` events as key and value."""
        for number in range(count):
            yield self.key(number), self.value(number)

    def attachments(self, count: int) -> int:
        """How many attachments the first ``count`` events have."""
        return sum(map(self.files, range(count)))
