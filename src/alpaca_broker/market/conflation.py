"""What Redis cannot take as fast as it comes: the newest of each symbol, and what it stands for.

Owns the messages that wait meanwhile. Bounded by the symbols there are. Nothing is held back where
Redis keeps up; a bot sees by `skipped` what was left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Conflation(Generic[T]):
    """The newest message of each symbol; whoever waited longest is handed out first."""

    def __init__(self, hand_out: Callable[[T, float, int], None]) -> None:
        self._hand_out = hand_out
        self.waiting: dict[str, tuple[T, float, int]] = {}
        self.skipped = 0  # messages that a newer one has replaced

    def __len__(self) -> int:
        return len(self.waiting)

    def keep(self, symbol: str, message: T, received_at: float) -> None:
        """It is the newest of its symbol; it keeps the place of the one that it replaces."""
        known = self.waiting.get(symbol)
        self.waiting[symbol] = (message, received_at, 0 if known is None else known[2] + 1)
        self.skipped += known is not None

    def release(self, most: int) -> None:
        """Redis has caught up: hand out so many."""
        for symbol in list(self.waiting)[:most]:
            self._hand_out(*self.waiting.pop(symbol))
