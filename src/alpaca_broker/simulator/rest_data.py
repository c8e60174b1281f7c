"""The market-data REST API: latest and recent trades, quotes and bars; order books and news.

Owns the translation between HTTP and the venues' memory. Invariant: it only shows what happened
before, also what happened while nobody was connected. History older than the bounded memory does
not exist here, nor do snapshots, auctions and bars other than of one minute.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web

from alpaca_broker.simulator.codec import nanoseconds, plain
from alpaca_broker.simulator.feeds import CRYPTO_LOCATIONS
from alpaca_broker.simulator.history import Place, Window, page
from alpaca_broker.simulator.market import Market, Record
from alpaca_broker.simulator.market_data import MarketData
from alpaca_broker.simulator.orders import OrderRefused, invalid
from alpaca_broker.simulator.rest import answer, count_of, list_of, time_of
from alpaca_broker.simulator.trading_hours import TradingHours

_SINGULAR = {"trades": "trade", "quotes": "quote", "bars": "bar"}
_PAGE, _MOST_PAGE = 1000, 10_000
_MOST_OPTIONS = 100  # in one call
_ARTICLES, _MOST_ARTICLES = 10, 50
_WITHHELD_NS = 15 * 60 * 10**9
_PAST_FEEDS = {"sip", "iex", "otc", "boats"}
_LATEST_FEEDS = _PAST_FEEDS | {"delayed_sip", "overnight"}
_OPTION_FEEDS = {"indicative", "opra"}


class DataApi:
    """The endpoints of the data host.

    Args:
        data: The venues.
        hours: The time it is.
        recent_sip: Whether the plan has SIP data of the last 15 minutes.
    """

    def __init__(self, data: MarketData, hours: TradingHours, *, recent_sip: bool) -> None:
        self._data = data
        self._hours = hours
        self._recent_sip = recent_sip

    def routes(self) -> list[web.RouteDef]:
        """All endpoints."""
        kind = "{kind:trades|quotes|bars}"
        crypto = f"/v1beta3/crypto/{{location:{'|'.join(CRYPTO_LOCATIONS)}}}"
        options = "/v1beta1/options"
        return [
            web.get(f"/v2/stocks/{kind}/latest", self._latest_stocks),
            web.get(f"/v2/stocks/{{symbol}}/{kind}/latest", self._latest_stock),
            web.get(f"/v2/stocks/{kind}", self._stocks),
            web.get(f"/v2/stocks/{{symbol}}/{kind}", self._stock),
            web.get(f"{crypto}/latest/{kind}", self._latest_crypto),
            web.get(f"{crypto}/latest/orderbooks", self._books),
            web.get(f"{crypto}/{kind}", self._crypto),
            web.get(f"{options}/{{kind:trades|quotes}}/latest", self._latest_options),
            web.get(f"{options}/{{kind:trades|bars}}", self._options),
        ]

    async def _latest_stocks(self, request: web.Request) -> web.Response:
        self._check_latest(request)
        return _latest(request, self._data.stocks)

    async def _latest_stock(self, request: web.Request) -> web.Response:
        self._check_latest(request)
        kind, symbol = request.match_info["kind"], request.match_info["symbol"]
        record = _newest(self._data.stocks, kind, symbol)
        return answer({"symbol": symbol, _SINGULAR[kind]: plain(record) if record else None})

    async def _stocks(self, request: web.Request) -> web.Response:
        pages, token = _pages(request, self._data.stocks, _symbols(request), self._stock_end)
        return answer({request.match_info["kind"]: pages, "next_page_token": token})

    async def _stock(self, request: web.Request) -> web.Response:
        symbol, kind = request.match_info["symbol"], request.match_info["kind"]
        pages, token = _pages(request, self._data.stocks, [symbol], self._stock_end)
        return answer({"symbol": symbol, kind: pages.get(symbol, []), "next_page_token": token})

    async def _latest_crypto(self, request: web.Request) -> web.Response:
        return _latest(request, self._coins(request))

    async def _crypto(self, request: web.Request) -> web.Response:
        pages, token = _pages(request, self._coins(request), _symbols(request))
        return answer({request.match_info["kind"]: pages, "next_page_token": token})

    async def _books(self, request: web.Request) -> web.Response:
        venue = self._data.venues[f"crypto/{request.match_info['location']}"]
        books = {symbol: venue.book(symbol) for symbol in venue.known(_symbols(request))}
        shown = {symbol: book.snapshot() for symbol, book in books.items() if book}
        now = self._data.now()
        return answer(
            {"orderbooks": {s: {"t": now, "b": o["b"], "a": o["a"]} for s, o in shown.items()}}
        )

    async def _latest_options(self, request: web.Request) -> web.Response:
        _feed(request, "opra", _OPTION_FEEDS)
        if len(_symbols(request)) > _MOST_OPTIONS:
            raise OrderRefused(400, 40010001, f"more than {_MOST_OPTIONS} symbols")
        return _latest(request, self._data.venues["options"].market)

    async def _options(self, request: web.Request) -> web.Response:
        market = self._data.venues["options"].market
        pages, token = _pages(request, market, _symbols(request))
        return answer({request.match_info["kind"]: pages, "next_page_token": token})

    async def news(self, request: web.Request) -> web.Response:
        """The articles; its path is that of the news WebSocket, so it is no route of ours."""
        query, wanted = request.query, set(list_of(request.query, "symbols"))
        start, end = time_of(query, "start"), time_of(query, "end")
        found = [
            article
            for article in self._data.articles
            if (not wanted or wanted & set(article["symbols"]))
            and Window(start, end, 1).holds(nanoseconds(article["updated_at"]))
        ]
        if query.get("sort", "desc") == "desc":
            found.reverse()
        if token := query.get("page_token"):
            place = next((i for i, a in enumerate(found) if str(a["id"]) == token), len(found))
            found = found[place + 1 :]
        limit = count_of(query, "limit", _ARTICLES, _MOST_ARTICLES)
        shown = [{k: v for k, v in a.items() if k != "T"} for a in found[:limit]]
        more = str(shown[-1]["id"]) if len(found) > limit else None
        return answer({"news": shown, "next_page_token": more})

    def _coins(self, request: web.Request) -> Market:
        return self._data.venues[f"crypto/{request.match_info['location']}"].market

    def _check_latest(self, request: web.Request) -> None:
        if _feed(request, "iex", _LATEST_FEEDS) == "sip" and not self._recent_sip:
            raise _no_recent_sip()

    def _stock_end(self, request: web.Request) -> int | None:
        """The end of a stock request: what the plan does not have is refused, or left out."""
        start, end = time_of(request.query, "start"), time_of(request.query, "end")
        if _feed(request, "sip", _PAST_FEEDS) != "sip" or self._recent_sip:
            return end
        limit = self._hours.now_ns() - _WITHHELD_NS
        if (end or 0) > limit or (start or 0) > limit:
            raise _no_recent_sip()
        return limit if end is None else end


def _latest(request: web.Request, market: Market) -> web.Response:
    kind = request.match_info["kind"]
    found = {symbol: _newest(market, kind, symbol) for symbol in _symbols(request)}
    return answer({kind: {s: plain(record) for s, record in found.items() if record}})


def _newest(market: Market, kind: str, symbol: str) -> Record | None:
    if kind == "bars":
        return market.latest_bar(symbol)
    rings: Mapping[str, Sequence[Record]] = market.trades if kind == "trades" else market.quotes
    ring = rings.get(symbol)
    return ring[-1] if ring else None


def _pages(
    request: web.Request, market: Market, symbols: Sequence[str], end_of: Any = None
) -> tuple[dict[str, list[dict[str, Any]]], str | None]:
    query, kind = request.query, request.match_info["kind"]
    if kind == "bars" and query.get("timeframe", "1Min") not in {"1Min", "1T"}:
        raise invalid("the simulator only has 1Min bars")
    try:
        after = Place.of(token) if (token := query.get("page_token")) else None
    except ValueError as error:
        raise invalid(str(error)) from error
    window = Window(
        time_of(query, "start"),
        end_of(request) if end_of else time_of(query, "end"),
        count_of(query, "limit", _PAGE, _MOST_PAGE),
        query.get("sort") == "desc",
        after,
    )
    records, token = page(getattr(market, kind), symbols, window)
    pages: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        shown = plain(record)
        if kind == "trades" and (how := market.amended.get((record.symbol, record.id))):
            shown["u"] = how
        pages.setdefault(record.symbol, []).append(shown)
    return pages, token


def _symbols(request: web.Request) -> list[str]:
    if not (symbols := list_of(request.query, "symbols")):
        raise invalid("symbols is required")
    return symbols


def _feed(request: web.Request, default: str, known: set[str]) -> str:
    if (feed := request.query.get("feed") or default) not in known:
        raise OrderRefused(400, 40010001, f"invalid feed: {feed}")
    return feed


def _no_recent_sip() -> OrderRefused:
    return OrderRefused(403, 42210000, "subscription does not permit querying recent SIP data")
