"""The listening thread: connects, reads, asks, and connects again, until it is closed.

Owns the thread, what is wanted, and when to connect; `conversation.py` is a connection's life. What
it knows is the session's, which this thread changes, and the one of a bot that waits and reads in
its place (`lending.py`); bots' threads reach it by way of a bell.
"""

from __future__ import annotations

import logging
import os
import random
import re
import socket
import time
from contextlib import closing
from secrets import token_hex
from selectors import EVENT_READ, DefaultSelector
from threading import Lock, Thread, current_thread
from time import monotonic
from typing import TYPE_CHECKING, Any

import hiredis
import msgspec
from redis import Redis, RedisError

from alpaca_broker.client import updates
from alpaca_broker.client.conversation import LOOK_EVERY_S, Conversation
from alpaca_broker.client.inbox import Inbox
from alpaca_broker.client.lending import BrokenOff, Lending
from alpaca_broker.client.link import Link, LinkEnded, is_of_handler
from alpaca_broker.client.place import Place, advice, find_place
from alpaca_broker.client.seam import Seam
from alpaca_broker.client.session import Session
from alpaca_broker.client.subscription import Counters, Subscription
from alpaca_broker.client.wishes import Wishes
from alpaca_broker.core.backoff import Patience
from alpaca_broker.core.channels import Channels
from alpaca_broker.core.feeds import Topic
from alpaca_broker.errors import BusError, UsageError

if TYPE_CHECKING:
    from alpaca_broker.settings import RedisTarget

log = logging.getLogger("alpaca_broker.client")

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
        reply_to = self.channels.reply(self.bot_id)
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
        self.lending = Lending(self.session, self.ring)
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
        except OSError as error:
            if is_of_handler(error):
                raise
            # Else it is rung often enough to fill it, or the thread has ended.

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
        # One that reads, and whose signal's handler this is, would wait for itself.
        if self._thread is not current_thread() and not self.lending.is_mine():
            self._thread.join(within_s)

    @property
    def has_ended(self) -> bool:
        """Whether the thread has."""
        return not self._thread.is_alive()

    # Below: the listening thread.

    def _run(self, ear: socket.socket) -> None:
        patience = Patience(random.uniform, first=0.05, ceiling=2.0, settled=5.0)
        again = False
        try:
            while again or not self._closing:
                began = monotonic()
                try:
                    if again:
                        again = False
                        self.session.mend()
                    self._live(ear)
                except BrokenOff:
                    again = True  # also to say farewell, for it mostly was Ctrl-C
                except (RedisError, OSError, hiredis.HiredisError) as error:
                    self._is_down(error)
                except Exception:
                    log.exception("listening failed, which is a mistake of ours; trying again")
                self.session.link_down()
                if not again:
                    self._pause(ear, patience.after(monotonic() - began))
        finally:
            self.lending.close()
            ear.close()
            self._bell.close()

    def _live(self, ear: socket.socket) -> None:
        """One connection's life; returns when the client is closed."""
        hears, asks = (
            self.place.redis(f"alpaca-broker:{self.bot_id}:{what}") for what in ("hears", "asks")
        )
        with closing(Link(hears)) as hearing, closing(Link(asks)) as asking:
            self._is_up(hearing.run_id)
            Conversation(self, hearing, asking, ear).hold()

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


def _invented_bot_id() -> str:
    host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:32] or "bot"
    return f"{host}-{os.getpid()}-{token_hex(4)}"
