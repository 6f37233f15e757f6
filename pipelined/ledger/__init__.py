"""The ledger: an independent reader that holds what went in against what came out.

It shares no code with the workers and asks none of them; it reads the topics, the tables and the store, and
works out by its own rules what must be there.
"""

from __future__ import annotations

from pipelined.ledger.balance import Balance, Difference
from pipelined.ledger.follower import Follower, Progress
from pipelined.ledger.waiting import judge, settled

__all__ = ["Balance", "Difference", "Follower", "Progress", "judge", "settled"]
