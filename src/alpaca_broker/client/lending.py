"""A bot that waits reads for itself: no other thread has to wake it for a price.

Owns the lock of the session, and what the engine's thread and a waiting bot's agree on. Each may
read the hearing link whenever it holds the lock, so who of them does changes nothing in what is
delivered: a piece is read, understood and put into the inbox under the lock, and taken from there
as ever. Nobody holds the lock while it waits.

All else is about who is woken. The engine offers its hearing link where one stream is the only
consumer. A bot that waits there polls the link, and the engine leaves it out of its own selector
while the bot waits, or was back within `AWAY_S`, and read all there was. A busy bot is not back:
the engine, which looks at that pace, reads on in its place, as it promised. Where it found a bot
waiting and nothing to hear it may doze longer; a bot that leaves with something wakes it.

Flags are set before what they announce is looked at, on both sides (`_polls` and the bell,
`_polls` and the offer, `_dozes` and `_polls`), so of two threads one always sees the other. What a
poll says is never believed but under the lock, and only while the offer still stands: the number
of a closed socket may be another's by then.

A bot's thread may be broken off anywhere, by Ctrl-C or whatever a signal's handler raises. No
handler of ours could be relied on then, so it is the other way round: `_in_midst` stands while a
piece is being heard, and whoever finds it with the lock in hand knows. What was half heard is lost;
the engine tells a gap and connects again. So orders, which must come once, are never lent.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from math import ceil, inf
from threading import Lock, get_ident
from time import monotonic
from typing import TYPE_CHECKING, Any

import hiredis

from alpaca_broker.client.inbox import SIGNAL_SEEN_WITHIN_S, Bell, Inbox, Item, Portion
from alpaca_broker.client.link import Link, LinkEnded, is_of_handler

if TYPE_CHECKING:
    from alpaca_broker.client.session import Session
    from alpaca_broker.client.subscription import Subscription

AWAY_S = 0.02
ALIVE_S = 0.6  # a bot that waits shows itself every SIGNAL_SEEN_WITHIN_S


class BrokenOff(Exception):
    """A bot's thread was broken off while it read: what it had read is lost."""


class _Offer:
    """The hearing link of one connection, for one consumer."""

    def __init__(self, inbox: Inbox, link: Link, hear: Callable[[], bool], ear: Any) -> None:
        self.inbox, self.hear = inbox, hear
        self.ear = ear.fileno()
        poll = select.poll()
        poll.register(self.ear, select.POLLIN)
        poll.register(link.fileno(), select.POLLIN)
        self.poll = poll.poll


class Lending:
    """Who reads the hearing link of one client."""

    def __init__(self, session: Session, ring: Callable[[], None]) -> None:
        """`ring` wakes the engine."""
        self.lock = Lock()  # of the session and the links, while a connection lasts
        self._session, self._ring = session, ring
        self._ends: tuple[socket.socket, socket.socket] | None = None
        self._offer: _Offer | None = None
        self._followed: tuple[Subscription, ...] = ()
        self.left_some = False  # whoever read last, there was more
        # Written by the bot's thread.
        self._in_midst = False
        self._reader = 0  # the thread that is
        self._error: Exception | None = None
        self._polls = False
        self._visits = 0
        # Written by the engine's.
        self._dozes = False
        self._seen, self._seen_at = 0, -inf

    def open(self) -> None:
        """There may be bots that wait."""
        if not hasattr(select, "poll"):
            return
        try:
            ends = socket.socketpair()
        except OSError:
            return  # too many files are open: the engine reads
        for end in ends:
            end.setblocking(False)
        self._ends = ends

    def close(self) -> None:
        """There is nothing more to read."""
        for end in self._ends or ():
            end.close()

    # For the engine's thread, with the lock in hand.

    def arrange(self, link: Link, hear: Callable[[], bool]) -> None:
        """Offer the link where one consumer is there that may read it; else to nobody.

        `hear` hears a piece, and says whether that was all. Not before everything is subscribed
        to: until then there is much for the engine.
        """
        consumers = self._session.subscriptions
        if consumers is self._followed:
            return
        self._withdraw()
        if self._ends is None or not link.is_plain or not self._session.is_subscribed:
            return
        self._followed = consumers
        if len(consumers) != 1:
            return
        (one,) = consumers
        if one.seam is None and not one.everything:
            self._offer = _Offer(one.inbox, link, hear, self._ends[0])

    def check(self) -> None:
        """Whether a bot's thread came to the end of what it read.

        Raises:
            LinkEnded, HiredisError: it did not, for the connection ended.
            BrokenOff: it was broken off.
        """
        if self._in_midst:
            raise BrokenOff
        if self._error is not None:
            raise self._error

    def leaves_out(self, now: float) -> bool:
        """Whether a bot's thread does the hearing."""
        if self._visits != self._seen:
            self._seen, self._seen_at = self._visits, now
        if self._offer is None or self.left_some:
            return False
        return now - self._seen_at < (ALIVE_S if self._polls else AWAY_S)

    def may_doze(self, silent_for_s: float) -> bool:
        """Whether the bot that hears waits, and need not be looked after soon."""
        self._dozes = silent_for_s > AWAY_S  # before `_polls` is looked at
        self._dozes = self._dozes and self._polls
        return self._dozes

    def withdraw(self) -> bool:
        """The connection ends; whether a bot's thread was broken off. Takes the lock itself."""
        with self.lock:
            self._withdraw()
            was_broken_off, self._in_midst, self._error = self._in_midst, False, None
            self.left_some = False
        return was_broken_off

    def _withdraw(self) -> None:
        self._followed = ()
        offer, self._offer = self._offer, None
        if offer is not None:
            offer.inbox.bell()  # it may wait for what will not come this way any more

    # For bots' threads.

    def wait(self, inbox: Inbox, bell: Bell, portion: Portion, timeout: float) -> list[Item] | None:
        """Wait until the inbox's bell is rung, and read meanwhile where that is on offer.

        What was read, nothing where it was rung, None where neither was in time.
        """
        until = monotonic() + timeout
        left, looked = timeout, False
        while not bell.was_rung():
            if looked and (left := until - monotonic()) <= 0:
                return None
            offer = self._offer
            # By the engine; or by a thread too many, or this one, and a signal's handler has come
            # between.
            is_taken = self.left_some or self._polls or self._in_midst
            if is_taken or offer is None or offer.inbox is not inbox:
                return [] if bell.wait(left) else None
            looked = True
            if self._is_readable(offer, bell, left) and (taken := self._hear(offer, portion)):
                self._wake_dozing()
                return taken
        self._wake_dozing()
        return []

    def wake(self) -> None:
        """The bell was rung: also for who polls."""
        if self._polls and self._ends is not None:
            try:
                self._ends[1].send(b"!")
            except OSError:
                pass  # rung often enough to fill it, or the client is closed

    def is_mine(self) -> bool:
        """Whether this very thread reads, and is in the hands of a signal's handler."""
        return self._reader == get_ident()

    def _is_readable(self, offer: _Offer, bell: Bell, left: float) -> bool:
        self._visits += 1
        self._polls = True
        try:
            if self._offer is not offer or bell.is_rung:
                return False
            ready = offer.poll(ceil(1e3 * max(0.0, min(SIGNAL_SEEN_WITHIN_S, left))))
        finally:
            self._polls = False
        if len(ready) == 1 and ready[0][0] != offer.ear:
            return True
        if ready and self._ends is not None:
            try:
                self._ends[0].recv(4096)
            except OSError as error:
                if is_of_handler(error):
                    raise
        return len(ready) == 2

    def _hear(self, offer: _Offer, portion: Portion) -> list[Item]:
        taken: list[Item] = []
        with self.lock:
            if self._offer is not offer or self._in_midst:
                return taken
            self._in_midst = True
            self._reader = get_ident()
            try:
                self.left_some = not offer.hear()
                taken = portion.hold_own(offer.inbox)
            except (LinkEnded, hiredis.HiredisError) as error:
                self._error, self._offer = error, None
            finally:
                self._reader = 0
            self._in_midst = False
            # Of more than a piece each may have one half of the work.
            needs_engine = self.left_some or self._error is not None or self._session.has_work
        if needs_engine:
            self._ring()
        return taken

    def _wake_dozing(self) -> None:
        if self._dozes:
            self._dozes = False
            self._ring()
