"""Judging the attachments: each expected one has one row, one outcome, and its file or its dead letter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import NamedTuple

from pipelined.ledger.balance import Balance
from pipelined.ledger.books import FINAL, Attachment, Books
from pipelined.ledger.evidence import AttachmentRow, Evidence
from pipelined.ledger.identity import Key, key_of, name_of

__all__ = ["judge_attachments"]


class _Recorded(NamedTuple):
    """What a row says of its file."""

    key: Key
    size: int | None
    sha256: str | None


def judge_attachments(
    books: Books, evidence: Evidence, balance: Balance, expected: Mapping[Key, Attachment]
) -> None:
    """Enter the attachments into the balance: rows, results, dead letters, failed rows and files.

    Each time an attachment failed for good there is one failed result, one dead letter and one row in the
    table of failures; it may have failed, or ended, once more for each time it was replayed from the DLQ.
    """
    balance.expected = len(expected)
    statuses = _judge_rows(books, evidence, balance, expected)
    failed_rows = _count_failures(evidence, balance, expected)
    dead = _count_dead_letters(books, evidence, balance, expected)
    again = {key for key, found in expected.items() if found.results > 1 or dead[key] > 1}
    replays = evidence.replays(again) if again else {}
    for key, attachment in expected.items():
        allowed = 1 + replays.get(key, 0)
        _judge_outcome(balance, name_of(key), attachment, statuses.get(key), allowed)
        _judge_failures(balance, name_of(key), attachment, dead[key], failed_rows[key], allowed)
    for key, attachment in books.attachments.items():
        if attachment.results and key not in expected:
            balance.differ("result_unknown", name_of(key), "it has a result, but no accepted event claims it")


def _judge_rows(
    books: Books, evidence: Evidence, balance: Balance, expected: Mapping[Key, Attachment]
) -> dict[Key, str]:
    """Each row by itself, and the files of the completed ones; returns the status of each attachment."""
    statuses: dict[Key, str] = {}
    recorded: dict[str, _Recorded] = {}
    rows = evidence.attachment_rows()
    if rows is None and expected:
        balance.differ(
            "table_missing",
            "attachments",
            f"the table does not exist; {len(expected)} attachments have no row",
        )
    for row in rows or ():
        balance.completed += row.status == "completed"
        balance.failed += row.status in FINAL[1:]
        key = key_of(row.attachment_id)
        attachment = expected.get(key)
        if attachment is None or books.events.get(key_of(row.trace_id)) is not attachment.event:
            balance.differ(
                "attachment_unknown",
                row.attachment_id,
                f"it has a row, but no accepted event {row.trace_id} claims it",
            )
            continue
        if key in statuses:
            balance.differ("attachment_doubled", row.attachment_id, "it has more than one row")
            continue
        statuses[key] = row.status
        if row.status == "completed":
            _record_file(balance, recorded, key, row)
    if rows is not None:
        for key in expected:
            if key not in statuses:
                balance.differ(
                    "attachment_missing", name_of(key), "its event was accepted, but it has no row"
                )
    _judge_files(evidence, balance, recorded)
    return statuses


def _record_file(balance: Balance, recorded: dict[str, _Recorded], key: Key, row: AttachmentRow) -> None:
    if row.blob_path in recorded:
        other = name_of(recorded[row.blob_path].key)
        balance.differ("file_shared", row.attachment_id, f"its file {row.blob_path} is also that of {other}")
        return
    recorded[row.blob_path] = _Recorded(key, row.size, row.sha256)


def _judge_files(evidence: Evidence, balance: Balance, recorded: Mapping[str, _Recorded]) -> None:
    for found in evidence.read(recorded):
        key, size, sha256 = recorded[found.path]
        if found.sha256 is None:
            balance.differ("file_missing", name_of(key), f"there is no file {found.path}")
            continue
        balance.files_checked += 1
        balance.file_bytes += found.size
        if found.size != size or found.sha256 != sha256:
            balance.differ(
                "file_differs",
                name_of(key),
                f"{found.path} has {found.size} bytes and SHA-256 {found.sha256}; "
                f"recorded are {size} and {sha256}",
            )
    for path in evidence.paths():
        if path not in recorded:
            balance.differ("file_unknown", path, "it is in the store, but is the file of no completed row")


def _count_failures(evidence: Evidence, balance: Balance, expected: Collection[Key]) -> Counter[Key]:
    counts: Counter[Key] = Counter()
    for text in evidence.failed_rows() or ():
        key = key_of(text)
        if key in expected:
            counts[key] += 1
        else:
            balance.differ(
                "failed_row_unknown", text, "it is in the table of failures, but no accepted event claims it"
            )
    return counts


def _count_dead_letters(
    books: Books, evidence: Evidence, balance: Balance, expected: Collection[Key]
) -> Counter[Key]:
    """The dead letters of each expected attachment; each other one must be the copy of a record we have."""
    balance.dead_letters += len(books.dead_letters)
    counts: Counter[Key] = Counter()
    copied: set[tuple[str, int, int]] = set()
    for letter in books.dead_letters:
        if letter.key is not None and letter.key in expected:
            counts[letter.key] += 1
            continue
        origin = letter.origin
        value = evidence.value_at(origin) if origin else None
        if origin is None or value is None or hash(value) != letter.digest:
            balance.differ(
                "dead_letter_unknown",
                f"downloads.dlq/{letter.place}",
                "it belongs to no attachment of an accepted event, and its origin holds no such bytes",
            )
        elif origin in copied:
            balance.differ("dead_letter_doubled", "/".join(map(str, origin)), "it is in downloads.dlq twice")
        else:
            copied.add(origin)
    for section, partition, offset in books.unreadable:
        if section == "downloads_results" and (books.results_topic, partition, offset) not in copied:
            balance.differ(
                "result_unreadable",
                f"downloads.results/{partition}/{offset}",
                "no final result can be read from it, and it is not in downloads.dlq",
            )
    return counts


def _judge_outcome(
    balance: Balance, about: str, attachment: Attachment, status: str | None, allowed: int
) -> None:
    if attachment.results > allowed:
        balance.differ(
            "result_doubled",
            about,
            f"it has {attachment.results} final results where {allowed} can be: one, and one for each replay",
        )
    if status is None:
        return  # a missing row is told already
    if status not in FINAL:
        balance.differ("attachment_unfinished", about, f'its row has the status "{status}"')
    elif not attachment.results:
        balance.differ("result_missing", about, "it has a row, but no result")
    elif attachment.status != status:
        balance.differ(
            "result_differs", about, f"its last result is {attachment.status}, its row says {status}"
        )


def _judge_failures(
    balance: Balance, about: str, attachment: Attachment, dead: int, failed_rows: int, allowed: int
) -> None:
    failures = attachment.failures
    if dead > allowed:
        balance.differ(
            "dead_letter_doubled",
            about,
            f"it is {dead} times in downloads.dlq where {allowed} can be: one, and one for each replay",
        )
    elif dead < failures:
        balance.differ(
            "dead_letter_missing", about, f"it failed {failures} times, {dead} dead letters tell it"
        )
    elif dead > failures:
        balance.differ(
            "dead_letter_unknown", about, f"it failed {failures} times, but {dead} dead letters tell it"
        )
    if failed_rows < failures:
        balance.differ(
            "failed_row_missing",
            about,
            f"it failed {failures} times, the table of failures has {failed_rows}",
        )
    elif failed_rows > failures:
        balance.differ(
            "failed_row_doubled",
            about,
            f"it failed {failures} times, the table of failures has {failed_rows}",
        )
