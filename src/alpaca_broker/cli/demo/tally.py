"""What one bot has seen of one symbol, and how late.

Owns the counts. Each tally is written by one bot's thread; the screen reads it, and may see it
between two updates, which does no harm to a picture.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

RECENT_AGES = 200
KEPT_AGES = 100_000


class Tally:
    """One symbol at one bot."""

    def __init__(self) -> None:
        self.first: float | None = None
        self.last: float | None = None
        self.count = 0
        self.holes = 0  # messages that `seq` shows to be missing
        self.recent_ages: deque[float] = deque(maxlen=RECENT_AGES)
        self._place: tuple[int, int] | None = None

    def add(self, message: dict[str, Any], age_s: float) -> None:
        """Take in one `price_update`."""
        self.last = float(message["price"])
        self.first = self.last if self.first is None else self.first
        self.count += 1
        self.recent_ages.append(age_s)
        epoch, seq = message["epoch"], message["seq"]
        # A new epoch starts `seq` over; the first message of all may come in the middle.
        if self._place is not None and self._place[0] == epoch:
            self.holes += max(0, seq - self._place[1] - 1)
        self._place = (epoch, seq)

    @property
    def change(self) -> float | None:
        """How far the price has moved since the first one, in parts of it."""
        if self.first is None or self.last is None or not self.first:
            return None
        return self.last / self.first - 1


class PriceBook:
    """A bot's tallies by symbol, and all its ages."""

    def __init__(self, symbols: Iterable[str]) -> None:
        self.by_symbol = {symbol: Tally() for symbol in symbols}
        self.ages: deque[float] = deque(maxlen=KEPT_AGES)

    def add(self, message: dict[str, Any], now: float) -> None:
        """Take in one message of a price channel."""
        tally = self.by_symbol.get(message["symbol"])
        if message["type"] == "price_update" and tally is not None:
            age_s = now - message["received_at"]
            self.ages.append(age_s)
            tally.add(message, age_s)

    @property
    def count(self) -> int:
        """How many prices came."""
        return sum(tally.count for tally in self.by_symbol.values())

    @property
    def holes(self) -> int:
        """How many prices are missing."""
        return sum(tally.holes for tally in self.by_symbol.values())


def quantile(values: Sequence[float], part: float) -> float | None:
    """The value below which `part` of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else None
