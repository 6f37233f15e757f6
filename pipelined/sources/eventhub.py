"""Events from an Event Hub, by the Kafka protocol: read there, kept here, its position in our transaction.

The hub's group is told afterwards how far it is, for the hub's own lag tools; nothing is read back from it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence

from pipelined.config import Config
from pipelined.errors import DependencyError
from pipelined.kafka.hub import HubConnection
from pipelined.sources.contract import Facts, Page, Probe
from pipelined.sources.hub_login import Login, hub_host
from pipelined.sources.hub_position import Lost, Place, Position, read_position
from pipelined.sources.hub_reading import Reading
from pipelined.sources.hub_watch import Watch
from pipelined.stages.contract import Output

__all__ = ["EventhubSource"]

_logger = logging.getLogger("pipelined.sources")

#: A page ends at so many bytes: two of them, and what is fetched ahead, make up a reader's memory.
_PAGE_BYTES = 5 << 20
#: So many messages are taken from the client at once.
_CHUNK = 500
#: While more is known to be waiting, a page waits for it so long to be full.
_LINGER_S = 0.05
#: How often the hub is asked for new partitions, at least.
_LOOK_S = 20.0
#: Whether it is the same hub is asked with every third of these questions, by a connection of its own.
_IDENTITY_LOOKS = 3
#: How long it may take to tell its group where it was left.
_FAREWELL_S = 1.0


class EventhubSource:
    """See :class:`pipelined.sources.contract.Source`. One page is at most ``eventhub.page_records`` messages.

    A message that is a JSON array of objects is an event for each of them; any other is one event, its
    bytes as they came.
    """

    name = "eventhub"
    pause_s = 0.0

    def __init__(self, config: Config) -> None:
        hub = config.eventhub
        self._hub = f"{hub_host(config)}/{hub.topic}"
        self.key = f"eventhub:{self._hub}"
        self._config = config
        self._stall_s = hub.stall_seconds
        self._look_s = min(_LOOK_S, hub.stall_seconds / 4)
        self._login = Login(config)
        self._connection: HubConnection | None = None
        #: The last page's position, where there was one, and what is read behind it.
        self._resumed: bytes | None = None
        self._reading: Reading | None = None
        #: The position moved without an event: a page without any carries it.
        self._pinned = True
        self._more = True
        self._came = False
        self._last_fetch = self._next_look = 0.0
        self._looks = 0
        self._watch = Watch()
        self._queries: list[float] = []
        self._throttled = self._lost = self._reconnected = 0

    def resume(self, position: bytes | None) -> None:
        """Go on behind this position, or begin."""
        self._resumed, self._reading = position, None
        self._pinned, self._more = position is None, True

    def begin_at(self, to: str) -> bytes:
        """The position of ``now``, ``beginning``, or a time (ISO-8601), whatever was read so far."""
        connection = self._connected()
        bounds = connection.bounds(connection.partitions())
        return self._begin(connection.starts(to, bounds), connection.topic_id()).encoded()

    def fetch(self, timeout: float) -> Page | None:
        """The next page, or None."""
        try:
            return self._fetch(timeout)
        except BaseException:
            # Whatever was taken from the client and is in no page is read again, behind the last page.
            self._reading = None
            self._drop()
            raise

    def _fetch(self, timeout: float) -> Page | None:
        connection, reading = self._ready()
        now = time.monotonic()
        if now - self._last_fetch > self._look_s:
            self._watch.reset()  # nobody asked meanwhile
        if now >= self._next_look:
            connection, reading = self._look(connection, reading, now)
        if self._pinned:
            self._pinned = False
            return self._page((), connection, reading.position)
        outputs = self._take(connection, reading, timeout)
        self._last_fetch = time.monotonic()
        if not outputs:
            if connection.in_trouble and not self._came:
                connection.partitions()  # raises what is wrong, unless it is over
            self._more = False
            return None
        return self._page(outputs, connection, reading.position)

    def _page(self, outputs: Sequence[Output], connection: HubConnection, position: Position) -> Page:
        """A page of these, and the place to begin at again should the next fetch fail."""
        places = position.partitions
        waiting = [n for n, place in places.items() if not 0 <= connection.high(n) <= place.next]
        self._more = bool(waiting)
        times = [places[number].timestamp for number in waiting]
        # Nothing waiting: all that came is taken. Else: until the last record of whatever is furthest behind.
        told = all(timestamp >= 0 for timestamp in times)
        reached = min([timestamp / 1000 for timestamp in times], default=time.time()) if told else None
        self._resumed = position.encoded()
        return Page(outputs, self._resumed, reached, self._more)

    def committed(self, page: Page) -> None:
        """The page is durable: the hub's group is told, soon."""
        if self._connection is not None:
            places = read_position(page.position).partitions
            self._connection.tell({number: place.next for number, place in places.items()})

    def probe(self) -> Probe:
        """Whether anything is waiting behind the position."""
        try:
            connection, reading = self._ready()
            places = reading.position.partitions
            ends = connection.ends(places)
        except BaseException:
            self._reading = None
            self._drop()
            raise
        return Probe(any(ends[number] > place.next for number, place in places.items()), None)

    def facts(self) -> Facts:
        """What happened since it was last asked, and how things stand."""
        self._gather()
        facts = Facts(
            queries=self._queries,
            throttled=self._throttled,
            token_expires=self._login.expires_at,
            lost=self._lost,
            reconnected=self._reconnected,
        )
        self._queries, self._throttled, self._lost, self._reconnected = [], 0, 0, 0
        return facts

    def close(self) -> None:
        """Give everything back."""
        self._drop(_FAREWELL_S)
        self._login.close()

    def _ready(self) -> tuple[HubConnection, Reading]:
        """The connection, with its partitions assigned; made where there is none."""
        connection = self._connected()
        if self._reading is None or self._reading.over:
            self._reading = self._place(connection, self._reading)
        return connection, self._reading

    def _connected(self) -> HubConnection:
        if self._connection is None:
            login = self._login.settings()
            self._connection = HubConnection(self._config, login, self._login.refused)
            if self._reading is not None:
                self._reading.over = True
        return self._connection

    def _place(self, connection: HubConnection, former: Reading | None) -> Reading:
        """Assign the partitions where the former reading stands, or behind the last page."""
        numbers = connection.partitions()
        bounds, topic_id = connection.bounds(numbers), connection.topic_id()
        if former is not None:
            position = former.position
        elif self._resumed is not None:
            position = read_position(self._resumed)
        else:
            position = self._begin(connection.starts(self._config.eventhub.start, bounds), topic_id)
        # Where no id vouches for the hub, the last record that was read does.
        doubtful = not topic_id or not position.topic_id
        refused = former.refused if former is not None else set()
        gone = position.held_against(topic_id, bounds, refused)
        for lost in gone:
            self._say_lost(lost)
        if refused and not gone:
            raise DependencyError(
                "hub_offset_refused",
                f"the Event Hub {self._hub} does not give offset {position.partitions[min(refused)].next} of "
                f"partition {min(refused)}, which it says it has",
            )
        places = position.partitions
        places |= {number: Place(bounds[number].low) for number in numbers if number not in places}
        again = {n for n, place in places.items() if doubtful and place.last >= bounds[n].low}
        connection.assign({n: place.last if n in again else place.next for n, place in places.items()})
        self._next_look = time.monotonic() + self._look_s
        self._watch.reset()
        _logger.info(
            "reading the Event Hub %s: %s",
            self._hub,
            ", ".join(f"{number}@{place.next}" for number, place in sorted(places.items())),
        )
        return Reading(position, again, self._config.kafka.max_message_bytes)

    def _begin(self, starts: Mapping[int, int], topic_id: str) -> Position:
        places = {number: Place(start) for number, start in starts.items()}
        return Position(hub=self._hub, topic_id=topic_id, partitions=places)

    def _say_lost(self, lost: Lost) -> None:
        self._lost += lost.end - lost.start
        self._pinned = True
        _logger.error(
            "%d offsets of partition %d of the Event Hub %s, from %d on, were removed by its retention "
            "before they were read: what they held is lost to the pipeline. Load it from elsewhere, keep "
            "events in the hub for longer, and see why the reader lagged",
            lost.end - lost.start,
            lost.partition,
            self._hub,
            lost.start,
            extra={"code": "records_expired"},
        )

    def _take(self, connection: HubConnection, reading: Reading, timeout: float) -> list[Output]:
        """The outputs of the next messages, with the position moved behind them."""
        limit, outputs, held = self._config.eventhub.page_records, list[Output](), 0
        messages = connection.consume(1, timeout)
        self._came = bool(messages)
        while messages:
            held += reading.add(outputs, messages, connection)
            left = limit - len(outputs)
            if left <= 0 or held >= _PAGE_BYTES or reading.over:
                break
            messages = connection.consume(min(left, _CHUNK), _LINGER_S if self._more else 0)
        return outputs

    def _look(self, connection: HubConnection, reading: Reading, now: float) -> tuple[HubConnection, Reading]:
        """See that all is well, connecting anew where the connection is of no use any more."""
        self._next_look = now + self._look_s
        if now < connection.throttled_until:
            self._watch.reset()
            return connection, reading
        try:
            stalled = self._stalled(connection, reading.position, now)
        except DependencyError as error:
            if error.code != "hub_silent":
                raise
            _logger.warning("%s: connecting anew", error, extra={"code": error.code})
            return self._reconnect()
        if stalled < self._stall_s:
            return connection, reading
        _logger.warning(
            "events wait in a partition of the Event Hub %s, and none has come for %.0f s: connecting anew",
            self._hub,
            stalled,
            extra={"code": "hub_stalled"},
        )
        return self._reconnect()

    def _stalled(self, connection: HubConnection, position: Position, now: float) -> float:
        """See whether it is the same hub, take new partitions, tell for how long what waits has not come."""
        self._looks += 1
        if position.topic_id and self._looks % _IDENTITY_LOOKS == 0:
            position.belongs_to(connection.topic_id())
        numbers = connection.partitions()
        if new := [number for number in numbers if number not in position.partitions]:
            lows = {number: bound.low for number, bound in connection.bounds(new).items()}
            position.partitions |= {number: Place(low) for number, low in lows.items()}
            connection.assign_more(lows)
            _logger.info("the Event Hub %s has more partitions: %s", self._hub, ", ".join(map(str, new)))
        return self._watch.stalled(position, connection.ends(position.partitions), now)

    def _reconnect(self) -> tuple[HubConnection, Reading]:
        self._reconnected += 1
        self._drop()
        return self._ready()

    def _gather(self) -> None:
        if self._connection is not None:
            connection = self._connection
            self._queries += connection.queries
            self._throttled += connection.throttled
            connection.queries, connection.throttled = [], 0

    def _drop(self, patience: float = 0) -> None:
        if self._connection is not None:
            self._gather()
            connection, self._connection = self._connection, None
            connection.close(patience)
