"""What was missed between two links, so that it can be announced.

Owns the beginning of an outage and what it hit. No gap for the first connect ever, none for a new
symbol; several failed attempts make one outage, which began with the first.
"""

from __future__ import annotations

from collections.abc import Collection

from alpaca_broker.core.messages import Gap

RESTARTED = "no broker was connected"


class Outage:
    """Zero or one outage of one feed or account. Times are epoch seconds."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._symbols: frozenset[str] | None = None
        self._reason = ""

    @property
    def lasts(self) -> bool:
        """Whether there is one."""
        return self._began is not None

    def begins(self, at: float, symbols: Collection[str] | None, reason: str) -> None:
        """Something ended at `at`; `symbols` None means whatever is there afterwards."""
        if self._began is None:
            self._began, self._reason = at, reason
            self._symbols = None if symbols is None else frozenset(symbols)

    def ends(self, at: float, symbols: Collection[str], epoch: int) -> Gap | None:
        """It is back, with these symbols: the gap to announce, or None where there was none."""
        began, self._began = self._began, None
        if began is None:
            return None
        hit = frozenset(symbols) if self._symbols is None else self._symbols & frozenset(symbols)
        return Gap(
            began=began,
            ended=at,
            symbols=sorted(hit),
            reason=self._reason,
            recovered=False,
            epoch=epoch,
        )
