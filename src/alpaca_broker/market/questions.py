"""What is said to Alpaca on one market-data link, and how long it may leave that unanswered.

Owns the encoding of a session's actions and the deadline of its questions. Runs in the feed's loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

from alpaca_broker.alpaca.link import Link
from alpaca_broker.core.accounts import KeyPair
from alpaca_broker.core.session import Action, Add, Drop, SendAuth
from alpaca_broker.core.wire import auth_message, subscribe_message
from alpaca_broker.errors import UpstreamUnavailable

ANSWER_WITHIN_S = 15.0  # for a subscription
LOOK_EVERY_S = 1.0


class Questions:
    """Of one link."""

    def __init__(self, link: Link, url: str, keys: KeyPair, *, msgpack: bool) -> None:
        self._link, self._url, self._keys, self._msgpack = link, url, keys, msgpack
        self._asked_at: float | None = None

    async def say(self, actions: list[Action]) -> None:
        """Say what the session wants to be said."""
        link, keys, msgpack = self._link, self._keys, self._msgpack
        for action in actions:
            match action:
                case SendAuth():
                    await link.send(auth_message(keys.key_id, keys.secret, msgpack=msgpack))
                case Add(topics):
                    self._asked_at = monotonic()
                    await link.send(subscribe_message("subscribe", topics, msgpack=msgpack))
                case Drop(topics):
                    self._asked_at = monotonic()
                    await link.send(subscribe_message("unsubscribe", topics, msgpack=msgpack))

    def answered(self) -> None:
        """Nothing is open any more."""
        self._asked_at = None

    def excuse(self) -> None:
        """We did not listen: an answer may be in what we have not read yet."""
        if self._asked_at is not None:
            self._asked_at = monotonic()

    async def watch(self, listens: Callable[[], bool]) -> None:
        """Hang up where a subscription is not answered; returns never.

        Raises:
            UpstreamUnavailable: it was not.
        """
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if not listens():
                continue
            now = monotonic()
            if self._asked_at is not None and now - self._asked_at >= ANSWER_WITHIN_S:
                raise UpstreamUnavailable(self._url, "a subscription was not answered")
