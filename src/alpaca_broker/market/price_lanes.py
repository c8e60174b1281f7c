"""The price channels: `seq`, the prepared commands, and the last price of each.

Owns what happens to a trade between decoding and Redis: the hot path, where nothing waits,
and nothing is built that is not published. Runs in the price producer's loop.
"""

from __future__ import annotations

import logging
from time import time
from typing import Literal

import msgspec
from msgspec import UNSET

from alpaca_broker.alpaca.rest import LatestTrade, PastTrade
from alpaca_broker.bus.pipe import publish_head
from alpaca_broker.bus.publisher import Publisher
from alpaca_broker.bus.snapshots import Snapshots
from alpaca_broker.core.channels import Channels
from alpaca_broker.core.market_data import OptionTrade, Trade
from alpaca_broker.core.messages import PriceUpdate
from alpaca_broker.market.conflation import Conflation
from alpaca_broker.market.trade_frames import Lane, keep, publish

log = logging.getLogger(__name__)

MOST_LANES = 200_000


class PriceLanes:
    """Every price channel of one feed."""

    def __init__(self, feed: str, channels: Channels, publisher: Publisher) -> None:
        self._feed, self._channels = feed, channels
        self._publisher, self._publish = publisher, publisher.publish
        self._encode = msgspec.json.Encoder().encode
        self._lanes: dict[str, Lane] = {}
        self._backfilled: dict[str, Lane] = {}
        self._start = b',"feed":%b,"received_at":' % self._encode(feed)
        self._read = msgspec.json.Decoder(Trade).decode
        self.kept: Conflation[Trade | OptionTrade | bytes] = Conflation(self._say_kept)
        self.snapshots = Snapshots(publisher, channels.last)
        self.epoch = 0
        self.messages = 0
        self.turned_away = 0

    def publish(self, trade: Trade | OptionTrade, received_at: float) -> None:
        """Publish one trade on its channel, or keep it while Redis is behind."""
        if self._publisher.behind:
            self.kept.keep(trade.S, trade, received_at)
        else:
            self._say(trade, received_at)

    def take(self, frame: bytes | str, received_at: float) -> bool:
        """Publish a frame of trades as a whole, or keep it while Redis is behind.

        False where nothing was done: it holds something else, or nothing is compiled; then the
        frame has to be decoded, and each message published by itself.
        """
        if self._publisher.behind:
            replaced = keep(frame, self.kept.waiting, received_at)
            if replaced is None:
                return False
            self.kept.skipped += replaced
            return True
        snapshots = self.snapshots
        commands = publish(
            frame,
            self._lanes,
            snapshots.latest,
            snapshots.dirty,
            b'%b%b,"seq":' % (self._start, self._encode(received_at)),
            b',"epoch":%d}' % self.epoch,
        )
        if commands is None:
            return False
        self._publisher.send_all(commands)
        self.messages += len(commands)
        snapshots.noted += len(commands)
        return True

    def _say_kept(
        self, trade: Trade | OptionTrade | bytes, received_at: float, skipped: int
    ) -> None:
        """Publish what waited; a frame that was kept as a whole left its trades as they came."""
        self._say(self._read(trade) if isinstance(trade, bytes) else trade, received_at, skipped)

    def _say(self, trade: Trade | OptionTrade, received_at: float, skipped: int = 0) -> None:
        symbol = trade.S
        lane = self._lanes.get(symbol) or self._new_lane(symbol)
        if lane is None:
            return
        lane.seq += 1
        self.messages += 1
        payload = self._encode(
            PriceUpdate(
                symbol,
                trade.p,
                trade.t.timestamp(),
                trade.s,
                trade.x,
                trade.c,
                trade.i,
                self._feed,
                received_at,
                lane.seq,
                self.epoch,
                skipped or UNSET,
            )
        )
        self._publish(lane.head, payload)
        self.snapshots.note(symbol, payload)

    def look_up(self, symbol: str, trade: LatestTrade, received_at: float) -> None:
        """Note a price that REST told, unless the stream has told a newer one meanwhile."""
        if symbol in self.snapshots.latest or symbol in self.kept.waiting:
            return
        lane = self._lanes.get(symbol) or self._new_lane(symbol)
        if lane is None:
            return
        self.snapshots.note(symbol, self._from_rest(symbol, trade, received_at, lane, "snapshot"))

    def backfill(self, symbol: str, trade: PastTrade) -> None:
        """Publish a trade that was recovered after a gap, on a channel of its own."""
        lane = self._backfilled.get(symbol)
        if lane is None:
            if len(self._backfilled) >= MOST_LANES:
                self._turn_away(symbol)
                return
            lane = self._backfilled[symbol] = Lane(publish_head(self._channels.backfill(symbol)))
        lane.seq += 1
        payload = self._from_rest(symbol, trade, round(time(), 6), lane, "backfill")
        self._publish(lane.head, payload)

    def _from_rest(
        self,
        symbol: str,
        trade: LatestTrade,
        received_at: float,
        lane: Lane,
        source: Literal["snapshot", "backfill"],
    ) -> bytes:
        update = PriceUpdate(
            symbol,
            trade.p,
            trade.t.timestamp(),
            trade.s,
            trade.x,
            _conditions(trade.c),
            trade.i,
            self._feed,
            received_at,
            lane.seq,
            self.epoch,
            source=source,
        )
        return self._encode(update)

    def _turn_away(self, symbol: str) -> None:
        """Alpaca knows some ten thousand symbols: this is something else. Said once."""
        if not self.turned_away:
            log.error(
                "%s feed: more than %d symbols have come: nothing of %s, nor of any other new one, "
                "is published until a restart",
                *(self._feed, MOST_LANES, symbol),
            )
        self.turned_away += 1

    def _new_lane(self, symbol: str) -> Lane | None:
        if len(self._lanes) >= MOST_LANES:
            self._turn_away(symbol)
            return None
        lane = self._lanes[symbol] = Lane(publish_head(self._channels.price(symbol)))
        return lane


def _conditions(found: list[str] | str | None) -> list[str] | None:
    """As a list, also those of options, of which REST shows one."""
    return [found] if isinstance(found, str) else found
