"""Last prices of what is new, from REST: in how many calls, and what a refusal costs."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import pytest

from alpaca_broker.alpaca.rest import LatestTrade
from alpaca_broker.core.feeds import Feed, Feeds
from alpaca_broker.errors import UpstreamRefused
from alpaca_broker.market.last_prices import LastPrices

SYMBOLS = [f"S{n:03}" for n in range(250)]


class RestStub:
    """Knows every symbol; refuses a call with a bad one."""

    def __init__(self, code: int = 400, *bad: str) -> None:
        self.code, self.bad = code, set(bad)
        self.calls: list[list[str]] = []

    async def latest_trades(self, path: str, symbols: Iterable[str]) -> dict[str, LatestTrade]:
        """The same price for all."""
        self.calls.append(list(symbols))
        if self.bad.intersection(self.calls[-1]):
            raise UpstreamRefused(self.code, "no", http=True)
        trade = LatestTrade(p=1.5, t=datetime(2026, 1, 5, tzinfo=UTC))
        return dict.fromkeys(self.calls[-1], trade)


class Noted(list[str]):
    """The symbols whose price was noted."""

    def look_up(self, symbol: str, trade: LatestTrade, received_at: float) -> None:
        """One more."""
        self.append(symbol)


async def look_up(feed: Feed, rest: RestStub) -> Noted:
    """Whose prices were found."""
    noted = Noted()
    await LastPrices(feed).look_up(rest, SYMBOLS, noted)  # type: ignore[arg-type]
    return noted


async def test_options_are_asked_for_by_the_hundred() -> None:
    """Which is Alpaca's limit for them; stocks may be more at once."""
    rest = RestStub()
    assert await look_up(Feeds().options, rest) == SYMBOLS
    assert [len(call) for call in rest.calls] == [100, 100, 50]
    rest = RestStub()
    assert await look_up(Feeds().stocks, rest) == SYMBOLS
    assert len(rest.calls) == 1


@pytest.mark.parametrize(("code", "found"), [(400, [*SYMBOLS[:100], *SYMBOLS[200:]]), (429, None)])
async def test_a_refusal_costs_the_part_that_it_is_about(
    code: int, found: list[str] | None
) -> None:
    """All the rest is told; only where Alpaca wants to be left alone nothing more is asked."""
    rest = RestStub(code, "S100")
    assert await look_up(Feeds().options, rest) == (found or SYMBOLS[:100])
