"""The one loop of every Kafka → Kafka worker: poll → stage → outcomes → one transaction.

A record is taken, handed to the stage, and settled when its outcome comes back, in whatever order that is;
what the window releases is produced together with the input offsets, and with what is done beyond them, in
one transaction. If that aborts, the released outcomes go back into the window and are tried again; if the
partition was lost meanwhile, they are dropped, and whoever has it now does the work.
"""

from __future__ import annotations

import logging
import operator
import time
from collections import Counter
from collections.abc import Callable, Sequence

from pipelined.config import Config
from pipelined.errors import UnavailableError
from pipelined.kafka.membership import Member
from pipelined.kafka.positions import Position, begin
from pipelined.kafka.settings import Names
from pipelined.kafka.transactions import Transactor
from pipelined.kafka.window import BackwardsError, Window
from pipelined.stages.contract import Done, Failed, Outcome, Partition, Record, Stage
from pipelined.stats import registry as metrics
from pipelined.stats.slots import Child
from pipelined.workers.brakes import DlqBreaker, Pause
from pipelined.workers.commits import Commits, Landed
from pipelined.workers.gauges import Gauges
from pipelined.workers.routing import Hold, Routed, Router

__all__ = ["Runtime"]

_logger = logging.getLogger("pipelined.workers")

#: Longest wait for records: librdkafka's consume() runs no signal handler while it waits.
IDLE_WAIT = 0.2
#: Longest wait for the stage while it has work: how late a new record may be noticed.
BUSY_WAIT = 0.01
#: How long finished outcomes may wait for others while the stage has more in hand: some times what a
#: commit takes, so that committing stays a small part of the work, and no longer than a person notices.
LINGER_COMMITS = 4
LINGER_MOST = 0.1
#: However many partitions there are, one may have so many records in the window.
_LEAST_SHARE = 100
#: Seconds between two looks for records that are stuck.
_STUCK_EVERY = 1.0

#: What the window holds for a settled record.
_Settled = tuple[Outcome, Done | Routed]

_partition = operator.attrgetter("partition")


class Runtime:
    """One worker process. ``run()`` returns when told to stop and everything in hand is done.

    Waiting for the brokers is left to a thread, so that the stage goes on while a transaction commits;
    there is never more than one.
    """

    def __init__(
        self,
        config: Config,
        *,
        index: int,
        stage: Stage,
        router: Router,
        streams: Sequence[str],
        stats: Child,
        should_stop: Callable[[], bool],
        is_paused: Callable[[], bool] = lambda: False,
    ) -> None:
        names = Names(config)
        self._settings = config.worker(stage.name)
        self._stage = stage
        self._router = router
        self._stats = stats
        self._should_stop = should_stop
        self._is_paused = is_paused
        self._window: Window[_Settled] = Window()
        self._pause = Pause(config.retry, stats)
        self._breaker = DlqBreaker(config.breaker, stats)
        self._gauges = Gauges(stats)
        self._held: list[Record] = []
        self._next: dict[Partition, int] = {}
        self._revoke_budget = config.kafka.revoke_budget_s
        self._settled = 0
        self._ready_since = self._linger = self._stuck_look = 0.0
        self._leaving = self._closed = False
        topics = [topic for stream in streams for topic in names.topics(stream)]
        self._transactor = Transactor(config, names.instance(stage.name, index), stats.beat)
        self._commits: Commits[_Settled] = Commits(self._transactor)
        self._member = Member(config, stage.name, index, topics, self, stats.beat)

    def run(self) -> None:
        """Work until told to stop, then finish what has begun and commit it."""
        # First the transactional id, then the group: what a killed predecessor left open is aborted
        # before anybody asks for the offsets it would have moved.
        if not self._transactor.begin_session(self._should_stop):
            self._member.close()
            return
        self._member.subscribe()
        try:
            while not self._should_stop():
                self._turn()
            self._drain()
        finally:
            self._leaving = True
            self._commits.close()
            self._stage.close()
            self._member.close()
            self._transactor.close()

    def _turn(self) -> None:
        stats, stage = self._stats, self._stage
        stats.beat()
        began = time.monotonic()
        self._throttle()
        if self._held and not self._pause.active:
            held, self._held = self._held, []
            stage.submit(held)
        busy = stage.in_flight > 0 and stage.waits
        records: list[Record] = []
        if self._settled < self._settings.batch_records:  # else the next commit is full: wait for this one
            wait = 0 if busy or self._ready_since else IDLE_WAIT
            records = self._member.poll(self._settings.batch_records, wait)
        self._gauges.ready(self._member)
        polled = time.monotonic()
        if records:
            self._take(records, polled)
        self._collect(BUSY_WAIT if busy and not records else 0)
        worked = time.monotonic()
        self._unstick(worked)
        self._commit_if_due(worked)
        self._gauges.spent("paused" if self._closed else "idle", polled - began)
        self._gauges.spent("work", worked - polled)
        self._gauges.spent("commit", time.monotonic() - worked)
        self._gauges.update(self._window, self._member, self._next)

    def _take(self, records: Sequence[Record], now: float) -> None:
        """Hand the stage what was read, but for what a predecessor has done already."""
        try:
            fresh = self._window.take(records, now)
        except BackwardsError as error:
            msg = f"a topic of {self._member.group} is not the one it was: {error}; starting anew"
            raise UnavailableError(msg) from error
        self._stats.add(metrics.RECORDS_IN, len(fresh))
        if fresh:
            self._stage.submit(fresh)

    def _unstick(self, now: float) -> None:
        """Have a record that holds up the first offset of its partition for too long end for now."""
        if not self._settings.stuck_s or now < self._stuck_look:
            return
        self._stuck_look = now + _STUCK_EVERY
        if self._pause.active or self._breaker.tripped:
            self._window.excuse(now)  # nothing could be done meanwhile
        elif stuck := self._window.stuck(now - self._settings.stuck_s):
            for record in stuck:
                _logger.warning(
                    "%s/%d@%d has been in hand for more than %g s; it is put off",
                    *record.partition,
                    record.offset,
                    self._settings.stuck_s,
                    extra={"code": "stuck", **record.log_fields()},
                )
            self._stats.add(metrics.STUCK, len(stuck))
            self._stage.give_up(stuck)

    def _throttle(self) -> None:
        """Back-pressure: each partition has its share of the window, so that none fills it for all."""
        self._closed = self._pause.active or self._breaker.tripped or self._is_paused()
        partitions = self._member.partitions
        if not partitions:
            return
        share = max(_LEAST_SHARE, self._settings.window_records // len(partitions))
        for partition in partitions:
            count = self._window.count(partition)
            if self._closed or count >= share:
                self._member.pause(partition)
            elif count <= share // 2:
                self._member.resume(partition)

    def _collect(self, timeout: float) -> None:
        for outcome in self._stage.poll(timeout):
            self._settle(outcome)

    def _settle(self, outcome: Outcome) -> None:
        routed = self._router.route(outcome)
        if isinstance(routed, Hold):
            if not self._window.holds(routed.record):
                return  # its partition is somebody else's by now
            self._stats.add(metrics.FAILURES, 1, str(routed.error.category))
            self._stats.failed(f"{routed.error.code}: {routed.error}")
            self._held.append(routed.record)
            if routed.pause:
                self._pause.begin(routed.error, routed.record)
            return
        if self._window.settle(outcome.record, (outcome, routed)):
            self._settled += 1
            if self._ready_since == 0:
                self._ready_since = time.monotonic()

    def _commit_if_due(self, now: float) -> None:
        """Take note of a commit that ended, and begin the next one when there is enough for it."""
        if self._commits.busy:
            idle = self._ready_since and not (self._stage.waits and self._stage.in_flight)
            self._land(BUSY_WAIT if idle else 0)
        if self._commits.busy or self._ready_since == 0:
            return
        if (
            not self._stage.waits
            or self._settled >= min(self._stage.in_flight, self._settings.batch_records)
            or now - self._ready_since >= self._linger
        ):
            self._launch()

    def _commit(self) -> None:
        """Commit what may be committed, and wait until it is."""
        self._land()
        self._launch()
        self._land()

    def _launch(self) -> None:
        """Begin a transaction with everything that the window releases."""
        release = self._window.release()
        self._ready_since = 0.0
        self._settled = 0
        if not release.records:
            return
        places = [
            self._member.place(partition, commit.progress.offset, beyond=commit.beyond)
            for partition, commit in release.commits.items()
        ]
        outputs = (output for _, routed in release.results for output in routed.outputs)
        self._commits.launch(release, outputs, places, self._member.group_metadata())

    def _land(self, timeout: float | None = None) -> None:
        """Wait for the transaction under way, and draw the consequences when it has ended."""
        landed = self._commits.land(timeout)
        if landed is None:
            return
        if landed.aborted is None:
            self._landed(landed)
            return
        records = landed.release.records
        self._window.restore(landed.release)
        self._settled += len(records)
        self._ready_since = landed.began
        self._stats.add(metrics.TRANSACTIONS, 1, "aborted")
        _logger.warning("%s; the batch of %d records is tried again", landed.aborted, len(records))

    def _landed(self, landed: Landed[_Settled]) -> None:
        """It is committed: let the stage know, and count."""
        records, results, commits = landed.release
        self._linger = min(LINGER_MOST, LINGER_COMMITS * landed.seconds)
        for partition, told in commits.items():
            self._next[partition] = told.progress.offset
        self._stats.add(metrics.TRANSACTIONS, 1, "committed")
        self._stage.committed([outcome for outcome, _ in results])
        self._pause.over()
        kinds = Counter([routed.kind for _, routed in results])
        if kinds["dead"]:
            self._breaker.record((outcome.record.partition, routed.kind) for outcome, routed in results)
        else:
            self._breaker.clean(Counter(map(_partition, records)))
        self._gauges.committed(records, kinds, landed.outputs, landed.seconds)
        for outcome, routed in results:
            if isinstance(outcome, Failed):
                self._gauges.failed(outcome.error, routed.kind)

    def _drain(self) -> None:
        """Told to stop: what has begun is finished, as far as the time allows, and committed."""
        deadline = time.monotonic() + max(0.5, self._settings.drain_s - 3)
        self._stage.drain()
        while self._stage.in_flight and time.monotonic() < deadline:
            self._stats.beat()
            self._collect(BUSY_WAIT)
            self._poll_paused()
            self._commit_if_due(time.monotonic())
        self._collect(0)
        while (self._ready_since or self._commits.busy) and time.monotonic() < deadline:
            self._commit()
            self._poll_paused()
        _logger.info("drained: %d records are left for the next owner", len(self._window))

    def _poll_paused(self) -> None:
        """Keep the membership alive; a record that still comes is left for the next owner."""
        for partition in self._member.partitions:
            self._member.pause(partition)
        self._member.poll(1, 0)

    # What the member tells, inside its poll().

    def assigned(self, positions: dict[Partition, Position]) -> dict[Partition, int]:
        """Take partitions over where their last owner's last commit left them."""
        self._stats.add(metrics.REBALANCES, 1, "assigned")
        done = {
            partition: begin(partition, position, self._member.group, self._expired)
            for partition, position in positions.items()
        }
        self._stage.assigned(positions)
        self._window.assign(done)
        starts = {partition: progress.offset for partition, progress in done.items()}
        self._next |= starts
        self._stats.hold(partition.number for partition in self._next)
        return starts

    def _expired(self, count: int) -> None:
        self._stats.add(metrics.RECORDS_EXPIRED, count)

    def revoked(self, partitions: Sequence[Partition]) -> None:
        """Finish what is in hand for these partitions, within a third of the session timeout."""
        self._stats.add(metrics.REBALANCES, 1, "revoked")
        if self._leaving:  # what could be finished is committed; the rest is the next owner's
            self._forget(partitions)
            return
        deadline = time.monotonic() + self._revoke_budget
        held = {record.partition for record in self._held}
        while self._window.open(partitions) and time.monotonic() < deadline and not held & set(partitions):
            self._stats.beat()
            self._collect(BUSY_WAIT)
            if not self._stage.waits and self._stage.in_flight:
                break  # what waits for its time is not worth waiting for
        self._commit()
        self._forget(partitions)

    def lost(self, partitions: Sequence[Partition]) -> None:
        """Somebody else has them: drop everything."""
        self._stats.add(metrics.REBALANCES, 1, "lost")
        _logger.warning(
            "partitions lost: this worker was silent for longer than the session timeout; "
            "what was in hand is dropped, the new owner does it"
        )
        self._land()
        self._forget(partitions)

    def _forget(self, partitions: Sequence[Partition]) -> None:
        gone = set(partitions)
        self._stage.forget(gone)
        self._window.forget(gone)
        if self._held:
            self._held = [record for record in self._held if record.partition not in gone]
            if not self._held:
                self._pause.lift()
        for partition in gone:
            self._next.pop(partition, None)
        self._stats.hold(partition.number for partition in self._next)
