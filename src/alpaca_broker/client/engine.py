"""The listening thread: connects, reads, asks, and connects again, until it is closed.

Owns the thread and its two connections, one that hears and one that asks. Everything it knows is
the session's, which only this thread changes; bots' threads reach it by way of a bell. A frozen
Redis shows in a ping that is not answered, for an open connection alone says nothing.
"""

from __future__ import annotations

import logging
import os
import random
import re
import socket
import time
from collections import deque
from contextlib import closing
from secrets import token_hex
from selectors import EVENT_READ, EVENT_WRITE, DefaultSelector
from threading import Lock, Thread, current_thread
from time import monotonic
from typing import TYPE_CHECKING, Any

import hiredis
import msgspec
from redis import Redis, RedisError

from alpaca_broker import client
from alpaca_broker.client import updates
from alpaca_broker.client.inbox import Inbox
from alpaca_broker.client.link import Link, LinkEnded
from alpaca_broker.client.place import Place, advice, find_place
from alpaca_broker.client.seam import Seam
from alpaca_broker.client.session import Answered, Session
from alpaca_broker.client.subscription import Counters, Subscription
from alpaca_broker.client.wishes import Wishes
from alpaca_broker.core.backoff import Patience
from alpaca_broker.core.channels import Channels
from alpaca_broker.core.feeds import Topic
from alpaca_broker.errors import BusError, UsageError

if TYPE_CHECKING:
    from alpaca_broker.settings import RedisTarget

log = logging.getLogger("alpaca_broker.client")

LOOK_EVERY_S = 0.2
SILENT_FOR_S = 2.0  # heartbeats come every second; then a ping...
PONG_WITHIN_S = 2.0  # ...which must be answered in this time
FAREWELL_WITHIN_S = 1.0
PIECES_AT_ONCE = 16

_BOT_ID = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What a client is told; see `Client`."""

    url: str | None
    target: RedisTarget | None
    host: str | None
    port: int
    prefix: str | None
    bot_id: str | None
    account_id: str | None
    ttl: float
    register: bool
    queue: int


class Engine:
    """One client's connections and what it knows."""

    def __init__(self, options: Options) -> None:
        """Start the thread, which connects in the background.

        Raises:
            ConfigError: a setting is wrong.
            UsageError: an option is.
        """
        self.bot_id = options.bot_id or _invented_bot_id()
        if not _BOT_ID.match(self.bot_id):
            raise UsageError(f"a bot_id is 1 to 64 of A-Z a-z 0-9 . _ -, not {self.bot_id!r}")
        if not 5 <= options.ttl <= 86_400:
            raise UsageError(f"ttl is 5 to 86400 seconds, not {options.ttl}")
        if options.queue < 10:
            raise UsageError(f"a queue holds at least 10, not {options.queue}")
        self.account_id, self._queue = options.account_id, options.queue
        self.place: Place = find_place(
            options.url, options.target, options.host, options.port, options.prefix
        )
        self.channels = Channels(self.place.prefix)
        reply_to = f"{self.place.prefix}reply:{self.bot_id}"
        wishes = Wishes(self.bot_id, reply_to, options.ttl, register=options.register)
        accounts = (options.account_id,) if options.account_id else ()
        self.session = Session(self.channels, wishes, reply_to, accounts)
        self._lock = Lock()  # guards what follows, which bots' threads write
        self._wanted: tuple[Subscription, ...] = ()
        self._closing = False
        self._past = Counters()  # of consumers that have gone
        self._redis: Redis | None = None
        self._bell, ear = socket.socketpair()
        self._bell.setblocking(False)
        ear.setblocking(False)
        self._trouble: str | None = None
        self._run_id: str | None = None  # of the Redis we were connected to last
        self._was_cut = False
        # A daemon: a bot that ends without close() must not hang.
        self._thread = Thread(None, self._run, "alpaca-broker-client", (ear,), daemon=True)
        self._thread.start()

    # For bots' threads.

    def subscribe(
        self,
        symbols: frozenset[str] = frozenset(),
        seam: Seam | None = None,
        *,
        others: frozenset[Topic] = frozenset(),
        gaps: bool = True,
    ) -> Subscription:
        """A new consumer; with neither symbols, other kinds of data nor a seam, of gaps alone."""
        inbox = Inbox(self._queue, conflates=seam is None)
        inbox.on_room = self.ring
        subscription = Subscription(inbox, symbols=symbols, others=others, seam=seam, gaps=gaps)
        with self._lock:
            if self._closing:
                raise UsageError("the client is closed")
            self._wanted = (*self._wanted, subscription)
        self.ring()
        return subscription

    def drop(self, subscription: Subscription) -> None:
        """A consumer has gone; may be called again."""
        with self._lock:
            if subscription not in self._wanted:
                return
            self._wanted = tuple(s for s in self._wanted if s is not subscription)
            self._past.delivered += subscription.inbox.delivered
            self._past.conflated += subscription.inbox.conflated
        subscription.inbox.close()
        self.ring()

    def counters(self) -> Counters:
        """What was counted so far, as a value."""
        with self._lock:
            inboxes = [s.inbox for s in self._wanted]
            delivered, conflated = self._past.delivered, self._past.conflated
        return msgspec.structs.replace(
            self.session.counters,
            delivered=delivered + sum(inbox.delivered for inbox in inboxes),
            conflated=conflated + sum(inbox.conflated for inbox in inboxes),
            waiting=sum(map(len, inboxes)),
        )

    def is_ready(self) -> bool:
        """Whether everything that is wanted is subscribed to and acknowledged or refused."""
        return self._wanted is self.session.subscriptions and self.session.is_ready(monotonic())

    def last(self, symbol: str) -> updates.PriceUpdate | None:
        """The last price of a symbol, as `price:last` has it or as it was heard since.

        Raises:
            BusError: Redis is unreachable or refused.
        """
        with self._lock:
            if self._redis is None:
                self._redis = self.place.redis("alpaca-broker:bot")
            redis = self._redis
        try:
            payload: Any = redis.hget(self.channels.last, symbol)
        except (RedisError, OSError) as error:
            raise BusError(self.place.where, advice(error)) from error
        kept = updates.price(payload) if payload is not None else None
        track = self.session.tracks.get(symbol)
        if track is None or (heard := track.last) is None or track.in_doubt:
            return kept
        if kept is None or (heard.epoch, heard.seq) > (kept.epoch, kept.seq):
            return heard if heard.epoch == self.session.epoch else kept
        return kept

    def ring(self) -> None:
        """Wake the listening thread."""
        try:
            self._bell.send(b"!")
        except OSError:
            pass  # rung often enough to fill it, or the thread has ended

    def request_close(self) -> None:
        """Unregister and end; may be called again, and from any thread."""
        with self._lock:
            self._closing = True
            wanted = self._wanted
        for subscription in wanted:
            subscription.inbox.close()  # nobody waits until the thread has ended
        self.ring()

    def close(self, within_s: float = 10.0) -> None:
        """Unregister, end the thread and wait for it; may be called again."""
        self.request_close()
        with self._lock:
            redis, self._redis = self._redis, None
        if redis is not None:
            redis.close()
        if self._thread is not current_thread():
            self._thread.join(within_s)

    # Below: the listening thread.

    def _run(self, ear: socket.socket) -> None:
        patience = Patience(random.uniform, first=0.05, ceiling=2.0, settled=5.0)
        try:
            while not self._closing:
                began = monotonic()
                try:
                    self._live(ear)
                except (RedisError, OSError, hiredis.HiredisError) as error:
                    self._is_down(error)
                except Exception:
                    log.exception("listening failed, which is a mistake of ours; trying again")
                self.session.link_down()
                self._pause(ear, patience.after(monotonic() - began))
        finally:
            ear.close()
            self._bell.close()

    def _live(self, ear: socket.socket) -> None:
        """One connection's life; returns when the client is closed."""
        hears, asks = (
            self.place.redis(f"alpaca-broker:{self.bot_id}:{what}") for what in ("hears", "asks")
        )
        with closing(Link(hears)) as hearing, closing(Link(asks)) as asking:
            self._is_up(hearing.run_id)
            _Conversation(self, hearing, asking, ear).hold()

    def _is_up(self, run_id: str) -> None:
        if self._run_id is not None:
            cut = self._was_cut and run_id == self._run_id
            self.session.may_have_missed("cut by redis" if cut else "reconnect")
        self._run_id, self._was_cut = run_id, False
        if self._trouble is not None:
            self._trouble = None
            log.info("Redis at %s is back", self.place.where)
        self.session.link_up()

    def _is_down(self, error: Exception) -> None:
        self._was_cut = isinstance(error, LinkEnded) and error.by_peer
        trouble = str(error) if isinstance(error, LinkEnded) else advice(error)
        if trouble != self._trouble and not self._closing:
            log.warning("Redis at %s: %s; trying again", self.place.where, trouble)
        self._trouble = trouble

    def _pause(self, ear: socket.socket, seconds: float) -> None:
        until = monotonic() + seconds
        with DefaultSelector() as selector:
            selector.register(ear, EVENT_READ)
            while not self._closing and (left := until - monotonic()) > 0:
                self.look()
                if selector.select(min(left, LOOK_EVERY_S)):
                    ear.recv(4096)

    def look(self) -> None:
        """Follow what is wanted, and do what is due."""
        if self._wanted is not self.session.subscriptions:
            self.session.follow(self._wanted)
        self.session.tick(monotonic(), time.time())

    @property
    def is_closing(self) -> bool:
        """Whether the client is to be closed."""
        return self._closing


class _Conversation:
    """Two open connections, until one of them ends or the client is closed."""

    def __init__(self, engine: Engine, hearing: Link, asking: Link, ear: socket.socket) -> None:
        self._engine, self._session = engine, engine.session
        self._hearing, self._asking, self._ear = hearing, asking, ear
        self._asked: deque[tuple[float, Answered | None]] = deque()
        self._heard_at, self._pinged_at = monotonic(), 0.0

    def hold(self) -> None:
        """Talk until the client is closed.

        Raises:
            LinkEnded: a connection ended, or shows no life.
        """
        with DefaultSelector() as selector:
            for end in (self._hearing, self._asking, self._ear):
                selector.register(end, EVENT_READ)
            while not self._engine.is_closing:
                self._engine.look()
                self._send()
                self._watch(monotonic())
                for link in (self._hearing, self._asking):
                    writes = EVENT_WRITE if link.wants_to_write else 0
                    if selector.get_key(link).events != EVENT_READ | writes:
                        selector.modify(link, EVENT_READ | writes)
                for key, events in selector.select(LOOK_EVERY_S):
                    self._serve(key.fileobj, events)
        self._say_farewell()

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
        hearing, session = self._hearing, self._session
        for _ in range(PIECES_AT_ONCE):
            if not hearing.read():
                break
            now = monotonic()
            self._heard_at, self._pinged_at = now, 0.0
            session.hear(hearing.gets, now, time.time())
            session.delivery.hand_over()
            if not hearing.has_more:
                break

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


def _invented_bot_id() -> str:
    host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:32] or "bot"
    return f"{host}-{os.getpid()}-{token_hex(4)}"
