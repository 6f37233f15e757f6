"""What the attachments of events lead to: download tasks, or refusals that are accounted for."""

from __future__ import annotations

import datetime as dt

from pipelined.errors import PermanentError
from pipelined.fetch.policy import UrlPolicy
from pipelined.messages import attachments as attachment
from pipelined.messages.codec import encode, iso
from pipelined.messages.task import DownloadTask
from pipelined.stages.contract import Headers, Output, Record, Stream
from pipelined.stages.event_head import EventHead
from pipelined.stages.failures import Envelope, failed_result

__all__ = ["EventTasks"]


class EventTasks:
    """Makes the tasks of one domain's events, each attachment once, by the URL policy."""

    def __init__(self, domain: str, policy: UrlPolicy, envelope: Envelope) -> None:
        self._domain = domain
        self._check = policy.check
        self._envelope = envelope

    def of(
        self, event: EventHead, record: Record, headers: Headers, now: dt.datetime
    ) -> tuple[list[Output], int]:
        """What the attachments of an event lead to, and how many of them are refused at ``now``."""
        data, trace_id, key = event.data, event.trace_id, event.key
        assert data is not None
        assert data.assignment_id is not None
        assignment_id = data.assignment_id
        version = data.estimate_version
        if version is not None:
            version = str(version)
        subtype = event.type.rpartition(".")[2]
        folder = attachment.folder(trace_id, subtype, assignment_id)
        moment = iso(event.moment)
        outputs: list[Output] = []
        names: set[str] = set()
        ids: set[str] = set()
        refused = 0
        for url in event.urls:
            link = attachment.parse_link(url)
            identifier = attachment.attachment_id(trace_id, link)
            if identifier in ids:
                continue  # the same file, listed or signed twice
            ids.add(identifier)
            name = attachment.file_name(link, subtype, assignment_id, version)
            if name in names:
                name = attachment.disambiguate(name, identifier)
            names.add(name)
            task = DownloadTask(
                trace_id=trace_id,
                attachment_id=identifier,
                attachment_url=url,
                blob_path=f"{folder}/{name}",
                status_subtype=subtype,
                file_type=attachment.file_type(link.name),
                assignment_id=assignment_id,
                event_type=self._domain,
                event_subtype=subtype,
                original_timestamp=moment,
                estimate_version=version,
                expires_at=link.expires_at,
            )
            error = self._refusal(url, link.expiry, now)
            if error is None:
                outputs.append(Output(Stream.PENDING, key, encode(task), headers))
                continue
            refused += 1
            origin = Record(record.partition, record.offset, key, record.value, headers, record.timestamp)
            outputs.append(failed_result(origin, task, error, at_ingest=True))
            outputs.append(self._envelope.dead_letter(Stream.DLQ, origin, error, task, encode(task)))
        return outputs, refused

    def _refusal(self, url: str, expires: dt.datetime | None, now: dt.datetime) -> PermanentError | None:
        try:
            self._check(url)
        except PermanentError as error:
            return error
        if expires is not None and expires <= now:
            return PermanentError("expired", f"the URL's signature ended at {expires.isoformat()}")
        return None
