"""Two open connections to Redis, one that hears and one that asks, as long as both last.

Owns what was asked and not answered yet, and when something was heard last: a frozen Redis shows in
a ping that is not answered. Belongs to the engine's thread; only a piece of what is heard may be
read in another's, see `lending.py`.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from selectors import EVENT_READ, EVENT_WRITE, BaseSelector, DefaultSelector, SelectorKey
from time import monotonic
from typing import TYPE_CHECKING, Any

import msgspec

from alpaca_broker import client
from alpaca_broker.client.lending import AWAY_S, BrokenOff
from alpaca_broker.client.link import Link, LinkEnded

if TYPE_CHECKING:
    import socket

    from alpaca_broker.client.engine import Engine
    from alpaca_broker.client.session import Answered

log = logging.getLogger("alpaca_broker.client")

LOOK_EVERY_S = 0.2
SILENT_FOR_S = 2.0  # heartbeats come every second; then a ping...
PONG_WITHIN_S = 2.0  # ...which must be answered in this time
FAREWELL_WITHIN_S = 1.0
PIECES_AT_ONCE = 16


class Conversation:
    """Two open connections, until one of them ends or the client is closed."""

    def __init__(self, engine: Engine, hearing: Link, asking: Link, ear: socket.socket) -> None:
        self._engine, self._session, self._lending = engine, engine.session, engine.lending
        self._hearing, self._asking, self._ear = hearing, asking, ear
        self._asked: deque[tuple[float, Answered | None]] = deque()
        self._heard_at, self._pinged_at = monotonic(), 0.0

    def hold(self) -> None:
        """Talk until the client is closed.

        Raises:
            LinkEnded: a connection ended, or shows no life.
            BrokenOff: a bot's thread was, that read in our place.
        """
        try:
            self._talk()
        finally:
            if self._lending.withdraw():
                raise BrokenOff
        self._say_farewell()

    def _talk(self) -> None:
        ready: list[tuple[SelectorKey, int]] = []
        with DefaultSelector() as selector:
            for end in (self._hearing, self._asking, self._ear):
                selector.register(end, EVENT_READ)
            while not self._engine.is_closing:
                with self._lending.lock:
                    self._lending.check()
                    for key, events in ready:
                        self._serve(key.fileobj, events)
                    self._engine.look()
                    self._send()
                    now = monotonic()
                    self._watch(now)
                    self._lending.arrange(self._hearing, self._hear_piece)
                    is_lent = self._lending.leaves_out(now)
                    self._select(selector, self._hearing, reads=not is_lent)
                    self._select(selector, self._asking)
                    soon = is_lent and not self._lending.may_doze(now - self._heard_at)
                ready = selector.select(AWAY_S if soon else LOOK_EVERY_S)

    def _select(self, selector: BaseSelector, link: Link, *, reads: bool = True) -> None:
        wanted = (EVENT_READ if reads else 0) | (EVENT_WRITE if link.wants_to_write else 0)
        key = selector.get_map().get(link)
        if key is None and wanted:
            selector.register(link, wanted)
        elif key is not None and not wanted:
            selector.unregister(link)
        elif key is not None and key.events != wanted:
            selector.modify(link, wanted)

    def _serve(self, end: Any, events: int) -> None:
        if end is self._ear:
            self._ear.recv(4096)
            return
        if events & EVENT_WRITE:
            end.write()
        if events & EVENT_READ and end is self._hearing:
            self._hear()
        elif events & EVENT_READ:
            self._take_answers()

    def _hear(self) -> None:
        for _ in range(PIECES_AT_ONCE):
            was_all = self._hear_piece()
            self._session.delivery.hand_over()
            self._lending.left_some = not was_all
            if was_all:
                break

    def _hear_piece(self) -> bool:
        """Hear a piece; whether that was all. Also in the thread of a bot that waits."""
        hearing, session = self._hearing, self._session
        if not hearing.read():
            return True
        now = monotonic()
        self._heard_at, self._pinged_at = now, 0.0
        session.hear(hearing.gets, now, time.time())
        return not hearing.has_more

    def _take_answers(self) -> None:
        asking = self._asking
        while asking.read():
            while (answer := asking.gets()) is not False:
                _, take = self._asked.popleft()
                if isinstance(answer, Exception):
                    log.warning("Redis refused: %s", answer)
                if take is not None:
                    take(answer)
            if not asking.has_more:
                break
        self._session.delivery.hand_over()

    def _send(self) -> None:
        session = self._session
        for words in session.to_hear:
            self._hearing.send(*words)
        session.to_hear.clear()
        now = monotonic()
        for command, take in session.to_ask:
            self._asked.append((now, take))
            self._asking.send(*command)
        session.to_ask.clear()

    def _watch(self, now: float) -> None:
        """Ping where nothing is heard; give up where nothing answers."""
        if self._asked and now - self._asked[0][0] > client.ANSWER_WITHIN_S:
            raise LinkEnded("no answer in time", by_peer=False)
        if now - self._heard_at <= SILENT_FOR_S:
            return
        if not self._pinged_at:
            self._pinged_at = now
            self._hearing.send("PING", "alive?")
        elif now - self._pinged_at > PONG_WITHIN_S:
            raise LinkEnded("no answer to a ping", by_peer=False)

    def _say_farewell(self) -> None:
        session = self._session
        for message in session.wishes.farewell():
            payload = msgspec.json.encode(message).decode()
            session.to_ask.append((("PUBLISH", session.channels.registration, payload), None))
        self._send()
        until = monotonic() + FAREWELL_WITHIN_S
        with DefaultSelector() as selector:
            selector.register(self._asking, EVENT_READ)
            while self._asked and (left := until - monotonic()) > 0:
                if self._asking.wants_to_write:
                    self._asking.write()
                if selector.select(min(left, LOOK_EVERY_S)):
                    self._take_answers()
