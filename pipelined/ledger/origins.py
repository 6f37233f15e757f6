"""Judging the sources: each thing that a source holds is on ``events.raw`` once, and nothing else is."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from pipelined.ledger.balance import Balance, SourceSum
from pipelined.ledger.books import Books
from pipelined.ledger.content import Item
from pipelined.ledger.evidence import SourceEvidence
from pipelined.ledger.identity import Key, name_of

__all__ = ["TITLES", "judge_sources"]

#: What people call a source, and what it holds.
TITLES = {"eventhouse": ("Eventhouse", "row"), "eventhub": ("Event Hub", "message")}
#: The header of what was loaded from a file: there is no source to hold it against.
_LOADED = "local"


def judge_sources(books: Books, sources: Iterable[SourceEvidence], balance: Balance) -> None:
    """Enter each source into the balance, and which ids only one of them has."""
    for source in sources:
        balance.sources[source.name] = _judge(books, source, balance)
    _compare(books, balance)
    for name, count in sorted(books.by_source.items()):
        if name not in books.delivered and name != _LOADED:
            says = f'say they are of the source "{name}"' if name else "name no source"
            balance.notes.append(f"{count:,} records on events.raw {says}: there is nothing to judge them by")


def _judge(books: Books, source: SourceEvidence, balance: Balance) -> SourceSum:
    taken = books.delivered[source.name]
    held = now = source.before
    found = SourceSum(held=held.total(), taken=taken.total())
    title, thing = TITLES[source.name]
    before = balance.difference_count
    extra = taken - held
    if extra:  # it may have come since
        now = Counter(source.items())
        extra = taken - now
    others: dict[Key, int] = defaultdict(int)  # on events.raw with an id that is known, saying something else
    for item, count in extra.items():
        if item[0] is not None and not now[item]:
            others[item[0]] += count

    for item, count in (held - taken).items():
        key = item[0]
        altered = min(count, others[key]) if key is not None else 0
        if altered and key is not None:
            others[key] -= altered
            found.altered += altered
            detail = f"its event on events.raw does not say what its {thing} in the {title} says"
            balance.differ("source_altered", name_of(key), detail)
        if missing := count - altered:
            found.missing += missing
            if not source.begins_anywhere:
                detail = f"{_times(missing, thing)} of the {title} that events.raw does not have"
                balance.differ("source_missing", _about(item, thing), detail)

    for item, count in extra.items():
        if now[item]:
            again = min(count, books.refilled[item])
            found.refilled += again
            found.doubled += count - again
            if count > again:
                detail = f"{_times(now[item], thing)} of the {title}, but {taken[item]} times on events.raw"
                balance.differ("source_doubled", _about(item, thing), detail)
        elif (unknown := count if item[0] is None else min(count, others[item[0]])) > 0:
            if item[0] is not None:
                others[item[0]] -= unknown
            found.unknown += unknown
            if not source.forgets:
                detail = f"events.raw says it is of the {title}, which has no such {thing}"
                balance.differ("source_unknown", _about(item, thing), detail)
    found.differences = balance.difference_count - before
    _tell(found, source, balance)
    return found


def _tell(found: SourceSum, source: SourceEvidence, balance: Balance) -> None:
    """What is no difference because the source is as it is, but is to be known."""
    title, thing = TITLES[source.name]
    if found.refilled:
        balance.notes.append(
            f"a back-fill brought {found.refilled:,} {thing}s of the {title} that were on events.raw already"
        )
    if source.begins_anywhere and found.missing:
        balance.notes.append(
            f"reading the {title} did not begin at its beginning: {found.missing:,} {thing}s are not on "
            "events.raw, and whether they are older than that cannot be told"
        )
    if source.forgets:
        balance.notes.append(
            f"the {title} has deleted its oldest {thing}s: {found.unknown:,} records on events.raw cannot be "
            "held against it any more"
        )


def _compare(books: Books, balance: Balance) -> None:
    ids = {name: {key for key, _ in taken if key is not None} for name, taken in books.delivered.items()}
    for name, mine in ids.items():
        balance.sources[name].ids = len(mine)
        theirs = set[Key]().union(*(found for other, found in ids.items() if other != name))
        balance.sources[name].only_here = len(mine - theirs)


def _about(item: Item, thing: str) -> str:
    return f"a {thing} without an id" if item[0] is None else name_of(item[0])


def _times(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'' if count == 1 else 's'}"
