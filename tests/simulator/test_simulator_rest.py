"""The REST API: credentials, limits, errors, lists and the data endpoints."""

import base64
import io
from typing import Any

import aiohttp
import pytest
from simulator_clients import Rest, Start, eventually, market, rest_of

from alpaca_broker.simulator import Simulator, account_id_of

TRADING = "/v2/account"
DATA = "/v2/stocks/trades/latest?symbols=A"


async def get(simulator: Simulator, path: str, **headers: str) -> tuple[int, Any, Any]:
    async with (
        aiohttp.ClientSession(headers={k.replace("_", "-"): v for k, v in headers.items()}) as http,
        http.get(simulator.url + path) as response,
    ):
        return response.status, await response.json(), response.headers


async def test_missing_or_wrong_credentials(start: Start) -> None:
    """401 in Alpaca's shape for trading, 403 for data."""
    simulator = await start(keys={"PK1": "s1"})
    refused = {"code": 40110000, "message": "request is not authorized"}
    wrong = {"APCA_API_KEY_ID": "PK1", "APCA_API_SECRET_KEY": "no"}
    for headers in ({}, wrong, {"Authorization": "Bearer no"}, {"Authorization": "Basic !"}):
        assert (await get(simulator, TRADING, **headers))[:2] == (401, refused)
        assert (await get(simulator, DATA, **headers))[0] == 403


async def test_all_kinds_of_credentials(start: Start) -> None:
    """Key headers, bearer token and basic mean the same account."""
    simulator = await start(keys={"PK1": "s1"})
    basic = base64.b64encode(b"PK1:s1").decode()
    for headers in (
        {"APCA_API_KEY_ID": "PK1", "APCA_API_SECRET_KEY": "s1"},
        {"Authorization": "Bearer s1"},
        {"Authorization": f"Basic {basic}"},
    ):
        status, account, _ = await get(simulator, TRADING, **headers)
        assert (status, account["id"]) == (200, account_id_of("PK1"))


async def test_rate_limit(start: Start) -> None:
    """Headers count down, then 429; the data API has its own budget."""
    simulator = await start(rest_limit_per_min=3)
    keys = {"APCA_API_KEY_ID": "PK1", "APCA_API_SECRET_KEY": "s1"}
    answers = [await get(simulator, TRADING, **keys) for _ in range(7)]
    statuses = [status for status, _, _ in answers]
    # The minute may turn once in between, which gives three more calls.
    assert statuses.count(429) >= 1
    assert statuses[0] == 200
    assert {h["X-RateLimit-Limit"] for _, _, h in answers} == {"3"}
    assert answers[-1][2]["X-RateLimit-Remaining"] in {"0", "1", "2"}
    assert int(answers[-1][2]["X-RateLimit-Reset"]) % 60 == 0
    assert (await get(simulator, DATA, **keys))[0] == 200


async def test_unknown_paths_are_404_json(quiet: Simulator) -> None:
    """In Alpaca's error shape."""
    async with rest_of(quiet) as rest:
        status, body = await rest("GET", "/v2/nothing")
        assert (status, body["code"]) == (404, 40410000)
        assert (await rest("PUT", "/v2/orders"))[0] == 405


async def test_bodies_above_1_mib_are_refused(quiet: Simulator) -> None:
    """413, in JSON."""
    async with rest_of(quiet) as rest:
        url = quiet.url + "/v2/orders"
        async with rest.http.post(url, data=io.BytesIO(bytes(1024 * 1024 + 1))) as response:
            assert response.status == 413
            assert set(await response.json()) == {"code", "message"}


async def test_refusing_everything(quiet: Simulator) -> None:
    """For tests of a REST outage."""
    async with rest_of(quiet) as rest:
        quiet.refuse_rest(503)
        assert (await rest("GET", TRADING))[0] == 503
        quiet.refuse_rest(None)
        assert (await rest("GET", TRADING))[0] == 200


async def test_status_needs_no_key(quiet: Simulator) -> None:
    """The counters for other processes."""
    status, body, _ = await get(quiet, "/simulator/status")
    assert status == 200
    assert body["market_open"] == 0
    assert body["replay"] == {"finished": False, "sent": {}}


async def test_account_derives_from_the_key(quiet: Simulator) -> None:
    """The same key is always the same account; money is text."""
    async with rest_of(quiet) as rest, rest_of(quiet, "PK2") as other:
        _, account = await rest("GET", TRADING)
        _, theirs = await other("GET", TRADING)
    assert account["id"] == account_id_of("PK1") != theirs["id"]
    assert account["account_number"].startswith("PA")
    assert len(account["account_number"]) == 11
    assert (account["cash"], account["status"]) == ("100000", "ACTIVE")


async def test_order_lists(quiet: Simulator) -> None:
    """Status, symbols, side, limit, direction, and times that exclude their bound."""
    async with rest_of(quiet) as rest:
        orders = [
            await rest.order(symbol, "1", side, client_order_id=f"c{n}")
            for n, (symbol, side) in enumerate([("A", "buy"), ("B", "sell"), ("A", "sell")])
        ]
        await rest("DELETE", f"/v2/orders/{orders[0]['id']}")

        async def listed(query: str) -> list[str]:
            status, found = await rest("GET", f"/v2/orders?{query}")
            assert status == 200
            return [order["client_order_id"] for order in found]

        assert await listed("") == ["c2", "c1"]
        assert await listed("status=closed") == ["c0"]
        assert await listed("status=all") == ["c2", "c1", "c0"]
        assert await listed("status=all&direction=asc&limit=2") == ["c0", "c1"]
        assert await listed("status=all&symbols=A") == ["c2", "c0"]
        assert await listed("status=all&side=sell&nested=true") == ["c2", "c1"]
        middle = orders[1]["submitted_at"]
        assert await listed(f"status=all&after={middle}") == ["c2"]
        assert await listed(f"status=all&until={middle}") == ["c0"]
        for query in ("status=x", "limit=0", "limit=501", "after=yesterday"):
            assert (await rest("GET", f"/v2/orders?{query}"))[0] == 422
        path = "/v2/orders:by_client_order_id?client_order_id=c1"
        assert (await rest("GET", path))[1]["id"] == orders[1]["id"]
        assert (await rest("GET", path + "x"))[0] == 404
        assert (await rest("GET", f"/v2/orders/{orders[1]['id']}"))[1]["symbol"] == "B"
        for method in ("GET", "DELETE"):
            assert (await rest(method, "/v2/orders/nope"))[0] == 404
        status, cancelled = await rest("DELETE", "/v2/orders")
        assert (status, [c["status"] for c in cancelled]) == (207, [200, 200])
        assert await listed("") == []


async def held(simulator: Simulator, rest: Rest, symbol: str, qty: str) -> None:
    simulator.emit("iex", {"T": "t", "S": symbol, "p": 10, "s": 1})
    await rest.order(symbol, qty)
    account = simulator.exchange.account("PK1")
    await eventually(lambda: str(account.position_qty(symbol)) == qty)


async def test_positions_are_closed_by_orders(quiet: Simulator) -> None:
    """One, a part of one, or all."""
    async with rest_of(quiet) as rest:
        await held(quiet, rest, "A", "10")
        await held(quiet, rest, "B", "4")
        assert (await rest("GET", "/v2/positions/ZZ"))[0] == 404
        assert (await rest("DELETE", "/v2/positions/A?qty=11"))[0] == 422
        _, part = await rest("DELETE", "/v2/positions/A?percentage=50")
        assert (part["side"], part["qty"]) == ("sell", "5")
        account = quiet.exchange.account("PK1")
        await eventually(lambda: account.position_qty("A") == 5)
        status, closed = await rest("DELETE", "/v2/positions?cancel_orders=true")
        assert (status, {c["symbol"] for c in closed}) == (207, {"A", "B"})
        await eventually(lambda: not account.positions)


async def test_fill_activities_are_paged(quiet: Simulator) -> None:
    """By token, in both directions, and by time."""
    async with rest_of(quiet) as rest:
        for qty in ("1", "2", "3"):
            quiet.emit("iex", {"T": "t", "S": f"S{qty}", "p": 10, "s": 1})
            await rest.order(f"S{qty}", qty)
            account = quiet.exchange.account("PK1")
            await eventually(lambda: len(account.fills) == int(qty))  # noqa: B023 - awaited here

        async def quantities(query: str) -> tuple[list[str], str]:
            status, found = await rest("GET", f"/v2/account/activities/FILL?{query}")
            assert status == 200, found
            return [fill["qty"] for fill in found], found[-1]["id"] if found else ""

        assert (await quantities(""))[0] == ["3", "2", "1"]
        first, token = await quantities("direction=asc&page_size=2")
        assert first == ["1", "2"]
        assert (await quantities(f"direction=asc&page_token={token}"))[0] == ["3"]
        moment = quiet.ledger(account_id_of("PK1"))[3]["timestamp"]
        assert (await quantities(f"after={moment}"))[0] == ["3"]
        assert (await quantities(f"until={moment}"))[0] == ["1"]
        _, all_ = await rest("GET", "/v2/account/activities?activity_types=FILL,DIV")
        assert len(all_) == 3
        assert await rest("GET", "/v2/account/activities/DIV") == (200, [])
        fill = all_[0]
        assert (fill["leaves_qty"], fill["cum_qty"], fill["order_status"]) == ("0", "3", "filled")


async def test_assets(quiet: Simulator) -> None:
    """A fixed set, what was replayed or traded, and any plausible symbol by name."""
    quiet.emit("iex", {"T": "t", "S": "NEWCO", "p": 1, "s": 1})
    async with rest_of(quiet) as rest:
        _, assets = await rest("GET", "/v2/assets")
        symbols = {asset["symbol"] for asset in assets}
        assert {"AAPL", "SPY", "ZZZ", "NEWCO"} <= symbols
        assert len(symbols) >= 30
        _, asset = await rest("GET", "/v2/assets/AAPL")
        assert (asset["class"], asset["tradable"]) == ("us_equity", True)
        assert (await rest("GET", f"/v2/assets/{asset['id']}"))[1] == asset
        assert (await rest("GET", "/v2/assets/BRK.B"))[0] == 200
        assert (await rest("GET", "/v2/assets/no-such-thing"))[0] == 404
        _, coins = await rest("GET", "/v2/assets?asset_class=crypto")
        assert {coin["class"] for coin in coins} == {"crypto"}
        assert "BTC/USD" in {coin["symbol"] for coin in coins}
        assert (await rest("GET", "/v2/assets/BTC%2FUSD"))[1] in coins
        assert (await rest("GET", "/v2/assets/NO%2FSUCH"))[0] == 404


async def test_an_unknown_asset_does_not_exist(start: Start) -> None:
    """On no list, for no order; the stream takes it all the same, and brings nothing of it."""
    simulator = await start(unknown_assets=["AAPLE", "IBM", "DOGE/USD"], rate=500.0)
    async with rest_of(simulator) as rest, market(simulator) as client:
        for path in ("/v2/assets", "/v2/assets?asset_class=crypto"):
            _, assets = await rest("GET", path)
            assert assets
            assert not {"AAPLE", "IBM", "DOGE/USD"} & {asset["symbol"] for asset in assets}
        for symbol in ("AAPLE", "IBM", "DOGE%2FUSD"):
            assert (await rest("GET", f"/v2/assets/{symbol}"))[0] == 404
        assert (await rest("GET", "/v2/assets/AAPL"))[0] == 200
        order = {"symbol": "AAPLE", "qty": "1", "side": "buy", "type": "market"}
        status, refusal = await rest("POST", "/v2/orders", order | {"time_in_force": "day"})
        assert (status, refusal["message"]) == (422, 'asset "AAPLE" not found')
        asked = ["*", "AAPL", "AAPLE"]
        (told,) = await client.ask({"action": "subscribe", "trades": asked})
        assert sorted(told["trades"]) == asked
        traded = {(await client.receive_type("t"))["S"] for _ in range(200)}
        assert {"AAPL", "MSFT"} <= traded
        assert not {"AAPLE", "IBM"} & traded


async def test_clock_and_calendar(quiet: Simulator) -> None:
    """Open by default; weekdays only."""
    async with rest_of(quiet) as rest:
        _, clock = await rest("GET", "/v2/clock")
        assert clock["is_open"] is True
        assert clock["next_open"][11:16] == "09:30"
        _, days = await rest("GET", "/v2/calendar?start=2026-01-02&end=2026-01-06")
        assert [day["date"] for day in days] == ["2026-01-02", "2026-01-05", "2026-01-06"]
        assert days[0]["settlement_date"] == "2026-01-05"
        assert (await rest("GET", "/v2/calendar?start=soon"))[0] == 422


@pytest.mark.parametrize(
    "path",
    [
        "/v2/stocks/trades/latest",
        "/v2/stocks/trades?symbols=A&page_token=%21",
        "/v2/stocks/trades?symbols=A&limit=10001",
        "/v2/stocks/bars?symbols=A&timeframe=1Day",
        "/v2/stocks/A/trades?start=x",
    ],
)
async def test_bad_data_requests_are_422(quiet: Simulator, path: str) -> None:
    """With a message that names the parameter."""
    async with rest_of(quiet) as rest:
        assert (await rest("GET", path))[0] == 422


async def test_data_of_unknown_symbols_is_empty(quiet: Simulator) -> None:
    """No symbol is an error."""
    async with rest_of(quiet) as rest:
        assert await rest("GET", DATA) == (200, {"trades": {}})
        assert (await rest("GET", "/v2/stocks/A/quotes"))[1]["quotes"] == []
