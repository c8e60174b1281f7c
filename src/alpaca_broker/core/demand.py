"""What Alpaca shall send: what is registered, what is listened to, what lingers.

Owns the way out: a topic leaves only when no registration wants it and nobody subscribes to its
channel, looked at again after some seconds, so that a bot that restarts costs no resubscription.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from alpaca_broker.core.channels import HEARD_ON, NEWS, PRICE
from alpaca_broker.core.feeds import EVERY, Topic, family

Heard = tuple[str, str]  # (one of `channels.MARKET_DATA`, symbol): a channel that has subscribers


class Demand:
    """What is wanted now, in the order of precedence."""

    def __init__(self, *, linger_s: float, discover: bool) -> None:
        self._linger_s, self._discover = linger_s, discover
        self._leaving: dict[Topic, float] = {}
        self.wanted: tuple[Topic, ...] = ()

    def settle(
        self, registered: Iterable[Topic], listened: Collection[Heard] | None, now: float
    ) -> tuple[Topic, ...]:
        """Decide anew. `listened` are channels with a subscriber; None where that is unknown.

        Listening to a price channel is enough to get prices; all else has to be registered.
        """
        wanted = dict.fromkeys(registered)
        if self._discover and listened:
            for symbol in sorted(symbol for channel, symbol in listened if channel == PRICE):
                wanted.setdefault(("trades", symbol))
        leaving: dict[Topic, float] = {}
        for topic in self.wanted:
            if topic in wanted:
                continue
            if listened is not None and not is_heard(topic, listened):
                since = leaving[topic] = self._leaving.get(topic, now)
                if now - since >= self._linger_s:
                    del leaving[topic]
                    continue
            wanted[topic] = None
        self._leaving = leaving
        self.wanted = tuple(wanted)
        return self.wanted


def is_heard(topic: Topic, listened: Collection[Heard]) -> bool:
    """Whether somebody subscribes to a channel that the topic comes on.

    The wildcard comes on the channels of all symbols of its feed; articles alone have one for it.
    """
    kind, symbol = topic
    channel = HEARD_ON[kind]
    if symbol != EVERY or channel == NEWS:
        return (channel, symbol) in listened
    mine = family(kind, EVERY)
    return any(heard == channel and family(kind, name) == mine for heard, name in listened)
