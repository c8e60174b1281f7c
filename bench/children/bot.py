"""Bots that measure what they are handed: the library's `Client`, and redis-py's `listen()`.

Owns one bot at a time: `time` notes how old each price is in the bot's hands, `receive` how fast so
many can be taken, `orders` how old order events are, `watch` how old the newest price of each
symbol gets.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import hiredis
import msgspec
import redis

from alpaca_broker.bus.pipe import command
from alpaca_broker.client import Client
from bench.children.lines import answer, leave
from bench.figures import Times
from bench.frames import symbols

READY_WITHIN_S = 20.0
READ_BYTES = 256 * 1024


class Price(msgspec.Struct):
    """What `watch` reads of a price."""

    symbol: str
    timestamp: float
    skipped: int = 0


class Bot:
    """What it has heard, filled by one thread at a time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._ages: list[float] = []
        self._count, self._began, self._ended = 0, 0.0, 0.0
        self._skipped = 0
        self._ready = threading.Event()

    def time(self, kind: str, names: int, prefix: str) -> dict[str, Any]:
        """Note the age of every price from now on."""
        take = self._ages_of_client if kind == "client" else self._ages_of_listen
        return self._start(take, symbols(names), prefix)

    def timed(self) -> dict[str, Any]:
        """The ages since the last time."""
        ages, self._ages = self._ages, []
        return {"times": Times.of(ages).as_json(), "count": len(ages)}

    def orders(self, account: str, prefix: str) -> dict[str, Any]:
        """Note the age of every order event of an account."""
        return self._start(self._ages_of_orders, [account], prefix)

    def watch(self, names: int, prefix: str) -> dict[str, Any]:
        """Note how old the newest price of each symbol is at the worst: when the next comes."""
        return self._start(self._staleness, symbols(names), prefix)

    def watched(self) -> dict[str, Any]:
        """The staleness since the last time; prices heard and skipped in all."""
        return self.timed() | {"heard": self._count, "skipped": self._skipped}

    def receive(self, kind: str, names: int, first: int, count: int, prefix: str) -> dict[str, Any]:
        """Take `count` prices of symbols from the `first` on; `received` tells how fast."""
        self._count = 0
        takers = {
            "client": lambda n, p: self._take_client(n, p, count, plain=False),
            "plain": lambda n, p: self._take_client(n, p, count, plain=True),
            "listen": lambda n, p: self._take_listen(n, p, count),
        }
        self._began = self._ended = 0.0
        return self._start(takers[kind], symbols(first + names)[first:], prefix)

    def received(self) -> dict[str, Any]:
        """How many came, in which time; `seconds` is 0 while more are to come."""
        seconds = self._ended - self._began if self._ended else 0.0
        return {"count": self._count, "seconds": seconds}

    def _start(
        self, take: Callable[[list[str], str], None], names: list[str], prefix: str
    ) -> dict[str, Any]:
        self._ready.clear()
        threading.Thread(target=take, args=(names, prefix), name="bot", daemon=True).start()
        return {"ready": self._ready.wait(READY_WITHIN_S)}

    def _client(self, prefix: str, *, plain: bool = False, queue: int = 10_000) -> Client:
        return Client(
            host="127.0.0.1",
            port=self._port,
            prefix=prefix,
            bot_id="bench",
            plain=plain,
            queue=queue,
        )

    def _ages_of_client(self, names: list[str], prefix: str) -> None:
        with self._client(prefix) as client:
            prices = client.prices(*names, gaps=False)
            client.wait_ready(READY_WITHIN_S)
            self._ready.set()
            for update in prices:
                self._ages.append(time.time() - update.timestamp)

    def _listened(self, channels: list[str]) -> Iterator[Any]:
        server: Any = redis.Redis(port=self._port)  # whose pubsub() has no types
        pubsub = server.pubsub(ignore_subscribe_messages=True)
        pubsub.subscribe(*channels)
        for _ in channels:
            pubsub.get_message(timeout=5)
        self._ready.set()
        for message in pubsub.listen():
            yield json.loads(message["data"])

    def _ages_of_listen(self, names: list[str], prefix: str) -> None:
        for update in self._listened([f"{prefix}price:{name}" for name in names]):
            self._ages.append(time.time() - update["timestamp"])

    def _ages_of_orders(self, names: list[str], prefix: str) -> None:
        for update in self._listened([f"{prefix}order:{name}" for name in names]):
            self._ages.append(time.time() - update["timestamp"])

    def _staleness(self, names: list[str], prefix: str) -> None:
        # Past redis-py: what is measured is the broker's staleness, so the bot must not be slow.
        link = socket.create_connection(("127.0.0.1", self._port))
        link.sendall(command(b"SUBSCRIBE", *(f"{prefix}price:{name}".encode() for name in names)))
        reader, decode = hiredis.Reader(), msgspec.json.Decoder(Price).decode
        newest: dict[str, float] = {}
        self._ready.set()
        while data := link.recv(READ_BYTES):
            reader.feed(data)
            now, count, skipped = time.time(), 0, 0
            while (reply := reader.gets()) is not False:
                if reply[0] != b"message":
                    continue
                price = decode(reply[2])
                before = newest.get(price.symbol)
                newest[price.symbol] = price.timestamp
                if before is not None:
                    self._ages.append(now - before)
                count, skipped = count + 1, skipped + price.skipped
            self._count, self._skipped = self._count + count, self._skipped + skipped

    def _take_client(self, names: list[str], prefix: str, count: int, *, plain: bool) -> None:
        with self._client(prefix, plain=plain, queue=count + 1) as client:
            prices = client.prices(*names, gaps=False)
            client.wait_ready(READY_WITHIN_S)
            self._ready.set()
            self._take(prices, count)

    def _take_listen(self, names: list[str], prefix: str, count: int) -> None:
        self._take(self._listened([f"{prefix}price:{name}" for name in names]), count)

    def _take(self, prices: Iterator[Any] | Any, count: int) -> None:
        taken = 0
        for _ in prices:
            taken += 1
            if taken == 1:
                self._began = time.monotonic()
            if taken == count:
                break
        self._count, self._ended = taken, time.monotonic()


def main() -> None:
    """`bot.py REDIS_PORT`."""
    bot = Bot(int(sys.argv[1]))
    answer(
        time=bot.time,
        timed=bot.timed,
        orders=bot.orders,
        watch=bot.watch,
        watched=bot.watched,
        receive=bot.receive,
        received=bot.received,
    )
    leave()


if __name__ == "__main__":
    main()
