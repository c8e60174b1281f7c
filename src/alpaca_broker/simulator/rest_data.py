"""The market-data REST API: latest and recent trades, quotes and bars of stocks.

Owns the translation between HTTP and the market's recent past. Invariant: it only shows what
happened in the market before. History older than the market's bounded memory does not exist here,
nor do snapshots, auctions and bars other than of one minute.
"""

import base64
import binascii
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from alpaca_broker.simulator.codec import plain
from alpaca_broker.simulator.market import Bar, Market, Quote, Trade
from alpaca_broker.simulator.orders import invalid
from alpaca_broker.simulator.rest import answer, count_of, list_of, time_of

_KINDS = ("trades", "quotes", "bars")
_SINGULAR = {"trades": "trade", "quotes": "quote", "bars": "bar"}
_PAGE, _MOST_PAGE = 1000, 10_000


class DataApi:
    """The endpoints under /v2/stocks."""

    def __init__(self, market: Market) -> None:
        self._market = market

    def routes(self) -> list[web.RouteDef]:
        """All endpoints."""
        kind = "{kind:trades|quotes|bars}"
        return [
            web.get(f"/v2/stocks/{kind}/latest", self._latest),
            web.get(f"/v2/stocks/{{symbol}}/{kind}/latest", self._latest_of),
            web.get(f"/v2/stocks/{kind}", self._history),
            web.get(f"/v2/stocks/{{symbol}}/{kind}", self._history_of),
        ]

    async def _latest(self, request: web.Request) -> web.Response:
        kind = request.match_info["kind"]
        found = {symbol: self._newest(kind, symbol) for symbol in _symbols(request)}
        return answer({kind: {s: plain(record) for s, record in found.items() if record}})

    async def _latest_of(self, request: web.Request) -> web.Response:
        kind, symbol = request.match_info["kind"], request.match_info["symbol"]
        record = self._newest(kind, symbol)
        return answer({"symbol": symbol, _SINGULAR[kind]: plain(record) if record else None})

    async def _history(self, request: web.Request) -> web.Response:
        pages, token = self._page(request, sorted(set(_symbols(request))))
        kind = request.match_info["kind"]
        return answer({kind: pages, "next_page_token": token})

    async def _history_of(self, request: web.Request) -> web.Response:
        symbol, kind = request.match_info["symbol"], request.match_info["kind"]
        pages, token = self._page(request, [symbol])
        return answer({"symbol": symbol, kind: pages.get(symbol, []), "next_page_token": token})

    def _newest(self, kind: str, symbol: str) -> Trade | Quote | Bar | None:
        if kind == "bars":
            return self._market.latest_bar(symbol)
        ring = (self._market.trades if kind == "trades" else self._market.quotes).get(symbol)
        return ring[-1] if ring else None

    def _page(
        self, request: web.Request, symbols: Sequence[str]
    ) -> tuple[dict[str, list[dict[str, Any]]], str | None]:
        """One page over all symbols, sorted by symbol, then time [OAS oas_data]."""
        query, kind = request.query, request.match_info["kind"]
        if kind == "bars" and query.get("timeframe", "1Min") not in {"1Min", "1T"}:
            raise invalid("the simulator only has 1Min bars")
        start, end = time_of(query, "start"), time_of(query, "end")
        rings: dict[str, Any] = getattr(self._market, kind)
        rows = [
            record
            for symbol in symbols
            for record in self._ordered(rings.get(symbol, ()), query.get("sort"))
            if (start is None or record.ns >= start) and (end is None or record.ns <= end)
        ]
        offset = _offset(query.get("page_token"))
        limit = count_of(query, "limit", _PAGE, _MOST_PAGE)
        pages: dict[str, list[dict[str, Any]]] = {}
        for record in rows[offset : offset + limit]:
            pages.setdefault(record.symbol, []).append(plain(record))
        more = offset + limit < len(rows)
        return pages, _token(offset + limit) if more else None

    def _ordered(self, ring: Any, sort: str | None) -> Any:
        return reversed(ring) if sort == "desc" else ring


def _symbols(request: web.Request) -> list[str]:
    if not (symbols := list_of(request.query, "symbols")):
        raise invalid("symbols is required")
    return symbols


def _token(offset: int) -> str:
    return base64.urlsafe_b64encode(str(offset).encode()).decode()


def _offset(token: str | None) -> int:
    if not token:
        return 0
    try:
        text = base64.urlsafe_b64decode(token).decode("ascii")
    except (binascii.Error, UnicodeDecodeError):
        text = ""
    if not (text.isascii() and text.isdigit()):
        raise invalid("invalid page_token")
    return int(text)
