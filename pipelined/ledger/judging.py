"""Judging: the balance of the books against the evidence, a function of nothing else."""

from __future__ import annotations

from collections.abc import Iterable

from pipelined.ledger.attachments import judge_attachments
from pipelined.ledger.balance import Balance
from pipelined.ledger.books import Books
from pipelined.ledger.events import judge_events
from pipelined.ledger.evidence import Evidence, SourceEvidence
from pipelined.ledger.origins import judge_sources

__all__ = ["judge_books"]


def judge_books(books: Books, evidence: Evidence, sources: Iterable[SourceEvidence] = ()) -> Balance:
    """The balance of these books against that evidence and those sources; changes none of them."""
    balance = Balance()
    judge_sources(books, sources, balance)
    expected = judge_events(books, evidence, balance)
    judge_attachments(books, evidence, balance, expected)
    return balance
