"""The simulator's counters.

Owns numbers only. Invariant: a counter never falls, except the two `..._open` gauges.
"""

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Stats:
    """What happened so far; plain attributes, read them whenever you like."""

    market_connections: int = 0
    market_sessions: int = 0
    market_open: int = 0
    market_peak: int = 0  # most sessions that one key ever had on one feed, at a time
    trading_connections: int = 0
    trading_sessions: int = 0
    trading_open: int = 0
    trading_peak: int = 0  # most sessions that one account ever had, at a time
    rest_requests: int = 0
    messages_sent: int = 0
    frames_sent: int = 0
    subscribe_messages: int = 0
    unsubscribe_messages: int = 0
    slow_clients: int = 0
    errors_sent: Counter[int] = field(default_factory=Counter)
    close_codes: deque[int] = field(default_factory=lambda: deque(maxlen=1000))

    def as_json(self) -> dict[str, Any]:
        """The counters as JSON-ready values; `errors_sent` by code as text."""
        values = dict(vars(self))
        values["errors_sent"] = {str(code): n for code, n in self.errors_sent.items()}
        values["close_codes"] = list(self.close_codes)
        return values
