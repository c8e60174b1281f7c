"""The orders of an account, as `order_update`s tell them.

Owns the latest update of each order and the count by status. Written by one thread.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

KEPT = 200
CLOSED = frozenset({"filled", "canceled", "expired", "replaced", "rejected"})


class OrderBook:
    """Every order's last state."""

    def __init__(self) -> None:
        self.updates = 0
        self.holes = 0
        self.by_status: Counter[str] = Counter()
        self._latest: dict[str, dict[str, Any]] = {}
        self._seq: int | None = None

    def add(self, message: dict[str, Any]) -> None:
        """Take in one `order_update`."""
        self.updates += 1
        seq = message["seq"]
        if self._seq is not None:
            self.holes += max(0, seq - self._seq - 1)
        self._seq = seq
        order_id = message["order_id"]
        before = self._latest.get(order_id)
        if before is not None:
            self.by_status[before["status"]] -= 1
        self.by_status[message["status"]] += 1
        self._latest[order_id] = message
        if len(self._latest) > KEPT:
            self._forget_one()

    def recent(self, most: int) -> list[dict[str, Any]]:
        """The orders placed last, the newest first."""
        return list(self._latest.values())[::-1][:most]

    def counts(self) -> dict[str, int]:
        """How many orders are in each state, the most frequent first."""
        return {status: n for status, n in self.by_status.most_common() if n > 0}

    def _forget_one(self) -> None:
        for order_id, update in self._latest.items():
            if update["status"] in CLOSED:
                del self._latest[order_id]
                return
