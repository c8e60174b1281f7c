"""How long to wait before the next attempt, for ever.

Owns the rule that patience is *earned*: a successful handshake forgives nothing, only a link that
stayed live for a while does (else a server that accepts and then refuses is asked in a tight loop).
Chance and time are arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

Jitter = Callable[[float, float], float]


def delays(jitter: Jitter, first: float, ceiling: float) -> Iterator[float]:
    """Seconds to wait before each next attempt: doubling, capped, jittered; never ends."""
    step = first
    while True:
        yield jitter(step * 0.75, step)
        step = min(step * 2, ceiling)  # multiply and clamp: first * 2**n overflows at n = 1,024


# Alpaca keeps a dead session for about 90 s, and answers 406 until then. So long the next attempt
# comes soon enough to lose little time, and seldom enough to be no burden; later, as for all else.
SLOW = (10.0, 13.0)
SLOW_ATTEMPTS = 10


def slow_delays(jitter: Jitter, ceiling: float) -> Iterator[float]:
    """Seconds to wait where Alpaca asks for patience (406, 429): steady at first; never ends."""
    for _ in range(SLOW_ATTEMPTS):
        yield jitter(*SLOW)
    while True:
        yield jitter(ceiling * 0.75, ceiling)


class Patience:
    """The delays of one link, started over only after it stayed live for `settled` seconds."""

    def __init__(
        self, jitter: Jitter, *, first: float = 0.5, ceiling: float = 60.0, settled: float = 30.0
    ) -> None:
        self._jitter, self._first, self._ceiling = jitter, first, ceiling
        self._settled = settled
        self._begin()

    def after(self, seconds_live: float, *, slowly: bool = False) -> float:
        """Seconds to wait now that a link ended which had been live for `seconds_live`.

        `slowly` is for refusals that need longer.
        """
        if seconds_live >= self._settled:
            self._begin()
        return next(self._slow if slowly else self._delays)

    def _begin(self) -> None:
        self._delays = delays(self._jitter, self._first, self._ceiling)
        self._slow = slow_delays(self._jitter, self._ceiling)
