"""What is read from Redis besides what is heard: `price:last`, the journal, the open orders.

Owns when to read, and one reading at a time for each consumer. A hole shows itself only with the
next message, and a quiet symbol has none: so every five seconds the numbers are compared. Before
that a ping goes over the listening link: its answer comes after everything that was published
before `price:last` was read, so what is missing then is really missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alpaca_broker.client import updates
from alpaca_broker.client.seam import Entry, Read, Seam
from alpaca_broker.client.updates import OrderUpdate, PriceUpdate

if TYPE_CHECKING:
    from alpaca_broker.client.session import Session
    from alpaca_broker.client.subscription import Subscription

COMPARE_EVERY_S = 5.0
DOUBT_EVERY_S = 1.0
SYMBOLS_AT_ONCE = 500
SYMBOLS_EACH_TIME = 2_000  # of those that are not in doubt; the others have their turn later
ENTRIES_AT_ONCE = 500
HEARTBEAT_WITHIN_S = 2.0


class CatchUp:
    """The readings of one session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._due_at = float("-inf")
        self._number = 0
        self._parts = 0  # of `price:last`, asked for and not yet there
        self._found: dict[str, PriceUpdate | None] = {}
        self._read_at = 0.0  # no later than they were
        self._token = b""
        self._turn = 0
        self._busy: set[Seam] = set()
        self._all_due_at = float("-inf")
        self._asks_since: float | None = None
        self._look: set[Seam] = set()  # whose journal is to be looked at although nothing shows

    def soon(self) -> None:
        """Compare at the next occasion."""
        self._due_at = self._all_due_at = float("-inf")

    @property
    def is_urgent(self) -> bool:
        """Whether it was asked for since the last occasion."""
        return self._due_at == float("-inf")

    def reset(self) -> None:
        """The connection is no more: no answer will come."""
        self._parts, self._token, self._found = 0, b"", {}
        self._busy.clear()
        self._asks_since = None
        self.soon()

    def tick(self, now: float) -> None:
        """Ask for what is due."""
        session = self._session
        self._asks_since = now if self._asks_since is None else self._asks_since
        if now >= self._due_at:
            everything = now >= self._all_due_at
            self._due_at = now + DOUBT_EVERY_S
            if everything:
                self._look = {s.seam for s in session.subscriptions if s.seam is not None}
                self._all_due_at = now + COMPARE_EVERY_S
            if not self._parts and not self._token:
                self._ask_prices(everything, now)
        for one in session.subscriptions:
            seam = one.seam
            if seam is not None and seam not in self._busy and self._knows(seam, now):
                self._ask_orders(one, seam)

    # Prices.

    def _ask_prices(self, everything: bool, now: float) -> None:
        tracks, self._read_at = self._session.tracks, now
        for track in tracks.values():
            if track.listens_since is None:
                track.listens_since = now
        names = [name for name, track in tracks.items() if track.in_doubt]
        others = [n for n, track in tracks.items() if not track.in_doubt] if everything else []
        if len(others) > SYMBOLS_EACH_TIME:
            self._turn = (self._turn + SYMBOLS_EACH_TIME) % len(others)
            others = (others[self._turn :] + others[: self._turn])[:SYMBOLS_EACH_TIME]
        names += others
        for first in range(0, len(names), SYMBOLS_AT_ONCE):
            part = names[first : first + SYMBOLS_AT_ONCE]
            self._parts += 1

            def take(values: Any, part: list[str] = part) -> None:
                self._parts -= 1
                if isinstance(values, list):
                    for name, value in zip(part, values, strict=True):
                        self._found[name] = updates.price(value) if value else None
                if not self._parts:
                    self._number += 1
                    self._token = b"compare-%d" % self._number
                    self._session.to_hear.append(("PING", self._token.decode()))

            self._session.to_ask.append((("HMGET", self._session.channels.last, *part), take))

    def heard_until(self, token: bytes, wall: float) -> None:
        """Everything that was published before the reading has been heard: compare."""
        if token != self._token:
            return
        self._token = b""
        session = self._session
        found, self._found = self._found, {}
        for symbol, last in found.items():
            track = session.tracks.get(symbol)
            if track is None or (last is not None and last.epoch != session.epoch):
                continue  # of an epoch that is over, or of which the heartbeat will tell
            before = track.last
            missed, hand_on = track.compare(last, self._read_at)
            if missed and last is not None:
                session.delivery.hole(track, missed, before, last, wall, "price:last")
            if hand_on and last is not None:
                last.repaired = True
                track.last = last
                session.counters.repaired += 1
                for put in track.sinks:
                    put(last)
            if not track.in_doubt:
                track.cause = None

    # Orders.

    def _knows(self, seam: Seam, now: float) -> bool:
        """Whether the account's id is known: the heartbeat tells whose number was named."""
        if _looks_like_id(seam.account_id):
            return True
        if (status := self._session.health.status) is None:
            # A deployment without a broker has a journal all the same.
            return self._asks_since is not None and now - self._asks_since >= HEARTBEAT_WITHIN_S
        for account_id, account in status.accounts.items():
            if account.account_number == seam.account_id:
                seam.journal_of = account_id
        return True

    def _ask_orders(self, one: Subscription, seam: Seam) -> None:
        room = one.inbox.room - 2  # a gap may come along
        if seam.reads is Read.NOTHING and seam not in self._look:
            return
        if room < min(ENTRIES_AT_ONCE, one.inbox.bound // 2):
            one.inbox.wants_room = True
            room = one.inbox.room - 2  # it may have been emptied meanwhile
            if room < min(ENTRIES_AT_ONCE, one.inbox.bound // 2):
                return
        one.inbox.wants_room = False
        self._look.discard(seam)
        self._busy.add(seam)
        if seam.reads is Read.OPEN_ORDERS:
            self._ask_open_orders(one, seam)
        else:
            self._ask_journal(one, seam, min(ENTRIES_AT_ONCE, room))

    def _ask_journal(self, one: Subscription, seam: Seam, most: int) -> None:
        key = self._session.channels.journal(seam.journal_of)
        after, generation = seam.last, seam.generation
        newest: list[Entry] = []

        def take_newest(answer: Any) -> None:
            newest.extend(self._entries(answer))

        def take(answer: Any) -> None:
            self._busy.discard(seam)
            if seam.generation != generation or not isinstance(answer, list):
                return
            entries = self._entries(answer)
            handed = seam.journal(
                after, newest[0] if newest else None, entries, more=len(entries) >= most
            )
            self._session.delivery.orders(one, handed)

        ask = self._session.to_ask
        ask.append((("XREVRANGE", key, "+", "-", "COUNT", 1), take_newest))
        ask.append((("XRANGE", key, f"({after}-0", "+", "COUNT", most), take))

    def _ask_open_orders(self, one: Subscription, seam: Seam) -> None:
        channels, generation = self._session.channels, seam.generation
        key = channels.journal(seam.journal_of)

        def take(answer: Any) -> None:
            self._busy.discard(seam)
            if seam.generation != generation or not isinstance(answer, list):
                return
            first, newest, fields = answer
            orders = [self._order(payload) for payload in fields[1::2]]
            handed = seam.open_orders(
                next(iter(self._entries(first)), None),
                next(iter(self._entries(newest)), None),
                [order for order in orders if order is not None],
            )
            self._session.delivery.orders(one, handed)

        ask = self._session.to_ask
        # In one step, so that the orders are those of the journal's newest entry.
        ask.append((("MULTI",), None))
        ask.append((("XRANGE", key, "-", "+", "COUNT", 1), None))
        ask.append((("XREVRANGE", key, "+", "-", "COUNT", 1), None))
        ask.append((("HGETALL", channels.open_orders(seam.journal_of)), None))
        ask.append((("EXEC",), take))

    def _entries(self, answer: Any) -> list[Entry]:
        entries = []
        for name, fields in answer if isinstance(answer, list) else []:
            pairs = dict(zip(fields[::2], fields[1::2], strict=False))
            entries.append(Entry(int(name.partition(b"-")[0]), self._order(pairs.get(b"data"))))
        return entries

    def _order(self, payload: bytes | None) -> OrderUpdate | None:
        update = updates.order(payload) if payload is not None else None
        if update is None:
            self._session.counters.bad += 1
        return update


def _looks_like_id(account: str) -> bool:
    return len(account) == 36 and account.count("-") == 4
