"""The balance: the counts, and the differences with the first of them listed."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["LISTED", "Balance", "Difference", "SourceSum"]

#: How many differences are listed; all are counted.
LISTED = 20


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that does not add up: a stable kind, the id it is about, and a sentence."""

    kind: str
    id: str
    detail: str


@dataclass(slots=True)
class SourceSum:
    """What one source holds, against what of it is on ``events.raw``.

    ``held``: its rows or messages; ``taken``: records of it on events.raw, ``refilled``
    of them by a back-fill of what was there already; ``only_here``: the distinct trace
    ids that no other source has brought; ``differences`` counts what is not as it has to be.
    """

    held: int = 0
    taken: int = 0
    missing: int = 0
    doubled: int = 0
    unknown: int = 0
    altered: int = 0
    refilled: int = 0
    ids: int = 0
    only_here: int = 0
    differences: int = 0


@dataclass(slots=True)
class Balance:
    """The outcome of a ledger. ``differences`` holds the first :data:`LISTED` of ``difference_count``.

    When it is balanced, read = accepted + duplicate + dead, accepted = rows, and
    expected = completed + failed. ``file_bytes`` counts what was read of the ``files_checked``. ``sources``
    are the configured ones that were judged, by their names.
    """

    read: int = 0
    accepted: int = 0
    duplicate: int = 0
    dead: int = 0
    rows: int = 0
    expected: int = 0
    completed: int = 0
    failed: int = 0
    files_checked: int = 0
    file_bytes: int = 0
    dead_letters: int = 0
    difference_count: int = 0
    difference_kinds: dict[str, int] = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    sources: dict[str, SourceSum] = field(default_factory=dict)

    @property
    def balanced(self) -> bool:
        """Whether everything adds up."""
        return not self.difference_count

    def differ(self, kind: str, about: str, detail: str) -> None:
        """Enter a difference."""
        self.difference_count += 1
        self.difference_kinds[kind] = self.difference_kinds.get(kind, 0) + 1
        if len(self.differences) < LISTED:
            self.differences.append(Difference(kind, about, detail))

    def as_json(self) -> dict[str, Any]:
        """The object that `pipelinectl ledger --json` prints."""
        return {
            "balanced": self.balanced,
            "sources": {name: asdict(found) for name, found in self.sources.items()},
            "events": {
                "read": self.read,
                "accepted": self.accepted,
                "duplicate": self.duplicate,
                "dead": self.dead,
                "rows": self.rows,
            },
            "attachments": {"expected": self.expected, "completed": self.completed, "failed": self.failed},
            "files": {"checked": self.files_checked, "bytes": self.file_bytes},
            "dead_letters": self.dead_letters,
            "difference_count": self.difference_count,
            "difference_kinds": self.difference_kinds,
            "differences": [
                {"kind": found.kind, "id": found.id, "detail": found.detail} for found in self.differences
            ],
            "notes": self.notes,
        }
