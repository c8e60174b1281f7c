"""What befalls a stock market now and then: corrections, cancellations, halts, late trades.

Owns the schedule. Invariant: the same seed and symbols bring the same incidents in the same order,
and every halt ends. Pure: the time that passed is an argument.
"""

import random
from collections.abc import Collection

_KINDS = ("correct", "cancel_trade", "update_bar", "halt")
_HALT_S = (5.0, 20.0)
_BURST_LIMIT_S = 1.0


class Incidents:
    """Plans incidents, `per_min` for each symbol on average."""

    def __init__(self, seed: int, per_min: float) -> None:
        self._random = random.Random(f"{seed}:incidents")  # noqa: S311 - not for secrets
        self._per_min = per_min
        self._owed = 0.0
        self._halted: dict[str, float] = {}

    def advance(self, symbols: Collection[str], passed_s: float) -> list[tuple[str, str]]:
        """What befalls which of the symbols, as (kind, symbol)."""
        passed_s = min(passed_s, _BURST_LIMIT_S)
        found = []
        for symbol, left_s in list(self._halted.items()):
            self._halted[symbol] = left_s - passed_s
            if left_s <= passed_s:
                del self._halted[symbol]
                found.append(("resume", symbol))
        self._owed += self._per_min * len(symbols) * passed_s / 60
        names = sorted(symbols) if self._owed >= 1 else []
        while self._owed >= 1:
            self._owed -= 1
            symbol, kind = self._random.choice(names), self._random.choice(_KINDS)
            if symbol in self._halted:
                continue
            if kind == "halt":
                self._halted[symbol] = self._random.uniform(*_HALT_S)
            found.append((kind, symbol))
        return found
