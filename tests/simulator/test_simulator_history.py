"""The market-data REST API: what a client missed, page by page."""

from typing import Any

import aiohttp
import pytest
from simulator_clients import KEY, Rest, Start, eventually, market, rest_of

from alpaca_broker.simulator import Simulator
from alpaca_broker.simulator.history import Place, Window, page
from alpaca_broker.simulator.market import Trade

CONTRACT = "AAPL301220C00200000"


def trades(symbol: str, *times: int) -> list[Trade]:
    return [Trade(symbol, ns, n, "V", 100, 1, "A") for n, ns in enumerate(times)]


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("limit", [1, 2, 3, 4, 100])
def test_pages_hold_every_record_once(limit: int, descending: bool) -> None:
    """Whatever the size of a page, also with many records of one nanosecond."""
    rings = {"B": trades("B", 5, 5, 5, 5, 7, 6), "A": trades("A", 1, 2, 2, 3)}
    found: list[Trade] = []
    after = None
    while True:
        shown, token = page(rings, ["B", "A", "C"], Window(2, 6, limit, descending, after))
        found += shown
        if token is None:
            break
        assert len(shown) == limit
        after = Place.of(token)
    times = {"A": [2, 2, 3], "B": [5, 5, 5, 5, 6]}
    for symbol, expected in times.items():
        seen = [t.ns for t in found if t.symbol == symbol]
        assert seen == (expected[::-1] if descending else expected)
    assert [t.symbol for t in found] == sorted(t.symbol for t in found)
    assert len({(t.symbol, t.id) for t in found}) == 8


def test_pages_stay_whole_while_the_past_is_forgotten() -> None:
    """What fell out of the memory between two pages shifts nothing."""
    ring = trades("A", *range(10))
    first, token = page({"A": ring}, ["A"], Window(None, None, 4))
    assert token is not None
    second, token = page({"A": ring[3:]}, ["A"], Window(None, None, 4, after=Place.of(token)))
    assert [t.ns for t in first + second] == list(range(8))


@pytest.mark.parametrize("token", ["!", "QUJD", "Ofw1fDE=", "fDV8MQ==", "QXx4fDE="])
def test_invented_tokens_are_refused(token: str) -> None:
    """They come from outside."""
    with pytest.raises(ValueError, match="page_token"):
        Place.of(token)


async def all_pages(rest: Rest, path: str, kind: str, symbol: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    token = ""
    while True:
        status, body = await rest("GET", f"{path}&limit=7&page_token={token}")
        assert status == 200, body
        found += body[kind].get(symbol, [])
        if (token := body["next_page_token"] or "") == "":
            return found


@pytest.mark.parametrize(
    ("feed", "socket", "path", "symbol", "headers"),
    [
        ("iex", "/v2/iex", "/v2/stocks", "AAPL", {}),
        ("crypto/us-1", "/v1beta3/crypto/us-1", "/v1beta3/crypto/us-1", "BTC/USD", {}),
        (
            *("indicative", "/v1beta1/indicative", "/v1beta1/options", CONTRACT),
            {"Content-Type": "application/msgpack"},
        ),
    ],
)
async def test_a_backfill_finds_exactly_what_was_missed(
    start: Start, feed: str, socket: str, path: str, symbol: str, headers: dict[str, str]
) -> None:
    """From the last trade that was heard to the first one after the return."""
    simulator = await start(rate=200.0)
    subscribe = {"action": "subscribe", "trades": [symbol]}
    async with market(simulator, socket, headers) as client:
        await client.ask(subscribe)
        await client.receive_type("t")
    await eventually(lambda: simulator.stats.market_open == 0)
    before = simulator.data.ledger(feed, symbol)
    await eventually(lambda: len(simulator.data.ledger(feed, symbol)) > len(before) + 20)
    missed = simulator.data.ledger(feed, symbol)[len(before) :]
    start_, end = before[-1]["t"], missed[-1]["t"]
    async with rest_of(simulator) as rest:
        query = f"symbols={symbol}&start={start_}&end={end}"
        found = await all_pages(rest, f"{path}/trades?{query}", "trades", symbol)
    expected = [m for m in before if m["t"] == start_] + missed
    assert found == [{k: v for k, v in m.items() if k not in "TS"} for m in expected]


async def test_latest_crypto_options_and_books(start: Start) -> None:
    """In the shapes of their endpoints; crypto needs no key."""
    simulator = await start(rate=0.001)
    simulator.emit("crypto/us", {"T": "t", "S": "BTC/USD", "p": 5.25, "s": 0.5, "i": 9, "tks": "S"})
    simulator.emit("opra", {"T": "t", "S": CONTRACT, "p": 1.5, "s": 2, "x": "C", "c": "I"})
    simulator.emit("opra", {"T": "q", "S": CONTRACT, "bp": 1.4, "ap": 1.6, "bs": 1, "as": 2})
    async with aiohttp.ClientSession() as http:
        url = f"{simulator.url}/v1beta3/crypto/us/latest"
        async with http.get(f"{url}/trades?symbols=BTC/USD,ETH/USD") as response:
            found = (await response.json())["trades"]
            assert list(found) == ["BTC/USD"]
            trade = found["BTC/USD"]
            assert (trade["p"], trade["s"], trade["i"], trade["tks"]) == (5.25, 0.5, 9, "S")
        async with http.get(f"{url}/orderbooks?symbols=ETH/USD,AAPL") as response:
            (book,) = (await response.json())["orderbooks"].values()
            assert (len(book["b"]), len(book["a"])) == (10, 10)
        async with http.get(f"{simulator.url}/v1beta1/options/trades?symbols=A") as response:
            assert response.status == 403
    async with rest_of(simulator) as rest:
        _, found = await rest("GET", f"/v1beta1/options/trades/latest?symbols={CONTRACT}")
        assert (found["trades"][CONTRACT]["p"], found["trades"][CONTRACT]["c"]) == (1.5, "I")
        _, found = await rest("GET", f"/v1beta1/options/quotes/latest?symbols={CONTRACT}")
        assert found["quotes"][CONTRACT]["ap"] == 1.6
        many = ",".join([CONTRACT] * 101)
        assert (await rest("GET", f"/v1beta1/options/trades/latest?symbols={many}"))[0] == 400
        assert (await rest("GET", "/v1beta3/crypto/mars/trades?symbols=A"))[0] == 404


async def test_taken_back_trades_are_marked(quiet: Simulator) -> None:
    """`u` says what became of a trade; a corrected one stands beside it."""
    trade = {"T": "t", "S": "A", "i": 7, "p": 10.5, "s": 100}
    for number in (7, 8, 9):
        quiet.emit("iex", trade | {"i": number})
    quiet.data.correct("iex", "A", trade_id=7, size=50)
    quiet.data.cancel_trade("iex", "A", trade_id=8)
    assert [trade["i"] for trade in quiet.data.ledger("iex", "A")] == [7, 8, 9]
    assert [m["oi"] for m in quiet.data.ledger("sip", "A", "corrections")] == [7]
    async with rest_of(quiet) as rest:
        _, found = await rest("GET", "/v2/stocks/A/trades")
    assert [(t["s"], t.get("u")) for t in found["trades"]] == [
        *((100, "incorrect"), (50, "corrected"), (100, "canceled"), (100, None))
    ]


async def test_recent_sip_data_needs_the_plan(start: Start) -> None:
    """403 for the last quarter of an hour; other feeds have it, and so has an open end."""
    simulator = await start(recent_sip=False, time="2026-11-25T12:00", rate=0.001)
    for minute, number in ((30, 1), (50, 2)):
        moment = f"2026-11-25T16:{minute}:00Z"
        simulator.emit("iex", {"T": "t", "S": "A", "i": number, "p": 1, "s": 1, "t": moment})
    refused = {
        **{"code": 42210000, "message": "subscription does not permit querying recent SIP data"}
    }
    async with rest_of(simulator) as rest:

        async def ids(query: str) -> Any:
            status, body = await rest("GET", f"/v2/stocks/A/trades{query}")
            return (status, body) if status != 200 else [t["i"] for t in body["trades"]]

        assert await ids("?end=2026-11-25T16:50:00Z&feed=sip") == (403, refused)
        assert await ids("?start=2026-11-25T16:50:00Z") == (403, refused)
        assert await ids("?start=2026-11-25T16:00:00Z") == [1]
        assert await ids("?end=2026-11-25T16:44:00Z") == [1]
        assert await ids("?end=2026-11-25T16:50:00Z&feed=iex") == [1, 2]
        assert (await ids("?feed=nyse"))[0] == 400
        latest = "/v2/stocks/trades/latest?symbols=A"
        assert await rest("GET", f"{latest}&feed=sip") == (403, refused)
        assert (await rest("GET", latest))[1]["trades"]["A"]["i"] == 2


async def test_articles_are_kept(start: Start) -> None:
    """Newest first, by symbol, page by page."""
    simulator = await start(news_per_min=0.0)
    for number, symbols in enumerate((["A"], ["B"], ["A", "B"], ["A"])):
        simulator.data.publish(symbols, f"story {number}")
    async with rest_of(simulator) as rest:

        async def stories(query: str) -> tuple[list[str], str | None]:
            status, body = await rest("GET", f"/v1beta1/news?{query}")
            assert status == 200
            return [article["headline"][-1] for article in body["news"]], body["next_page_token"]

        first, token = await stories("symbols=A&limit=2")
        assert first == ["3", "2"]
        assert await stories(f"symbols=A&limit=2&page_token={token}") == (["0"], None)
        assert (await stories("sort=asc"))[0] == ["0", "1", "2", "3"]
        assert (await rest("GET", "/v1beta1/news?limit=51"))[0] == 422


async def test_the_memory_is_bounded(start: Start) -> None:
    """The oldest are forgotten."""
    simulator = await start(history_limit=3, said_limit=2, rate=0.001)
    for number in range(5):
        simulator.emit("iex", {"T": "t", "S": "A", "i": number, "p": 1, "s": 1})
        simulator.data.halt("iex", "A")
    ledger = simulator.data.ledger
    assert [t["i"] for t in ledger("iex", "A")] == [2, 3, 4]
    assert len(ledger("iex", "A", "statuses")) == 2
    assert ledger("crypto/us", "A") == []
    async with market(simulator, headers=KEY):
        pass
