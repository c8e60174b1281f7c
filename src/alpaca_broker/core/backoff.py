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


class Patience:
    """The delays of one link, started over only after it stayed live for `settled` seconds."""

    def __init__(
        self, jitter: Jitter, *, first: float = 0.5, ceiling: float = 60.0, settled: float = 30.0
    ) -> None:
        self._jitter, self._first, self._ceiling = jitter, first, ceiling
        self._settled = settled
        self._delays = delays(jitter, first, ceiling)

    def after(self, seconds_live: float, *, at_least: float = 0.0) -> float:
        """Seconds to wait now that a link ended which had been live for `seconds_live`.

        `at_least` is a floor for refusals that need longer (Alpaca's 406 and 429).
        """
        if seconds_live >= self._settled:
            self._delays = delays(self._jitter, self._first, self._ceiling)
        delay = next(self._delays)
        return delay if delay >= at_least else self._jitter(at_least, at_least * 1.5)
