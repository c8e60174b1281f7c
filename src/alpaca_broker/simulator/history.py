"""Pages of the past: which remembered records a request is about, and where the next page starts.

Owns the order of pages and their tokens. Invariant: a token names a place in time, not a count of
records, so that pages stay whole while new records come and old ones are forgotten. Pure.
"""

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from alpaca_broker.simulator.market import Record

RecordT = TypeVar("RecordT", bound=Record)


class Place(NamedTuple):
    """The last record of a page: so many of its symbol and time were on pages up to there."""

    symbol: str
    ns: int
    seen: int

    def token(self) -> str:
        """This place as clients pass it back."""
        text = f"{self.symbol}|{self.ns}|{self.seen}"
        return base64.urlsafe_b64encode(text.encode()).decode()

    @classmethod
    def of(cls, token: str) -> "Place":
        """The place a token names. Raises `ValueError`."""
        try:
            text = base64.urlsafe_b64decode(token).decode("ascii")
        except (binascii.Error, UnicodeDecodeError) as error:
            raise ValueError("invalid page_token") from error
        symbol, ns, seen = text.rsplit("|", 2) if text.count("|") >= 2 else ("", "", "")
        if not (symbol and ns.isdigit() and seen.isdigit()):
            raise ValueError("invalid page_token")
        return cls(symbol, int(ns), int(seen))


@dataclass(frozen=True)
class Window:
    """What a request asks for; both bounds are included."""

    start: int | None
    end: int | None
    limit: int
    descending: bool = False
    after: Place | None = None

    def holds(self, ns: int) -> bool:
        """Whether a time is within the bounds."""
        return (self.start is None or ns >= self.start) and (self.end is None or ns <= self.end)


def page(
    rings: Mapping[str, Iterable[RecordT]], symbols: Sequence[str], window: Window
) -> tuple[list[RecordT], str | None]:
    """One page over all symbols, sorted by symbol, then time [OAS oas_data]; and its token."""
    found: list[RecordT] = []
    for symbol in sorted(set(symbols)):
        if window.after is not None and symbol < window.after.symbol:
            continue
        found += _rest(symbol, rings.get(symbol, ()), window)
        if len(found) > window.limit:
            shown = found[: window.limit]
            return shown, _place(shown, window.after).token()
    return found, None


def _rest(symbol: str, ring: Iterable[RecordT], window: Window) -> list[RecordT]:
    rows = sorted((r for r in ring if window.holds(r.ns)), key=lambda r: r.ns)  # stable
    if window.descending:
        rows.reverse()
    if (after := window.after) is None or symbol != after.symbol:
        return rows
    sign = -1 if window.descending else 1
    rows = [row for row in rows if sign * row.ns >= sign * after.ns]
    same = sum(row.ns == after.ns for row in rows)
    return rows[min(same, after.seen) :]


def _place(shown: Sequence[RecordT], before: Place | None) -> Place:
    last = shown[-1]
    seen = sum(1 for row in shown if (row.symbol, row.ns) == (last.symbol, last.ns))
    if before is not None and (before.symbol, before.ns) == (last.symbol, last.ns):
        seen += before.seen
    return Place(last.symbol, last.ns, seen)
