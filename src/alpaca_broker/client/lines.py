"""The channels of the other kinds of market data: whose turn it is, and what was missed.

Owns their tracks. Unlike prices they have no snapshot to be compared with: a hole shows with the
next number, and nothing repairs it. A quote is current again with the next one, a book with the
next snapshot. Runs in the listening thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from alpaca_broker.client.market_data import (
    CHANNEL_OF,
    MarketData,
    OrderbookUpdate,
    is_of,
    market_data,
)
from alpaca_broker.client.subscription import Subscription, is_pattern, may_carry
from alpaca_broker.client.tracking import IGNORED, Track
from alpaca_broker.client.updates import Gap, Reason
from alpaca_broker.core.channels import BAR, ORDERBOOK, QUOTE, TRADING_STATUS
from alpaca_broker.core.feeds import EVERY

if TYPE_CHECKING:
    from alpaca_broker.client.session import Session

MOST_LINES = 200_000
_SEVERAL_KINDS = (BAR, TRADING_STATUS)  # so each update has to be looked at
_KIND_ON = {channel: kind for kind, channel in CHANNEL_OF.items()}  # one of them


class Line:
    """One channel."""

    def __init__(self, channel: str, track: Track) -> None:
        self.channel, self.track = channel, track
        self.last: MarketData | None = None
        self.sinks: list[tuple[Callable[[MarketData], None], frozenset[str]]] = []
        self._whole_since: float | None = None  # of a book: received when, or None: not whole

    @property
    def is_current(self) -> bool:
        """Whether it shows how things are; what happens once is never out of date."""
        if self.channel == ORDERBOOK:
            return self._whole_since is not None
        return self.channel != QUOTE or not self.track.in_doubt

    def take(self, update: MarketData, missed: int) -> None:
        """The next one, behind so many that were missed."""
        self.last = update
        if isinstance(update, OrderbookUpdate):
            if update.snapshot:
                self._whole_since = update.received_at or update.timestamp
            elif missed:
                self._whole_since = None

    def begin(self, epoch: int) -> None:
        """A new epoch: numbers start over, and a book with a snapshot."""
        self.track.begin(epoch)
        self._whole_since = None

    def breaks(self, gap: Gap) -> None:
        """The broker missed something of it; a snapshot that came since is whole."""
        self.track.doubt("broker gap")
        if gap.began is None or (self._whole_since or 0.0) <= gap.began:
            self._whole_since = None


class Lines:
    """The channels of one session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._prefix = session.channels.prefix.encode()
        self._lines: dict[bytes, Line] = {}
        self._whole: tuple[str, ...] = ()  # channels that are followed by pattern

    @property
    def symbols(self) -> set[str]:
        """Whose data is followed."""
        return {line.track.symbol for line in self._lines.values()}

    def follow(self, subscriptions: tuple[Subscription, ...]) -> None:
        """From now on these are the consumers."""
        topics = {topic for one in subscriptions for topic in one.others}
        self._whole = tuple({CHANNEL_OF[kind] for kind, name in topics if is_pattern(kind, name)})
        wanted = {(CHANNEL_OF[kind], name) for kind, name in topics if not is_pattern(kind, name)}
        for name, line in list(self._lines.items()):
            if (line.channel, line.track.symbol) not in wanted and line.channel not in self._whole:
                del self._lines[name]
        for channel, symbol in wanted:
            self._open(channel, symbol)
        for line in self._lines.values():
            self._lead(line)

    def doubt(self, cause: Reason) -> None:
        """Something may have been missed."""
        for line in self._lines.values():
            line.track.doubt(cause)

    def breaks(self, gap: Gap) -> None:
        """The broker missed something."""
        named = set(gap.symbols)
        for line in self._lines.values():
            symbol = line.track.symbol
            is_named = EVERY in named or symbol in named
            if is_named and may_carry(gap.feed, (_KIND_ON[line.channel], symbol)):
                line.breaks(gap)

    def begin(self, epoch: int) -> None:
        """A new epoch: numbers start over."""
        for line in self._lines.values():
            line.begin(epoch)

    def of(self, kind: str, symbol: str) -> Line | None:
        """The channel of a kind of data, if it is followed."""
        return self._lines.get(self._prefix + f"{CHANNEL_OF[kind]}{symbol}".encode())

    def has_heard(self, kind: str, symbol: str) -> bool:
        """Whether something came on the channel in this epoch."""
        line = self.of(kind, symbol)
        return line is not None and line.track.heard

    def hear(self, name: bytes, payload: bytes, wall: float) -> bool:
        """Take a message; False where it is on no channel of ours."""
        line = self._lines.get(name) or self._new(name)
        if line is None:
            return False
        session, track = self._session, line.track
        session.counters.received += 1
        update = market_data(payload)
        if update is None:
            session.counters.bad += 1
            return True
        if update.epoch > session.epoch:
            session.begin(update.epoch, wall)
        missed = IGNORED if update.seq and update.epoch < session.epoch else track.judge(update)
        if missed == IGNORED:
            session.counters.duplicates += 1
            return True
        if missed:
            before, channel = line.last, line.channel
            session.delivery.hole(track, missed, before, update, wall, channel=channel)
        track.cause = None
        line.take(update, missed)
        for put, kinds in line.sinks:
            if not kinds or any(is_of(kind, update) for kind in kinds):
                put(update)
        return True

    def _new(self, name: bytes) -> Line | None:
        """The channel of a symbol that is heard for the first time, by a pattern."""
        rest = name.removeprefix(self._prefix).decode(errors="replace")
        for channel in self._whole:
            if rest.startswith(channel) and len(self._lines) < MOST_LINES:
                line = self._open(channel, rest.removeprefix(channel))
                self._lead(line)
                return line
        return None

    def _open(self, channel: str, symbol: str) -> Line:
        name = self._prefix + f"{channel}{symbol}".encode()
        if name not in self._lines:
            self._lines[name] = Line(channel, Track(symbol, self._session.epoch))
        return self._lines[name]

    def _lead(self, line: Line) -> None:
        line.sinks = []
        for one in self._session.subscriptions:
            if kinds := one.kinds(line.channel, line.track.symbol):
                several = line.channel in _SEVERAL_KINDS
                line.sinks.append((one.inbox.pending.append, kinds if several else frozenset()))
