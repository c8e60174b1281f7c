"""How long and how often each thing is measured.

Owns the three modes: full for figures to be published, short for a look, tiny for the test that it
runs at all.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """One mode."""

    name: str
    rounds: int = 5
    seconds: float = 2.0  # of one reading
    warm_s: float = 0.5  # before each
    batches: tuple[int, ...] = (1, 10, 50)  # messages per frame
    listeners: tuple[int, ...] = (0, 1, 10)
    every_pair: bool = True  # of these two; else the others of each beside the usual one
    rates: tuple[int, ...] = (200, 2_000, 20_000)
    latency_s: float = 8.0
    symbols: tuple[int, ...] = (10, 1_000, 10_000)
    bots: tuple[int, ...] = (1, 10, 100, 1_000)
    registrations: int = 10_000
    received: int = 300_000
    starts: int = 7
    overload_s: float = 5.0

    def pairs(self) -> list[tuple[int, int]]:
        """(batch, listeners), batch by batch."""
        return [
            (batch, listeners)
            for batch in self.batches
            for listeners in self.listeners
            if self.every_pair or batch == USUAL_BATCH or listeners == USUAL_LISTENERS
        ]


USUAL_BATCH, USUAL_LISTENERS = 10, 1

FULL = Plan("full")
SHORT = Plan(
    "short",
    rounds=2,
    seconds=0.4,
    warm_s=0.25,
    batches=(1, 10),
    listeners=(1, 10),
    every_pair=False,
    latency_s=0.6,
    received=60_000,
    starts=2,
    overload_s=2.5,
    registrations=1_000,
    bots=(1, 1_000),
    symbols=(10, 10_000),
    rates=(2_000, 20_000),
)
TINY = Plan(
    "tiny",
    rounds=1,
    seconds=0.1,
    warm_s=0.05,
    batches=(10,),
    listeners=(1,),
    rates=(2_000,),
    latency_s=0.2,
    symbols=(10,),
    bots=(1,),
    registrations=50,
    received=2_000,
    starts=1,
    overload_s=0.3,
)
