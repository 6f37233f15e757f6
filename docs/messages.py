"""The page of the reference about messages, from the types that read and write them."""

from __future__ import annotations

import types
import typing
from typing import Any

import msgspec

from docs.markdown import code, first_sentences, page, table
from pipelined.messages.task import ERROR_MESSAGE_LIMIT, CachedDownload, DownloadTask, Result, Status
from pipelined.sources.file import FileCheckpoint
from pipelined.stages import event_shape

__all__ = ["messages"]

_INTRO = """\
JSON in UTF-8; times in ISO 8601, UTC. An unknown field is no error. The topics they travel on:
[topics](topics.md)."""

_EVENT = """\
On `events.raw` as received. To be taken it must have a `traceId`, a `type` and a readable `utcDateTime`
(UTC where it has no offset), and `data.assignmentId` if it has attachments. All else is optional: a number
where text is expected is taken as text; any other wrong shape as null, and counted. `data` may be JSON text;
on `events.ingested` it is an object.

Headers: `trace_id`, `source`; on `events.raw`, of an event from a file, the number of its `line`, of
one from a back-fill its range (`backfill`)."""

_TASK = """\
On `downloads.pending` and the retry topics. `attachment_id` is the UUIDv5 of the trace id and the URL without
its signature; `event_type` is the domain; `metadata` tells of earlier attempts.

Headers: `trace_id`, `source`, and after a failure
[those of a retried task](failures.md#headers-of-a-task-in-a-retry-topic)."""

_CACHED = "On `downloads.cached`: the fields of the task, and these."

_RESULT = f"""\
On `downloads.results`. `status` is `{Status.COMPLETED}`, `{Status.FAILED}` (attempts used up) or
`{Status.FAILED_PERMANENT}`. `attachment_url` carries no signature; `error_message` has at most
{ERROR_MESSAGE_LIMIT} characters."""

_SHAPES: tuple[type[msgspec.Struct], ...] = (
    event_shape.EventBody,
    event_shape.Data,
    event_shape.Adm,
    event_shape.Loss,
    event_shape.Contact,
    event_shape.Methods,
    event_shape.Phone,
    event_shape.Email,
)
_JSON = {"str": "string", "int": "integer", "bool": "boolean", "NoneType": "null"}


def messages() -> str:
    """Every message, field by field."""
    return page(
        "Messages",
        "`pipelined/messages/task.py`, `pipelined/stages/event_shape.py` and `pipelined/sources/file.py`",
        _INTRO,
        "## Event",
        _EVENT,
        *(f"{first_sentences(shape)}\n\n{_fields(shape)}" for shape in _SHAPES),
        "## Download task",
        _TASK,
        _fields(DownloadTask),
        "## Cached download",
        _CACHED,
        _fields(CachedDownload, besides=DownloadTask),
        "## Result",
        _RESULT,
        _fields(Result),
        "## Checkpoint",
        f"On `checkpoints`, under the key `file:PATH`. {first_sentences(FileCheckpoint)}",
        _fields(FileCheckpoint),
    )


def _fields(kind: type[msgspec.Struct], besides: type[msgspec.Struct] | None = None) -> str:
    known = besides.__struct_fields__ if besides else ()
    rows = (
        [code(field.encode_name), _kind(field.type), _default(field)]
        for field in msgspec.structs.fields(kind)
        if field.name not in known
    )
    return table(["field", "type", "default"], rows)


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    return code(field.default) if isinstance(field.default, str | int) else ""


def _kind(annotation: Any) -> str:
    """A type in the words of JSON."""
    if isinstance(annotation, types.UnionType):
        return " or ".join(map(_kind, typing.get_args(annotation)))
    if typing.get_origin(annotation) is list:
        return f"list of {_kind(*typing.get_args(annotation))}"
    return _JSON.get(getattr(annotation, "__name__", ""), "object")
