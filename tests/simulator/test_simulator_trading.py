"""The trading WebSocket and the life of orders."""

import json
from decimal import Decimal
from typing import Any

import aiohttp
import msgspec
import pytest
from simulator_clients import MSGPACK, Client, Rest, Start, dialled, eventually, rest_of, trading

from alpaca_broker.simulator import Simulator, account_id_of

AUTHORIZED = {
    "stream": "authorization",
    "data": {"status": "authorized", "action": "authenticate"},
}
LISTEN = {"action": "listen", "data": {"streams": ["trade_updates"]}}
FORM_A = {"action": "authenticate", "data": {"key_id": "PK1", "secret_key": "s1"}}
FORM_B = {"action": "auth", "key": "PK1", "secret": "s1"}
OAUTH = {"action": "authenticate", "data": {"oauth_token": "s1"}}


def price(simulator: Simulator, symbol: str, value: float) -> None:
    simulator.emit("iex", {"T": "t", "S": symbol, "p": value, "s": 1})


async def update(client: Client) -> dict[str, Any]:
    message = await client.receive()
    assert message["stream"] == "trade_updates"
    data: dict[str, Any] = message["data"]
    return data


async def updates(client: Client, count: int) -> list[str]:
    return [(await update(client))["event"] for _ in range(count)]


@pytest.mark.parametrize("auth", [FORM_A, FORM_B, OAUTH])
@pytest.mark.parametrize("path", ["/stream", "/stream/"])
async def test_all_forms_of_authentication(start: Start, auth: dict[str, Any], path: str) -> None:
    """No welcome: the first message answers the auth."""
    simulator = await start(keys={"PK1": "s1"})
    async with dialled(simulator, path) as client:
        assert await client.ask(auth) == AUTHORIZED
        ack = {"stream": "listening", "data": {"streams": ["trade_updates"]}}
        assert await client.ask(LISTEN) == ack


@pytest.mark.parametrize(
    "auth",
    [
        {"action": "authenticate", "data": {"key_id": "PK1", "secret_key": "no"}},
        {"action": "auth", "key": "PK1", "secret": "no"},
        {"action": "authenticate", "data": {"oauth_token": "no"}},
        {"action": "authenticate"},
    ],
)
async def test_wrong_keys_are_refused_and_closed(start: Start, auth: dict[str, Any]) -> None:
    """With the message that Alpaca was seen to send."""
    simulator = await start(keys={"PK1": "s1"})
    async with dialled(simulator, "/stream") as client:
        assert await client.ask(auth) == {
            "stream": "authorization",
            "data": {
                "status": "unauthorized",
                "action": "authenticate",
                "message": "access key verification failed",
            },
        }
        assert (await client.frame()).type is aiohttp.WSMsgType.CLOSE


async def test_listening_before_auth_is_unauthorized(quiet: Simulator) -> None:
    """The socket stays open."""
    async with dialled(quiet, "/stream") as client:
        answer = await client.ask(LISTEN)
        assert answer["data"] == {"status": "unauthorized", "action": "listen"}
        assert await client.ask(FORM_A) == AUTHORIZED


async def test_header_credentials_allow_listening(quiet: Simulator) -> None:
    """Without an auth message."""
    headers = {"APCA-API-KEY-ID": "PK1", "APCA-API-SECRET-KEY": "s1"}
    async with dialled(quiet, "/stream", headers) as client:
        assert (await client.ask(LISTEN))["stream"] == "listening"


async def test_listen_replaces_and_leaves_out_unknown_streams(quiet: Simulator) -> None:
    """An empty list stops the updates."""
    async with trading(quiet) as client, rest_of(quiet) as rest:
        for streams, kept in ((["nope", "trade_updates"], ["trade_updates"]), ([], [])):
            ack = await client.ask({"action": "listen", "data": {"streams": streams}})
            assert ack == {"stream": "listening", "data": {"streams": kept}}
        await rest.order("A", "1")
        ack = await client.ask(LISTEN)
        assert ack["stream"] == "listening"


async def test_silence_is_cut_after_the_auth_timeout(start: Start) -> None:
    """A connection has to authorize in time."""
    simulator = await start(auth_timeout_s=0.05)
    async with dialled(simulator, "/stream") as client:
        assert (await client.frame()).type is aiohttp.WSMsgType.CLOSE


async def test_rubbish_is_answered(quiet: Simulator) -> None:
    """And the session goes on."""
    async with dialled(quiet, "/stream") as client:
        for rubbish in ("{", "[]", '{"action":"listen"}'):
            await client.socket.send_str(rubbish)
            assert "error_message" in (await client.receive())["data"]
        assert await client.ask(FORM_A) == AUTHORIZED


@pytest.mark.parametrize(
    ("key", "headers", "kind"),
    [
        ("PK1", {}, aiohttp.WSMsgType.BINARY),
        ("AK1", {}, aiohttp.WSMsgType.TEXT),
        ("AK1", MSGPACK, aiohttp.WSMsgType.BINARY),
    ],
)
async def test_frames_are_binary_on_paper_and_text_live(
    quiet: Simulator, key: str, headers: dict[str, str], kind: aiohttp.WSMsgType
) -> None:
    """Live is told by the key id; MessagePack is always binary."""
    async with dialled(quiet, "/stream", headers) as client:
        await client.send({"action": "auth", "key": key, "secret": "s"})
        frame = await client.frame()
        assert frame.type is kind
        decode = msgspec.msgpack.decode if client.packed else msgspec.json.decode
        assert decode(frame.data) == AUTHORIZED


async def test_connection_limit_is_http_429(start: Start) -> None:
    """Above the option, the upgrade itself is refused."""
    simulator = await start(trading_connection_limit=1)
    async with trading(simulator):
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            async with dialled(simulator, "/stream"):
                pass
        assert caught.value.status == 429
    await eventually(lambda: simulator.stats.trading_open == 0)
    async with trading(simulator):
        pass


async def test_market_order_is_new_then_filled(quiet: Simulator) -> None:
    """At the latest trade price, every field in place, and the position follows."""
    price(quiet, "A", 12.34)
    async with trading(quiet) as client, rest_of(quiet) as rest:
        order = await rest.order("A", "3", client_order_id="mine")
        new, fill = await update(client), await update(client)
        assert [new["event"], fill["event"]] == ["new", "fill"]
        assert new["order"]["id"] == fill["order"]["id"] == order["id"]
        assert (fill["price"], fill["qty"], fill["position_qty"]) == ("12.34", "3", "3")
        assert fill["order"]["status"] == "filled"
        assert fill["order"]["filled_avg_price"] == "12.34"
        assert fill["order"]["client_order_id"] == "mine"
        assert fill["timestamp"] == fill["at"] == fill["order"]["filled_at"] or fill["at"]
        assert new["event_id"] < fill["event_id"]
        assert len(new["event_id"]) == 26
        assert new["execution_id"] != fill["execution_id"]
        status, position = await rest("GET", "/v2/positions/A")
        assert (status, position["qty"], position["avg_entry_price"]) == (200, "3", "12.34")
        numbers = {type(v) for k, v in fill["order"].items() if "qty" in k or "price" in k}
        assert numbers <= {str, type(None)}


async def test_large_orders_fill_in_parts(quiet: Simulator) -> None:
    """partial_fill events, then fill; quantities add up."""
    price(quiet, "A", 10)
    async with trading(quiet) as client, rest_of(quiet) as rest:
        await rest.order("A", "250")
        found = [await update(client) for _ in range(4)]
        assert [u["event"] for u in found] == ["new", "partial_fill", "partial_fill", "fill"]
        assert [u.get("qty") for u in found] == [None, "100", "100", "50"]
        assert [u["order"]["status"] for u in found][1:3] == ["partially_filled"] * 2
        assert [u.get("position_qty") for u in found][1:] == ["100", "200", "250"]


async def test_without_a_price_an_order_waits_for_the_first_trade(quiet: Simulator) -> None:
    """In a replay nobody invents prices."""
    async with trading(quiet) as client, rest_of(quiet) as rest:
        await rest.order("A", "1")
        assert await updates(client, 1) == ["new"]
        price(quiet, "A", 5)
        assert (await update(client))["price"] == "5"


async def test_synthetic_market_invents_a_price(start: Start) -> None:
    """An order for a symbol nobody watches is filled too."""
    simulator = await start()
    async with trading(simulator) as client, rest_of(simulator) as rest:
        await rest.order("AAPL", "1")
        assert await updates(client, 2) == ["new", "fill"]


@pytest.mark.parametrize(
    ("side", "limit", "away", "crossing"),
    [("buy", "10", 10.01, 9.99), ("sell", "10", 9.99, 10.01)],
)
async def test_limits_fill_when_the_market_crosses(
    quiet: Simulator, side: str, limit: str, away: float, crossing: float
) -> None:
    """Not before; at the crossing price or better than the limit."""
    price(quiet, "A", away)
    async with trading(quiet) as client, rest_of(quiet) as rest:
        await rest.order("A", "1", side, type="limit", limit_price=limit)
        assert await updates(client, 1) == ["new"]
        price(quiet, "A", away)
        assert quiet.ledger(account_id_of("PK1"))[-1]["event"] == "new"
        price(quiet, "A", crossing)
        assert (await update(client))["price"] == str(crossing)


@pytest.mark.parametrize("kind", ["stop", "stop_limit"])
async def test_stops_trigger(quiet: Simulator, kind: str) -> None:
    """A stop becomes a market order, a stop limit waits for its limit."""
    price(quiet, "A", 10)
    more = {"limit_price": "12"} if kind == "stop_limit" else {}
    async with trading(quiet) as client, rest_of(quiet) as rest:
        await rest.order("A", "1", type=kind, stop_price="11", **more)
        assert await updates(client, 1) == ["new"]
        price(quiet, "A", 13)
        if kind == "stop_limit":
            price(quiet, "A", 11.5)
        assert (await update(client))["price"] == ("11.5" if kind == "stop_limit" else "13")


@pytest.mark.parametrize("tif", ["ioc", "fok"])
async def test_immediate_orders_fill_whole_or_cancel(quiet: Simulator, tif: str) -> None:
    """They never rest."""
    price(quiet, "A", 10)
    async with trading(quiet) as client, rest_of(quiet) as rest:
        more = {"type": "limit", "time_in_force": tif}
        await rest.order("A", "150", limit_price="9", **more)
        assert await updates(client, 2) == ["new", "canceled"]
        await rest.order("A", "150", limit_price="11", **more)
        assert await updates(client, 3) == ["new", "partial_fill", "fill"]
        await rest.order("UNKNOWN", "1", limit_price="11", **more)
        assert await updates(client, 2) == ["new", "canceled"]


async def test_notional_orders_buy_fractions(quiet: Simulator) -> None:
    """Dollars in, shares with nine decimals out."""
    price(quiet, "A", 3)
    async with trading(quiet) as client, rest_of(quiet) as rest:
        body = {"symbol": "A", "notional": "10", "side": "buy", "type": "market"}
        status, order = await rest("POST", "/v2/orders", body | {"time_in_force": "day"})
        assert (status, order["qty"], order["notional"]) == (200, None, "10")
        await updates(client, 1)
        assert (await update(client))["qty"] == "3.333333333"


async def test_cancel(quiet: Simulator) -> None:
    """204, a `canceled` event, and 422 the second time."""
    async with trading(quiet) as client, rest_of(quiet) as rest:
        order = await rest.order("A", "1")
        path = f"/v2/orders/{order['id']}"
        assert await rest("DELETE", path) == (204, None)
        assert await updates(client, 2) == ["new", "canceled"]
        status, body = await rest("DELETE", path)
        assert (status, body["code"]) == (422, 42210000)
        assert (await rest("GET", path))[1]["status"] == "canceled"


async def test_replace(quiet: Simulator) -> None:
    """`replaced` on the old order, `new` on the one that takes its place."""
    async with trading(quiet) as client, rest_of(quiet) as rest:
        old = await rest.order("A", "5", type="limit", limit_price="10")
        changes = {"qty": "7", "limit_price": "11"}
        status, new = await rest("PATCH", f"/v2/orders/{old['id']}", changes)
        assert (status, new["qty"], new["limit_price"], new["replaces"]) == (
            *(200, "7", "11"),
            old["id"],
        )
        assert await updates(client, 1) == ["new"]
        replaced, accepted = await update(client), await update(client)
        assert (replaced["event"], replaced["order"]["replaced_by"]) == ("replaced", new["id"])
        assert replaced["order"]["replaced_at"]
        assert (accepted["event"], accepted["order"]["id"]) == ("new", new["id"])


async def test_every_listener_of_the_account_hears_and_nobody_else(quiet: Simulator) -> None:
    """Two sessions of one key, one of another."""
    async with (
        trading(quiet) as one,
        trading(quiet) as two,
        trading(quiet, "PK2") as other,
        rest_of(quiet) as rest,
        rest_of(quiet, "PK2") as other_rest,
    ):
        order = await rest.order("A", "1")
        theirs = await other_rest.order("A", "1")
        for client, expected in ((one, order), (two, order), (other, theirs)):
            assert (await update(client))["order"]["id"] == expected["id"]
        assert quiet.stats.trading_sessions == 3


async def test_ledger_knows_what_nobody_heard(quiet: Simulator) -> None:
    """Events while disconnected, lost or muted are in the ledger, and there is no replay."""
    account = account_id_of("PK1")
    async with rest_of(quiet) as rest:
        await rest.order("A", "1")
        async with trading(quiet) as client:
            quiet.lose_trade_updates(1)
            await rest.order("A", "1")
            heard = await rest.order("A", "1")
            assert (await update(client))["order"]["id"] == heard["id"]
    assert [entry["event"] for entry in quiet.ledger(account)] == ["new"] * 3
    assert quiet.ledger("nobody") == []
    assert json.dumps(quiet.ledger(account))


async def test_raw_frames_and_mute(quiet: Simulator) -> None:
    """So that tests can show a client broken and silent streams."""
    async with trading(quiet) as client, rest_of(quiet) as rest:
        assert quiet.emit_raw("trading", b'{"data":null}') == 1
        assert await client.receive() == {"data": None}
        quiet.mute("trading")
        await rest.order("A", "1")
        await client.socket.ping()
        await eventually(lambda: quiet.ledger(account_id_of("PK1")))
        quiet.mute("trading", muted=False)
        heard = await rest.order("A", "1")
        assert (await update(client))["order"]["id"] == heard["id"]


async def test_ledger_is_bounded(start: Start) -> None:
    """The oldest events are forgotten."""
    simulator = await start(ledger_limit=2, market_open=False)
    async with rest_of(simulator) as rest:
        for name in "abc":
            await rest.order("A", "1", client_order_id=name)
    ledger = simulator.ledger(account_id_of("PK1"))
    assert [entry["order"]["client_order_id"] for entry in ledger] == ["b", "c"]


async def test_closed_market_fills_only_extended_hours(start: Start) -> None:
    """Other orders rest until it opens, which it never does."""
    simulator = await start(market_open=False)
    async with trading(simulator) as client, rest_of(simulator) as rest:
        await rest.order("A", "1")
        late = {"type": "limit", "limit_price": "10000", "extended_hours": True}
        await rest.order("A", "1", **late)
        assert await updates(client, 3) == ["new", "new", "fill"]


async def test_short_positions_and_going_through_zero(quiet: Simulator) -> None:
    """Signed positions; the average price starts anew on the other side."""
    price(quiet, "A", 10)
    async with trading(quiet) as client, rest_of(quiet) as rest:
        await rest.order("A", "5")
        await rest.order("A", "8", "sell")
        found = [await update(client) for _ in range(4)]
        assert [u["position_qty"] for u in found if u["event"] == "fill"] == ["5", "-3"]
        _, position = await rest("GET", "/v2/positions/A")
        assert (position["side"], position["qty"]) == ("short", "-3")
        _, account = await rest("GET", "/v2/account")
        assert Decimal(account["equity"]) == 100_000
        assert Decimal(account["short_market_value"]) == -30
        await rest.order("A", "3")
        await updates(client, 2)
        assert await rest("GET", "/v2/positions") == (200, [])


def bad(**changes: Any) -> dict[str, Any]:
    good = {"symbol": "A", "qty": "1", "side": "buy", "type": "market", "time_in_force": "day"}
    return {name: value for name, value in (good | changes).items() if value is not None}


def bracket(**changes: Any) -> dict[str, Any]:
    exits = {"take_profit": {"limit_price": "12"}, "stop_loss": {"stop_price": "9"}}
    return bad(**({"order_class": "bracket"} | exits | changes))


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (bad(symbol=None), "symbol is required"),
        (bad(symbol="not a symbol"), "not found"),
        (bad(qty=None), "exactly one of qty or notional"),
        (bad(notional="5"), "exactly one of qty or notional"),
        (bad(qty="0"), "qty must be > 0"),
        (bad(qty="-1"), "qty must be > 0"),
        (bad(qty="nan"), "qty must be > 0"),
        (bad(qty="x"), "qty is not a number"),
        (bad(qty="1.0000000001"), "9 decimals"),
        (bad(qty="0.5", time_in_force="gtc"), "fractional"),
        (bad(side="hold"), "invalid side"),
        (bad(type=None), "type is required"),
        (bad(type="trailing_stop"), "invalid type"),
        (bad(time_in_force="opg"), "invalid time_in_force"),
        (bad(type="limit"), "require limit_price"),
        (bad(limit_price="1"), "must not have limit_price"),
        (bad(type="stop"), "require stop_price"),
        (bad(order_class="bracket"), "bracket orders require take_profit.limit_price and stop"),
        (bad(order_class="bracket", take_profit=1), "must be JSON objects"),
        (bad(order_class="mleg"), "mleg is not supported"),
        (bad(order_class="oto"), "oto orders require take_profit.limit_price or stop_loss"),
        (bracket(order_class="oto"), "oto orders require take_profit.limit_price or stop_loss"),
        (bracket(order_class="oco"), "must not have limit_price"),
        (bracket(take_profit={}), "require take_profit.limit_price"),
        (bracket(stop_loss={"limit_price": "9"}), "require take_profit.limit_price"),
        (bracket(time_in_force="ioc"), "bracket orders must be DAY or GTC limit or market"),
        (bracket(qty="0.5"), "whole shares"),
        (bad(order_class="oco"), "oco orders require take_profit.limit_price and stop_loss"),
        (bad(take_profit={"limit_price": "1"}), "simple orders have no legs"),
        (bad(extended_hours=True), "extended hours"),
        (bad(client_order_id="x" * 129), "128"),
        ([], "object"),
    ],
)
async def test_bad_orders_are_422(quiet: Simulator, body: Any, text: str) -> None:
    """With Alpaca's code and a clear message."""
    async with rest_of(quiet) as rest:
        status, answer = await rest("POST", "/v2/orders", body)
        assert (status, answer["code"]) == (422, 42210000)
        assert text in answer["message"]


@pytest.mark.parametrize(("then", "ends"), [(12.5, "take_profit"), (8.5, "stop_loss")])
async def test_the_exits_of_a_bracket_wait_for_the_entry(
    quiet: Simulator, then: float, ends: str
) -> None:
    """Held until it has filled; where one exit fills, the other is cancelled."""
    price(quiet, "A", 10)
    async with trading(quiet) as client, rest_of(quiet) as rest:
        status, order = await rest("POST", "/v2/orders", bracket(qty="10"))
        assert (status, order["order_class"]) == (200, "bracket")
        assert [leg["status"] for leg in order["legs"]] == ["held", "held"]
        assert await updates(client, 6) == ["new", "held", "held", "fill", "new", "new"]
        _, listed = await rest("GET", "/v2/orders?status=all&nested=true")
        assert [o["id"] for o in listed] == [order["id"]]
        _, still_open = await rest("GET", "/v2/orders?nested=true")
        legs = {leg["id"] for leg in order["legs"]}
        assert {o["id"] for o in still_open} == legs
        price(quiet, "A", then)
        fill, canceled = await update(client), await update(client)
        assert (fill["event"], canceled["event"]) == ("fill", "canceled")
        profit = order["legs"][0]["id"]
        assert (fill["order"]["id"] == profit) == (ends == "take_profit")
        assert {fill["order"]["id"], canceled["order"]["id"]} == legs
        _, power = await rest("GET", "/v2/account")
        assert power["buying_power"] == power["cash"]


async def test_a_bracket_ends_with_its_entry(quiet: Simulator) -> None:
    """Cancelled before it filled: the exits never come."""
    async with trading(quiet) as client, rest_of(quiet) as rest:
        await rest("POST", "/v2/orders", bracket())
        status, done = await rest("DELETE", "/v2/orders")
        assert (status, len(done)) == (207, 3)
        assert await updates(client, 6) == ["new", "held", "held", *["canceled"] * 3]


async def test_client_order_id_is_unique(quiet: Simulator) -> None:
    """The second use is 422, also after the first order ended."""
    async with rest_of(quiet) as rest:
        await rest.order("A", "1", client_order_id="x")
        status, answer = await rest("POST", "/v2/orders", bad(client_order_id="x"))
        assert (status, answer["message"]) == (422, "client_order_id must be unique")


async def test_buying_power_is_403(quiet: Simulator) -> None:
    """Open buy orders bind it; cancelling frees it."""
    price(quiet, "A", 100)

    async def buy(rest: Rest, qty: str) -> tuple[int, Any]:
        return await rest("POST", "/v2/orders", bad(qty=qty, type="limit", limit_price="90"))

    async with rest_of(quiet) as rest:
        status, answer = await buy(rest, "1112")
        expected = {"code": 40310000, "message": "insufficient buying power"}
        assert (status, answer) == (403, expected)
        status, order = await buy(rest, "1111")
        assert status == 200
        assert (await buy(rest, "1"))[0] == 403
        await rest("DELETE", f"/v2/orders/{order['id']}")
        assert (await buy(rest, "1"))[0] == 200
