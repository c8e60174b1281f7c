"""Say something on a channel, hear what is said there: no more than that.

Owns a bot's two connections to Redis and nothing of what the messages mean. Channels are named
without the deployment's prefix, which goes before them on the wire. A publisher tells its caller
what failed; a subscriber tells its logger and goes on for ever. Plain pub/sub: what is said while
Redis is away is not heard. (Long for a module, so that a bot's whole way to Redis is one page.)
"""

from __future__ import annotations

import inspect
import json
import logging
import random
from collections.abc import Callable
from selectors import EVENT_READ, DefaultSelector
from socket import socket, socketpair
from threading import Condition, Thread, current_thread
from time import monotonic
from typing import TYPE_CHECKING, Any

from redis import Redis, RedisError
from redis import TimeoutError as RedisTimeoutError

from alpaca_broker import client
from alpaca_broker.client.place import Place, advice, from_settings
from alpaca_broker.core.backoff import Patience
from alpaca_broker.core.channels import Channels
from alpaca_broker.errors import BusError, UsageError

if TYPE_CHECKING:
    from typing import Self

    from alpaca_broker.settings import RedisTarget

__all__ = ["CHANNELS", "Handler", "RedisPublisher", "RedisSubscriber"]

log = logging.getLogger("alpaca_broker.client")

Handler = Callable[[dict[str, Any]], object]

SUBSCRIBED_WITHIN_S = 5.0
HANDLER_ENDS_WITHIN_S = 10.0
COMPLAIN_EVERY_S = 1.0

_NAMES = Channels()


class CHANNELS:
    """The names of the channels, as `publish` and `subscribe` take them."""

    BROKER_REGISTRATION = _NAMES.registration
    BROKER_LOGS = _NAMES.logs
    BROKER_STATUS = _NAMES.status

    price = staticmethod(_NAMES.price)
    order = staticmethod(_NAMES.order)


class RedisPublisher:
    """Says messages on channels; may be used from several threads.

    Where Redis is and the prefix come from the settings, unless they are given.
    """

    def __init__(self, target: RedisTarget | None = None, *, prefix: str | None = None) -> None:
        """Nothing is opened yet.

        Raises:
            ConfigError: a setting is wrong.
        """
        self._place = _place(target, prefix)
        self._redis = self._place.redis("alpaca-broker:publisher")

    def publish(self, channel: str, message: dict[str, Any]) -> int:
        """Say `message` on `channel`, at most once; how many listeners Redis handed it to.

        Raises:
            UsageError: the channel has no name, or the message cannot be written as JSON.
            BusError: Redis is unreachable or refused; the text says what to look at.
        """
        payload = _encoded(message)
        try:
            return int(self._redis.publish(self._place.prefix + _checked(channel), payload))
        except (RedisError, OSError) as error:
            raise BusError(self._place.where, advice(error)) from error

    def close(self) -> None:
        """Close its connections; may be called again."""
        self._redis.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class RedisSubscriber:
    """Hands what is said on channels to handlers, one message after the other, in a thread.

    `subscribe`, `unsubscribe` and `close` may be called from any thread, handlers included. When
    Redis goes away it is tried again for ever, and every channel is subscribed to again.
    """

    def __init__(self, target: RedisTarget | None = None, *, prefix: str | None = None) -> None:
        """Nothing is opened yet.

        Raises:
            ConfigError: a setting is wrong.
        """
        self._place = _place(target, prefix)
        self._changed = Condition()  # guards all below; written by any thread...
        self._handlers: dict[str, tuple[Handler, ...]] = {}
        self._wanted: frozenset[str] = frozenset()
        self._closed = False
        self._thread: Thread | None = None
        self._bell: socket | None = None
        self._confirmed: frozenset[str] = frozenset()  # ...and these by the listening one only
        self._trouble: str | None = None
        self._skipped, self._complained_at = 0, float("-inf")

    def subscribe(self, channel: str, handler: Handler) -> None:
        """Call `handler` with every message of `channel`; the same handler at most once.

        While listening, returns when Redis has confirmed, so that nothing said from then on is
        missed; when Redis is away it returns at once, and is made up for.

        Raises:
            UsageError: `channel` or `handler` cannot be used, or the subscriber is closed.
        """
        name = self._place.prefix + _checked(channel)
        if not callable(handler) or inspect.iscoroutinefunction(handler):
            raise UsageError(f"the handler of {channel} must be a plain function, not {handler!r}")
        with self._changed:
            if self._closed:
                raise UsageError("the subscriber is closed")
            known = self._handlers.get(name, ())
            if handler not in known:
                self._want({**self._handlers, name: (*known, handler)})
            self._wait_until_told(frozenset({name}))

    def unsubscribe(self, channel: str, handler: Handler | None = None) -> None:
        """No longer call `handler`, or any handler, for `channel`; may be called again."""
        name = self._place.prefix + _checked(channel)
        with self._changed:
            known = self._handlers.get(name, ())
            left = tuple(h for h in known if h != handler) if handler is not None else ()
            others = {n: handlers for n, handlers in self._handlers.items() if n != name}
            self._want(others | ({name: left} if left else {}))

    def start_listening(self) -> None:
        """Listen in a background thread; may be called again.

        Returns when Redis has confirmed the channels; when Redis is away it returns at once, and
        the thread goes on trying.

        Raises:
            UsageError: the subscriber is closed.
        """
        with self._changed:
            if self._closed:
                raise UsageError("the subscriber is closed")
            if self._thread is None:
                self._bell, ear = socketpair()
                self._bell.setblocking(False)
                # A daemon: a bot that ends without close() must not hang.
                thread = Thread(None, self._listen, "redis-subscriber", (ear,), daemon=True)
                thread.start()
                self._thread = thread
            self._wait_until_told(self._wanted)

    def close(self) -> None:
        """Stop listening and wait until the thread has ended; may be called again.

        A handler that runs has ten seconds to end; from within a handler nothing is waited for.
        """
        with self._changed:
            self._closed = True
            self._ring()
            self._changed.notify_all()
            thread = self._thread
        if thread is None or thread is current_thread():
            return
        thread.join(HANDLER_ENDS_WITHIN_S)
        if thread.is_alive():
            log.warning("a handler does not end: the listening thread is left behind")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _want(self, handlers: dict[str, tuple[Handler, ...]]) -> None:
        self._handlers = handlers
        if handlers.keys() != self._wanted:
            self._wanted = frozenset(handlers)
            self._ring()

    def _ring(self) -> None:
        """Wake the listening thread, which may be waiting for Redis."""
        if self._bell is not None:
            try:
                self._bell.send(b"!")
            except OSError:
                pass  # rung often enough to fill it, or the thread has ended

    def _wait_until_told(self, names: frozenset[str]) -> None:
        if self._thread is None or self._thread is current_thread():
            return  # nobody to wait for, or it would be ourselves
        self._changed.wait_for(
            lambda: names <= self._confirmed or self._trouble is not None or self._closed,
            SUBSCRIBED_WITHIN_S,
        )

    # Below: the listening thread.

    def _listen(self, ear: socket) -> None:
        patience = Patience(random.uniform, first=0.2, ceiling=5.0, settled=10.0)
        with ear:
            while not self._closed:
                began = monotonic()
                try:
                    with self._place.redis("alpaca-broker:subscriber") as redis:
                        self._converse(redis, ear)
                except (RedisError, OSError) as error:
                    self._is_down(advice(error))
                except Exception:
                    log.exception("listening failed, which is a mistake of ours; trying again")
                    self._is_down("listening failed")
                pause = patience.after(monotonic() - began)
                with self._changed:
                    self._changed.wait_for(lambda: self._closed, pause)
        with self._changed:
            if self._bell is not None:
                self._bell.close()

    def _converse(self, redis: Redis, ear: socket) -> None:
        """One connection's life: ask for what is wanted, hand out what comes."""
        connection: Any = redis.connection_pool.get_connection()
        told: frozenset[str] = frozenset()
        confirmed: set[str] = set()
        news, pinged, deadline = True, False, monotonic() + client.SILENT_FOR_S
        with DefaultSelector() as selector:
            # redis-py can only wait for Redis, and we also wait for our own bell.
            selector.register(connection._get_socket(), EVENT_READ)
            selector.register(ear, EVENT_READ)
            while not self._closed:
                told = self._tell(connection, told)
                if connection.can_read(0):
                    news |= self._take(connection.read_response(), confirmed)
                    # The clock is read after the handlers: their time is not Redis' silence.
                    pinged, deadline = False, monotonic() + client.SILENT_FOR_S
                    continue
                if news:
                    self._is_up(confirmed)
                    news = False
                now = monotonic()
                if now >= deadline:
                    if pinged:
                        raise RedisTimeoutError("no answer to a ping")
                    connection.send_command("PING")
                    pinged, deadline = True, now + client.ANSWER_WITHIN_S
                for key, _ in selector.select(deadline - now):
                    if key.fileobj is ear:
                        ear.recv(4096)

    def _tell(self, connection: Any, told: frozenset[str]) -> frozenset[str]:
        wanted = self._wanted
        if wanted is not told:
            if new := wanted - told:
                connection.send_command("SUBSCRIBE", *new)
            if gone := told - wanted:
                connection.send_command("UNSUBSCRIBE", *gone)
        return wanted

    def _take(self, answer: Any, confirmed: set[str]) -> bool:
        """Deal with one answer; whether it changed what is confirmed."""
        match answer:
            case [b"message", channel, payload]:
                self._hand_out(channel.decode(), payload)
                return False
            case [b"subscribe", channel, _]:
                confirmed.add(channel.decode())
            case [b"unsubscribe", channel, _]:
                confirmed.discard(channel.decode())
            case _:
                return False  # the answer to a ping
        return True

    def _hand_out(self, name: str, payload: bytes) -> None:
        handlers = self._handlers.get(name, ())
        for handler in handlers:
            # Decoded anew for each: what one changes, the other must not see.
            try:
                message = json.loads(payload)
            except (ValueError, RecursionError):
                message = None
            if not isinstance(message, dict):
                self._skip(name, payload)
                return
            try:
                handler(message)
            except (Exception, SystemExit):
                log.exception("a handler of %s failed: %r", name, handler)

    def _skip(self, name: str, payload: bytes) -> None:
        self._skipped += 1
        now = monotonic()
        if now - self._complained_at >= COMPLAIN_EVERY_S:
            text = "%d skipped that are no JSON objects, the last on %s: %.100r"
            log.warning(text, self._skipped, name, payload)
            self._skipped, self._complained_at = 0, now

    def _is_up(self, confirmed: set[str]) -> None:
        """All that Redis had to say is read: let those go on who wait for their channels."""
        with self._changed:
            self._confirmed = frozenset(confirmed)
            if self._trouble is not None and self._wanted <= self._confirmed:
                self._trouble = None
                log.info("Redis at %s is back: listening again", self._place.where)
            self._changed.notify_all()

    def _is_down(self, trouble: str) -> None:
        with self._changed:
            self._confirmed = frozenset()
            if trouble != self._trouble and not self._closed:
                log.warning("Redis at %s: %s; trying again", self._place.where, trouble)
            self._trouble = trouble
            self._changed.notify_all()


def _place(target: RedisTarget | None, prefix: str | None) -> Place:
    target, prefix = from_settings(target, prefix)
    return Place(target.where, prefix, target=target)


def _checked(channel: str) -> str:
    if not isinstance(channel, str) or not channel or not channel.isprintable():
        raise UsageError(f"a channel is a text such as price:AAPL, not {channel!r}")
    if "*" in channel:
        raise UsageError(f"{channel} is a pattern: name each channel by itself")
    return channel


def _encoded(message: dict[str, Any]) -> bytes:
    if not isinstance(message, dict):
        raise UsageError(f"a message is a dict, not {type(message).__name__}")
    try:
        return json.dumps(message, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"the message cannot be written as JSON: {error}") from error
