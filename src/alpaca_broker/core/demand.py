"""Which symbols Alpaca shall send: the registered ones, the ones listened to, those that linger.

Owns the way out: a symbol leaves only when no registration wants it and nobody subscribes to its
channel, looked at again after some seconds, so that a bot that restarts costs no resubscription.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable


class Demand:
    """What is wanted now, in the order of precedence."""

    def __init__(self, *, linger_s: float, discover: bool) -> None:
        self._linger_s, self._discover = linger_s, discover
        self._leaving: dict[str, float] = {}
        self.wanted: tuple[str, ...] = ()

    def settle(
        self, registered: Iterable[str], listened: Collection[str] | None, now: float
    ) -> tuple[str, ...]:
        """Decide anew. `listened` are the symbols with a subscriber; None where that is unknown."""
        wanted = dict.fromkeys(registered)
        if self._discover and listened:
            wanted |= dict.fromkeys(sorted(set(listened) - wanted.keys()))
        leaving: dict[str, float] = {}
        for symbol in self.wanted:
            if symbol in wanted:
                continue
            if listened is not None and symbol not in listened:
                since = leaving[symbol] = self._leaving.get(symbol, now)
                if now - since >= self._linger_s:
                    del leaving[symbol]
                    continue
            wanted[symbol] = None
        self._leaving = leaving
        self.wanted = tuple(wanted)
        return self.wanted
