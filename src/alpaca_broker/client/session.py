"""One bot's conversation with Redis: what is heard, who gets it, what was missed.

Owns the subscriptions, the tracks and the epoch. Runs in the listening thread, or in a bot's that
reads in its place (`lending.py`); others read single values. Reads no clock and no socket: it is
fed replies, and the engine sends what it leaves in `to_hear` and `to_ask`. Lower epochs are
ignored; a new one makes everything register again. (Long, for it is the hot path.)
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import msgspec

from alpaca_broker.client import updates
from alpaca_broker.client.catch_up import CatchUp
from alpaca_broker.client.delivery import Delivery
from alpaca_broker.client.lines import Lines
from alpaca_broker.client.seam import Read
from alpaca_broker.client.subscription import Subscription, changes, may_carry, wanted_channels
from alpaca_broker.client.tracking import IGNORED, Health, Track
from alpaca_broker.client.updates import BrokerGap, Gap, PriceUpdate, Reason, Status
from alpaca_broker.client.wishes import TRADES, Wishes, name_of
from alpaca_broker.core.channels import Channels
from alpaca_broker.core.feeds import EVERY, Topic, family

log = logging.getLogger("alpaca_broker.client")

MOST_TRACKS = 200_000

Answered = Callable[[Any], None]


class Session:
    """Everything that a client knows."""

    def __init__(
        self, channels: Channels, wishes: Wishes, reply_to: str, accounts: tuple[str, ...] = ()
    ) -> None:
        self.channels, self.wishes = channels, wishes
        self._accounts = accounts  # to be named to the broker, whether they are followed or not
        self._reply_to = reply_to.encode() if wishes.registers else b""
        self._status = channels.status.encode()
        self._price = channels.price("").encode()
        self.delivery = Delivery()
        self.counters = self.delivery.counters
        self.tracks: dict[str, Track] = {}
        self._by_channel: dict[bytes, Track] = {}
        self._seams: dict[bytes, list[Subscription]] = {}
        self._told: dict[str, str] = {}  # what Redis was told: name → SUBSCRIBE or PSUBSCRIBE
        self.confirmed: set[str] = set()
        self.health = Health()
        self.catch_up = CatchUp(self)
        self.lines = Lines(self)
        self.epoch = 0
        self.connected = False
        self.to_hear: list[tuple[str, ...]] = []  # commands for the listening link
        self.to_ask: list[tuple[tuple[str | int, ...], Answered | None]] = []
        self._beat_at = 0.0  # wall clock

    # What the bot wants.

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        """The consumers."""
        return self.delivery.subscriptions

    def follow(self, subscriptions: tuple[Subscription, ...]) -> None:
        """From now on these are the consumers."""
        self.delivery.subscriptions = subscriptions
        symbols = frozenset[str]().union(*(s.symbols for s in subscriptions))
        seams = [s for s in subscriptions if s.seam is not None]
        named = [s.seam.account_id for s in seams if s.seam is not None]
        accounts = tuple(dict.fromkeys([*named, *self._accounts]))
        self._seams = {}
        for one in seams:
            assert one.seam is not None
            name = self.channels.order(one.seam.account_id).encode()
            self._seams.setdefault(name, []).append(one)
        for symbol in symbols - {"*"}:
            self._track(symbol)
        if "*" not in symbols:
            for symbol in self.tracks.keys() - symbols:
                del self.tracks[symbol]
                del self._by_channel[self.channels.price(symbol).encode()]
        for track in self.tracks.values():
            self._lead(track)
        self.lines.follow(subscriptions)
        self.catch_up.soon()
        others = frozenset[Topic]().union(*(s.others for s in subscriptions))
        self._say(self.wishes.want(symbols, accounts, others), 0.0)
        self._tell_redis()

    def _track(self, symbol: str) -> Track:
        track = self.tracks.get(symbol)
        if track is None:
            track = self.tracks[symbol] = Track(symbol, self.epoch)
            self._by_channel[self.channels.price(symbol).encode()] = track
            self._lead(track)
        return track

    def _lead(self, track: Track) -> None:
        wanting = (s.inbox for s in self.subscriptions if s.wants(track.symbol))
        track.sinks = tuple(inbox.pending.append for inbox in wanting)

    def _tell_redis(self) -> None:
        if not self.connected:
            return
        own = [self.channels.status, *([self._reply_to.decode()] if self._reply_to else [])]
        wanted = wanted_channels(self.channels, self.subscriptions, own)
        self.to_hear += changes(self._told, wanted)
        self._told = wanted

    @property
    def has_work(self) -> bool:
        """Whether the engine is to look after it at once."""
        return bool(self.to_hear or self.to_ask or self.catch_up.is_urgent)

    # The connection.

    def link_up(self) -> None:
        """Connected: subscribe to everything."""
        self.connected, self._told = True, {}
        self._tell_redis()
        self.wishes.again()
        self.catch_up.soon()

    def link_down(self) -> None:
        """The connection is no more; nothing that was sent is waited for."""
        self.connected = False
        self.confirmed = set()
        self.to_hear.clear()
        self.to_ask.clear()
        self.catch_up.reset()

    def may_have_missed(self, cause: Reason) -> None:
        """Connected again: nothing is sure until it has been compared."""
        self.counters.reconnects += 1
        for track in self.tracks.values():
            track.doubt(cause)
        self.lines.doubt(cause)
        for one in self.subscriptions:
            if one.seam is not None:
                one.seam.disturb(cause)

    def mend(self) -> None:
        """Hearing was broken off anywhere: make whole what hangs together, and tell the rest."""
        for one in self.subscriptions:
            one.inbox.pending.clear()  # or, where that was done already, it would come twice
        tracks = self.tracks.values()
        self._by_channel = {self.channels.price(t.symbol).encode(): t for t in tracks}
        self.follow(self.subscriptions)
        self.wishes.forget()
        gap = Gap(reason="reconnect", symbols=self._names(), detail="the bot was broken off")
        self.lines.doubt("reconnect")
        self.lines.breaks(gap)
        self.delivery.tell(gap)

    # What is heard.

    def hear(self, gets: Callable[[], Any], now: float, wall: float) -> None:
        """Take every whole reply of the listening link."""
        tracks, decode = self._by_channel, updates.decode_price
        received = 0
        while (reply := gets()) is not False:
            if type(reply) is not list:
                # Nothing is registered then, for nothing would be heard.
                log.warning("Redis refused to let us listen: %s", reply)
                continue
            kind = reply[0]
            if kind == b"message":
                _, channel, payload = reply
            elif kind == b"pmessage":
                _, _, channel, payload = reply
            else:
                self._told_by_redis(reply, now, wall)
                continue
            track = tracks.get(channel)
            if track is None:
                self._hear_other(channel, payload, now, wall)
                continue
            received += 1
            try:
                update = decode(payload)
                update.payload = payload
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                salvaged = updates.price(payload)
                if salvaged is None:
                    self.counters.bad += 1
                    continue
                update = salvaged
            if update.seq == track.next and update.epoch == track.epoch:
                track.next += 1
            elif not self._out_of_line(track, update, wall):
                continue
            track.last = update
            for put in track.sinks:
                put(update)
        self.counters.received += received

    def _out_of_line(self, track: Track, update: PriceUpdate, wall: float) -> bool:
        """A number that was not expected; whether the price is to be handed on."""
        if update.epoch > self.epoch:
            self.begin(update.epoch, wall)
        if update.seq and update.epoch < self.epoch:
            self.counters.duplicates += 1
            return False
        before = track.last
        missed = track.judge(update)
        if missed == IGNORED:
            self.counters.duplicates += 1
            return False
        if missed:
            self.delivery.hole(track, missed, before, update, wall)
        else:
            track.cause = None
        return True

    def _hear_other(self, channel: bytes, payload: bytes, now: float, wall: float) -> None:
        if channel == self._status:
            match updates.status_or_gap(payload):
                case Status() as status:
                    status = msgspec.structs.replace(status, payload=payload)
                    self._beat(status, now, wall)
                case BrokerGap() as gap:
                    self._broker_gap(gap, payload)
                case None:
                    self.counters.bad += 1
        elif channel == self._reply_to:
            self._hear_answer(payload, wall)
        elif channel in self._seams:
            self.counters.received += 1
            self._hear_order(self._seams[channel], payload)
        elif self.lines.hear(channel, payload, wall):
            pass
        elif channel.startswith(self._price) and len(self.tracks) < MOST_TRACKS:
            symbol = channel[len(self._price) :].decode(errors="replace")
            if any("*" in s.symbols for s in self.subscriptions):
                self._track(symbol)
                self.hear(iter([[b"message", channel, payload], False]).__next__, now, wall)

    def _hear_order(self, followers: list[Subscription], payload: bytes) -> None:
        for one in followers:
            # Decoded anew for each: what one consumer marks, the other must not see.
            update = updates.order(payload)
            if update is None:
                self.counters.bad += 1
                return
            assert one.seam is not None
            if update.seq > 0 and (one.inbox.room <= 1 or update.epoch < self.epoch):
                one.seam.put_off(update)  # the journal knows whether it counts
            else:
                self.delivery.orders(one, one.seam.live(update))

    def _beat(self, status: Status, now: float, wall: float) -> None:
        if status.epoch < self.epoch:
            return
        if status.epoch > self.epoch:
            self.begin(status.epoch, wall)
        self._beat_at = wall
        if self.health.beat(status, now):
            log.info("the broker's heartbeat is back")
            self.catch_up.soon()

    def begin(self, epoch: int, wall: float) -> None:
        """An epoch: the first one that is known, or a new one."""
        is_first, self.epoch = self.epoch == 0, epoch
        for track in self.tracks.values():
            track.begin(epoch)
        self.lines.begin(epoch)
        if is_first:
            return
        log.info("a new epoch: the broker was restarted, or another one leads")
        self.wishes.forget()
        self.catch_up.soon()
        self.delivery.tell(
            Gap(reason="epoch", symbols=self._names(), began=self._beat_at or None, ended=wall)
        )

    def _broker_gap(self, gap: BrokerGap, payload: bytes) -> None:
        if 0 < gap.epoch < self.epoch:
            return
        told = Gap(
            reason="broker gap",
            symbols=tuple(gap.symbols),
            feed=gap.feed,
            account_id=gap.account_id,
            began=gap.began,
            ended=gap.ended,
            recovered=gap.recovered,
            again=gap.again,
            detail=gap.reason,
            payload=payload,
        )
        if not gap.recovered and not gap.again and gap.account_id is None:
            for symbol in self.tracks if EVERY in gap.symbols else gap.symbols:
                if (track := self.tracks.get(symbol)) and may_carry(gap.feed, (TRADES, symbol)):
                    track.doubt("broker gap")
            self.lines.breaks(told)
            self.catch_up.soon()
        self.delivery.tell(told)

    def _hear_answer(self, payload: bytes, wall: float) -> None:
        answer = updates.answer(payload)
        if answer is None:
            self.counters.bad += 1
            return
        if answer.epoch > self.epoch:
            self.begin(answer.epoch, wall)
        if 0 < answer.epoch < self.epoch:
            return
        for name, reason in self.wishes.take(answer).items():
            log.warning("%s was refused: %s", name, reason)

    def _told_by_redis(self, reply: list[Any], now: float, wall: float) -> None:
        match reply:
            case [b"subscribe" | b"psubscribe", name, _]:
                self.confirmed.add(name.decode())
            case [b"unsubscribe" | b"punsubscribe", name, _]:
                self.confirmed.discard(name.decode())
            case [b"pong", token]:
                self.catch_up.heard_until(token, wall)

    # What time brings.

    def tick(self, now: float, wall: float) -> None:
        """Look at everything that is due. May be called at any time."""
        if self.health.falls_silent(now):
            log.warning("no heartbeat for 3 s: what is known may be out of date")
            began = self._beat_at or None
            self.delivery.tell(Gap(reason="stale", symbols=self._names(), began=began))
        if self.is_subscribed:
            self._say(self.wishes.due(now), now)
            self.catch_up.tick(now)
        self.delivery.hand_over()

    @property
    def is_subscribed(self) -> bool:
        """Whether Redis has confirmed every channel."""
        return self.connected and self._told.keys() <= self.confirmed

    def _names(self) -> tuple[str, ...]:
        return tuple(sorted(self.tracks.keys() | self.lines.symbols))

    def _say(self, messages: list[dict[str, Any]], now: float) -> None:
        if not self.connected:
            return
        for message in messages:

            def sent(receivers: Any) -> None:
                if receivers == 0:
                    self.wishes.nobody_listened(now)

            words = ("PUBLISH", self.channels.registration, json.dumps(message))
            self.to_ask.append((words, sent if message["action"] == "register" else None))

    # What other threads ask.

    def is_fresh(self, symbol: str, now: float, kinds: frozenset[str] | None = None) -> bool:
        """Whether what is known of the symbol is current: all that is followed, or these kinds."""
        followed = set[Topic]().union(*(one.topics(symbol) for one in self.subscriptions))
        if kinds is not None:
            followed &= {(kind, symbol) for kind in kinds}
        if not followed or not self.connected or not self.health.beats(now):
            return False
        return all(map(self._is_current, followed))

    def _is_current(self, topic: Topic) -> bool:
        kind, symbol = topic
        if kind == TRADES:
            track = self.tracks.get(symbol)
            is_current = track is None or not track.in_doubt
        else:
            line = self.lines.of(kind, symbol)
            track, is_current = (None, True) if line is None else (line.track, line.is_current)
        mine = family(kind, symbol)
        names = [symbol, EVERY] if family(kind, EVERY) == mine else [symbol]
        accepted = any(name_of(kind, name) in self.wishes.accepted for name in names)
        known = accepted or (track is not None and track.heard)
        return known and is_current and self.health.feed_is_live(mine)

    def is_ready(self, now: float) -> bool:
        """Whether everything that is wanted is subscribed to, and acknowledged or refused."""
        if not self.is_subscribed or not self.health.beats(now):
            return False
        live = self.health.state(now) == "live"
        heard: dict[str, bool] = {}
        for one in self.subscriptions:
            if one.seam is not None and one.seam.reads is not Read.NOTHING:
                return False
            for symbol in one.symbols:
                track = self.tracks.get(symbol)
                heard[symbol] = track is not None and track.heard
            for kind, symbol in one.others:
                heard[name_of(kind, symbol)] = self.lines.has_heard(kind, symbol)
        decided = self.wishes.is_decided
        return all(decided(name, is_heard, live, now) for name, is_heard in heard.items())
