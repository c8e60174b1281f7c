"""The trading REST API: orders, positions, account, assets, clock, calendar, activities.

Owns the translation between HTTP and the exchange. Invariant: it changes nothing by itself; the
exchange does. Shapes follow the order object and the REST sections of Alpaca's documentation.
"""

from collections.abc import Callable, Collection
from decimal import Decimal
from typing import Any

from aiohttp import web

from alpaca_broker.simulator import calendar, rest_lists
from alpaca_broker.simulator.accounts import Account, account_json, position_json
from alpaca_broker.simulator.brackets import request_of
from alpaca_broker.simulator.coins import COINS
from alpaca_broker.simulator.exchange import Exchange
from alpaca_broker.simulator.instruments import instrument_of, spelled
from alpaca_broker.simulator.orders import (
    Order,
    OrderRefused,
    OrderRequest,
    asset_id,
    invalid,
    is_symbol,
)
from alpaca_broker.simulator.rest import OWNER, answer, body_of, list_of

Clock = Callable[[], int]


class TradingApi:
    """The endpoints under /v2 that belong to an account."""

    def __init__(
        self,
        exchange: Exchange,
        clock: Clock,
        known_symbols: Callable[[], set[str]],
        *,
        is_open: Callable[[], bool],
        unknown: Collection[str] = frozenset(),
    ) -> None:
        self._exchange = exchange
        self._clock = clock
        self._known_symbols = known_symbols
        self._is_open = is_open
        self._unknown = unknown

    def routes(self) -> list[web.RouteDef]:
        """All endpoints."""
        return [
            web.get("/v2/account", self._account),
            web.get("/v2/clock", self._clock_now),
            web.get("/v2/calendar", self._calendar),
            web.get("/v2/orders", self._orders),
            web.post("/v2/orders", self._submit),
            web.delete("/v2/orders", self._cancel_all),
            web.get("/v2/orders:by_client_order_id", self._order_by_client_id),
            web.get("/v2/orders/{id}", self._order),
            web.patch("/v2/orders/{id}", self._replace),
            web.delete("/v2/orders/{id}", self._cancel),
            web.get("/v2/positions", self._positions),
            web.delete("/v2/positions", self._close_all),
            web.get("/v2/positions/{symbol}", self._position),
            web.delete("/v2/positions/{symbol}", self._close),
            web.get("/v2/assets", self._assets),
            web.get("/v2/assets/{symbol}", self._asset),
            web.get("/v2/account/activities", self._activities),
            web.get("/v2/account/activities/{type}", self._activities),
        ]

    def _of(self, request: web.Request) -> Account:
        return self._exchange.account(request[OWNER])

    async def _account(self, request: web.Request) -> web.Response:
        account = self._of(request)
        values = {
            symbol: held.qty
            * (self._exchange.price(symbol) or held.average)
            * instrument_of(symbol).multiplier
            for symbol, held in account.positions.items()
        }
        return answer(account_json(account, values, self._exchange.buying_power(account)))

    async def _clock_now(self, _: web.Request) -> web.Response:
        return answer(calendar.clock(self._clock(), is_open=self._is_open()))

    async def _calendar(self, request: web.Request) -> web.Response:
        query = request.query
        try:
            days = calendar.days(query.get("start"), query.get("end"), self._clock())
        except ValueError as error:
            raise invalid(f"start or end is not a date: {error}") from error
        return answer(days)

    async def _submit(self, request: web.Request) -> web.Response:
        body = await body_of(request)
        order = self._exchange.submit(self._of(request), request_of(body))
        return answer(order.as_json(nested=True))

    async def _orders(self, request: web.Request) -> web.Response:
        return answer(rest_lists.orders(self._of(request), request.query))

    async def _order(self, request: web.Request) -> web.Response:
        nested = request.query.get("nested", "").lower() == "true"
        return answer(self._order_of(request).as_json(nested=nested))

    async def _order_by_client_id(self, request: web.Request) -> web.Response:
        client_order_id = request.query.get("client_order_id", "")
        order = self._of(request).by_client_id.get(client_order_id)
        if order is None:
            raise OrderRefused(404, 40410000, f"order not found for {client_order_id}")
        return answer(order.as_json())

    async def _replace(self, request: web.Request) -> web.Response:
        changes = await body_of(request)
        order = self._order_of(request)
        return answer(self._exchange.replace(self._of(request), order, changes).as_json())

    async def _cancel(self, request: web.Request) -> web.Response:
        self._exchange.cancel(self._of(request), self._order_of(request))
        return web.Response(status=204)

    async def _cancel_all(self, request: web.Request) -> web.Response:
        account = self._of(request)
        done = []
        for order in list(account.open_orders.values()):
            if order.open:  # a leg ends with its entry
                self._exchange.cancel(account, order)
            done.append({"id": order.id, "status": 200, "body": order.as_json()})
        return answer(done, 207)

    async def _positions(self, request: web.Request) -> web.Response:
        positions = self._of(request).positions
        return answer([self._position_json(symbol, self._of(request)) for symbol in positions])

    async def _position(self, request: web.Request) -> web.Response:
        symbol = self._held_symbol(request)
        return answer(self._position_json(symbol, self._of(request)))

    async def _close(self, request: web.Request) -> web.Response:
        symbol = self._held_symbol(request)
        qty, percentage = request.query.get("qty"), request.query.get("percentage")
        return answer(self._closing(self._of(request), symbol, qty, percentage).as_json())

    async def _close_all(self, request: web.Request) -> web.Response:
        account = self._of(request)
        if request.query.get("cancel_orders", "").lower() == "true":
            while account.open_orders:  # a leg ends with its entry
                self._exchange.cancel(account, next(iter(account.open_orders.values())))
        done: list[dict[str, Any]] = []
        for symbol in list(account.positions):
            order = self._closing(account, symbol, None, None)
            done.append({"symbol": symbol, "status": 200, "body": order.as_json()})
        return answer(done, 207)

    async def _assets(self, request: web.Request) -> web.Response:
        names: list[str] = []
        if request.query.get("status", "active") == "active":
            match request.query.get("asset_class", "us_equity"):
                case "us_equity":
                    names = sorted(filter(is_symbol, self._known_symbols()))  # the stream takes any
                case "crypto":
                    names = sorted(COINS)
        return answer([_asset_json(symbol) for symbol in names if symbol not in self._unknown])

    async def _asset(self, request: web.Request) -> web.Response:
        name = request.match_info["symbol"]
        by_id = {asset_id(symbol): symbol for symbol in self._known_symbols().union(COINS)}
        symbol = by_id.get(name, name)
        if symbol in self._unknown or not (is_symbol(symbol) or symbol in COINS):
            raise OrderRefused(404, 40410000, f"asset not found for {name}")
        return answer(_asset_json(symbol))

    async def _activities(self, request: web.Request) -> web.Response:
        single = request.match_info.get("type")
        types = [single] if single else list_of(request.query, "activity_types")
        return answer(rest_lists.activities(self._of(request), request.query, types))

    def _order_of(self, request: web.Request) -> Order:
        order_id = request.match_info["id"]
        order = self._of(request).orders.get(order_id)
        if order is None:
            raise OrderRefused(404, 40410000, f"order not found for {order_id}")
        return order

    def _held_symbol(self, request: web.Request) -> str:
        name = spelled(request.match_info["symbol"])
        for symbol in self._of(request).positions:
            if name in (symbol, asset_id(symbol)):
                return symbol
        raise OrderRefused(404, 40410000, "position does not exist")

    def _position_json(self, symbol: str, account: Account) -> dict[str, Any]:
        price = self._exchange.price(symbol) or account.positions[symbol].average
        return position_json(account, symbol, price)

    def _closing(
        self, account: Account, symbol: str, qty: str | None, percentage: str | None
    ) -> Order:
        held = account.position_qty(symbol)
        side = "sell" if held > 0 else "buy"
        body = {
            "symbol": symbol,
            "side": side,
            "type": "market",
            "time_in_force": "gtc" if instrument_of(symbol).always_open else "day",
            "qty": qty or str(abs(held)),
        }
        if percentage:
            share = OrderRequest.parse(body | {"qty": percentage}).qty
            assert share is not None
            body["qty"] = str(round(abs(held) * min(share, Decimal(100)) / 100, 9))
        request = OrderRequest.parse(body)
        if request.qty is None or request.qty > abs(held):
            raise invalid("qty is more than the position holds")
        return self._exchange.submit(account, request)


def _asset_json(symbol: str) -> dict[str, Any]:
    crypto = symbol in COINS
    return {
        "id": asset_id(symbol),
        "class": "crypto" if crypto else "us_equity",
        "exchange": "CRYPTO" if crypto else "NASDAQ",
        "symbol": symbol,
        "name": f"{symbol} (simulated)",
        "status": "active",
        "tradable": True,
        "marginable": True,
        "shortable": True,
        "easy_to_borrow": True,
        "fractionable": True,
        "maintenance_margin_requirement": 30,
        "attributes": [],
    }
