"""The balance in words, for people."""

from __future__ import annotations

from typing import NamedTuple

from pipelined.ledger.balance import Balance, SourceSum
from pipelined.ledger.origins import TITLES

__all__ = ["render"]


class _Line(NamedTuple):
    """One sum: its subject, what went in, what came out. ``kinds`` begin the differences that concern it."""

    subject: str
    number: int
    sum: str
    equal: bool
    kinds: tuple[str, ...]

    def holds(self, balance: Balance) -> bool:
        """Whether the sum adds up and no difference concerns it."""
        return self.equal and not any(kind.startswith(self.kinds) for kind in balance.difference_kinds)


def render(balance: Balance, *, unicode: bool = True) -> str:
    """The sums, aligned, then the verdict and the first differences. In ASCII alone without ``unicode``."""
    good, bad, dot = ("✓", "✗", "·") if unicode else ("ok", "DIFFERS", "-")
    lines = _lines(balance)
    subjects = max(len(line.subject) for line in lines)
    numbers = max(len(f"{line.number:,}") for line in lines)
    sums = max(len(line.sum) for line in lines)
    text = [
        f"  {line.subject:<{subjects}}  {line.number:>{numbers},}  {line.sum:<{sums}}  "
        f"{good if line.holds(balance) else bad}"
        for line in lines
    ]
    text += [f"  note: {note}" for note in balance.notes]
    if balance.balanced:
        return "\n".join([*text, f"{good} balanced: nothing is lost, nothing is twice, nothing is unknown"])
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(balance.difference_kinds.items()))
    plural = "" if balance.difference_count == 1 else "s"
    text.append(f"{bad} not balanced: {balance.difference_count:,} difference{plural} ({kinds})")
    text += [f"  {dot} {found.kind}  {found.id}: {found.detail}" for found in balance.differences]
    if balance.difference_count > len(balance.differences):
        text.append(f"  {dot} and {balance.difference_count - len(balance.differences):,} more")
    return _in_ascii("\n".join(text)) if not unicode else "\n".join(text)


def _in_ascii(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()


def _lines(balance: Balance) -> list[_Line]:
    return [
        *(_source_line(name, found) for name, found in balance.sources.items()),
        *_shared_lines(balance),
        _Line(
            "source events",
            balance.read,
            f"= {balance.rows:,} rows + {balance.duplicate:,} duplicates + {balance.dead:,} dead",
            balance.read == balance.rows + balance.duplicate + balance.dead,
            ("event_",),
        ),
        _Line(
            "attachments",
            balance.expected,
            f"= {balance.completed:,} completed + {balance.failed:,} failed",
            balance.expected == balance.completed + balance.failed,
            ("attachment_", "result_"),
        ),
        _Line(
            "files",
            balance.files_checked,
            f"= {balance.completed:,} completed, {_size(balance.file_bytes)} read and compared",
            balance.files_checked == balance.completed,
            ("file_",),
        ),
        _Line(
            "dead letters",
            balance.dead_letters,
            f"= {balance.dead:,} events + {balance.dead_letters - balance.dead:,} attachments",
            True,
            ("dead_letter_", "failed_row_"),
        ),
    ]


def _source_line(name: str, found: SourceSum) -> _Line:
    title, thing = TITLES[name]
    told = {
        "missing": found.missing,
        "doubled": found.doubled,
        "altered": found.altered,
        "again by a back-fill": found.refilled,
    }
    wrong = "".join(f", {count:,} {what}" for what, count in told.items() if count)
    foreign = f" ({found.unknown:,} that it never had)" if found.unknown else ""
    return _Line(
        f"{title} {thing}s",
        found.held,
        f"= {found.taken:,} on events.raw{foreign}{wrong}" + ("" if wrong or foreign else ", each once"),
        not found.differences,
        (),
    )


def _shared_lines(balance: Balance) -> list[_Line]:
    """Where there are two sources: how many ids both have brought."""
    if len(balance.sources) < 2:
        return []
    only = {TITLES[name][0]: found.only_here for name, found in balance.sources.items()}
    both = max(found.ids - found.only_here for found in balance.sources.values())
    alone = "".join(f" + {count:,} by the {title} only" for title, count in only.items())
    return [_Line("event ids", both + sum(only.values()), f"= {both:,} by both{alone}", True, ())]


def _size(count: int) -> str:
    size, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while size >= 999.5 and len(units) > 1:
        size /= 1000
        units.pop(0)
    return f"{size:.3g} {units[0]}"
