"""A broker that speaks only the contract, and does what a test tells it to.

Shares the journal's script with the real one, for the script is the contract; nothing else.
"""

from __future__ import annotations

import json
import threading
import time
from types import TracebackType
from typing import Any
from uuid import uuid4

import redis

from alpaca_broker.bus.journal import SCRIPT
from alpaca_broker.core.channels import Channels

ACCOUNT = "6f7b1e0a-0000-4000-8000-0123456789ab"


class FakeBroker:
    """Beats five times a second and answers registrations, until it is left."""

    def __init__(self, port: int, prefix: str = "", *, answers: bool = True) -> None:
        self.channels = Channels(prefix)
        self.epoch = 1_000
        self.feed_state = "live"
        self.beats, self.answers = True, answers
        self.refuses: dict[str, Any] = {}
        self.registrations: list[dict[str, Any]] = []
        self.seqs: dict[str, int] = {}
        self.order_seq, self.journal_id = 0, uuid4().hex[:16]
        self.length = 10_000
        self._redis = redis.Redis(port=port, socket_timeout=60)
        self._listener = redis.Redis(port=port, socket_timeout=60)
        self._script = self._redis.register_script(SCRIPT)
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._beat, name="fake heartbeat"),
            threading.Thread(target=self._answer, name="fake answers"),
        ]

    def price(self, symbol: str, times: int = 1, *, lost: bool = False, **more: Any) -> None:
        """Publish prices; `lost`: they are numbered and snapshotted, but nobody hears them."""
        commands = self._redis.pipeline(transaction=False)
        for _ in range(times):
            seq = self.seqs[symbol] = self.seqs.get(symbol, 0) + 1
            now = round(time.time(), 6)
            update = {"type": "price_update", "symbol": symbol, "price": seq + 0.25}
            update |= {"timestamp": now, "received_at": now, "feed": "iex"}
            payload = json.dumps(update | {"seq": seq, "epoch": self.epoch} | more)
            if not lost:
                commands.publish(self.channels.price(symbol), payload)
            commands.hset(self.channels.last, symbol, payload)
        commands.execute()

    def order(self, order_id: str = "o", status: str = "new", *, account: str = ACCOUNT) -> int:
        """Journal and publish one order event; returns its seq."""
        self.order_seq += 1
        update = {
            "type": "order_update",
            "order_id": order_id,
            "status": status,
            "filled_qty": 0,
            "filled_avg_price": None,
            "side": "buy",
            "timestamp": time.time(),
            "event": status,
            "account_id": account,
            "seq": self.order_seq,
            "journal_id": self.journal_id,
            "epoch": self.epoch,
        }
        channels = self.channels
        keys = [channels.journal(account), channels.open_orders(account), channels.epoch]
        is_open = "0" if status in ("filled", "canceled") else "1"
        key = f"{order_id}|{self.order_seq}"
        payload = json.dumps(update)
        words = [self.epoch, self.order_seq, key, payload, self.length, order_id, is_open, "again"]
        answer = self._script(keys=keys, args=[*words, channels.order(account)])
        assert answer == [b"ok"], answer
        return self.order_seq

    def data(self, channel: str, symbol: str, kind: str, *, lost: bool = False, **more: Any) -> int:
        """Publish any kind of market data; `lost`: it is numbered, but nobody hears it."""
        name = f"{self.channels.prefix}{channel}{symbol}"
        seq = self.seqs[name] = self.seqs.get(name, 0) + 1
        now = round(time.time(), 6)
        update = {"type": kind, "symbol": symbol, "timestamp": now, "received_at": now}
        update |= {"feed": "iex", "seq": seq, "epoch": self.epoch}
        if not lost:
            self._redis.publish(name, json.dumps(update | more))
        return seq

    def gap(self, *symbols: str, **more: Any) -> None:
        """Say that something was missed at Alpaca's."""
        gap = {"type": "gap", "feed": "iex", "from": 1.0, "to": 2.0, "symbols": list(symbols)}
        gap |= {"reason": "the connection was lost", "recovered": False, "epoch": self.epoch}
        self._redis.publish(self.channels.status, json.dumps(gap | more))

    def say(self, channel: str, payload: bytes | dict[str, Any]) -> int:
        """Publish whatever a test wants."""
        data = payload if isinstance(payload, bytes) else json.dumps(payload)
        return int(self._redis.publish(self.channels.prefix + channel, data))

    def restart(self) -> None:
        """As another process would go on: a new epoch, numbers from 1."""
        self.epoch += 1
        self.seqs.clear()

    @property
    def redis(self) -> redis.Redis:
        """The connection, for what a test does to Redis."""
        return self._redis

    def _status(self) -> dict[str, Any]:
        feed = {"state": self.feed_state, "since": 1.0, "symbols": 1}
        status = {"type": "status", "contract": 1, "epoch": self.epoch, "leader": "fake"}
        status |= {"timestamp": time.time(), "state": "live", "feeds": {"iex": feed}}
        account = {"environment": "paper", "state": "live", "account_number": "PA123"}
        return status | {"accounts": {ACCOUNT: account}, "bots": 1, "conflating": False}

    def _beat(self) -> None:
        while not self._stopped.wait(0.2):
            if self.beats:
                try:
                    self._redis.publish(self.channels.status, json.dumps(self._status()))
                except redis.RedisError:
                    pass  # Redis is away: the next beat tries again

    def _answer(self) -> None:
        while not self._stopped.is_set():
            try:
                with self._listener.pubsub(ignore_subscribe_messages=True) as pubsub:
                    pubsub.subscribe(self.channels.registration)
                    while not self._stopped.is_set():
                        message = pubsub.get_message(timeout=0.1)
                        if message is not None:
                            self._take(json.loads(message["data"]))
            except redis.RedisError:
                self._stopped.wait(0.1)

    def _take(self, asked: dict[str, Any]) -> None:
        self.registrations.append(asked)
        if not self.answers or "reply_to" not in asked:
            return
        symbols = asked["symbols"]
        refused = [s for s in symbols if s in self.refuses]
        rejected = [{"symbol": s, "code": self.refuses[s], "reason": "refused"} for s in refused]
        answer = {"type": "registration", "request_id": asked["request_id"], "status": "ok"}
        answer |= {"pending": False, "accepted": [s for s in symbols if s not in self.refuses]}
        answer |= {"rejected": rejected, "account_id": asked.get("account_id"), "last": {}}
        self._redis.publish(asked["reply_to"], json.dumps(answer | {"epoch": self.epoch}))

    def __enter__(self) -> FakeBroker:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(60)
        self._redis.close()
        self._listener.close()
