"""Whether an order stream that is connected is mute, by what REST shows and it does not bring.

Owns the judgement. Pure: times are epoch seconds, Alpaca's.
"""

from __future__ import annotations

from collections.abc import Iterable

from alpaca_broker.core.orders import OrderEvent

MUTE_LOOKS = 2  # in a row: one event may be lost on a healthy stream


class Muteness:
    """Of one account's stream."""

    def __init__(self) -> None:
        self._lacking: list[int] = []  # events, by the looks since the stream's last one

    def speaks(self) -> None:
        """The stream has brought an event, or is a new one."""
        self._lacking.clear()

    def after(self, found: Iterable[OrderEvent], since: float) -> int:
        """How many events a mute stream did not bring now that a look found these; 0: not mute.

        Only what happened `since` counts; exits of brackets may be told with their parent.
        """
        lacking = sum(
            event.update.timestamp > since and event.update.order_class in (None, "", "simple")
            for event in found
        )
        if lacking:
            self._lacking.append(lacking)
        return sum(self._lacking) if len(self._lacking) >= MUTE_LOOKS else 0
