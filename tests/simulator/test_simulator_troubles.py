"""What a raw client sees of troubled order events, doors and REST calls."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
from simulator_clients import KEY, Client, Start, dialled, eventually, market, rest_of, trading

from alpaca_broker.simulator import Simulator, account_id_of
from alpaca_broker.simulator.switches import RestTrouble, Switches, thrown

ME = account_id_of("PK1")


async def heard(client: Client, count: int) -> list[str]:
    found = []
    for _ in range(count):
        message = await client.receive()
        found.append(message["data"]["order"]["client_order_id"])
    return found


@pytest.mark.parametrize(
    ("trouble", "expected"),
    [
        ("lose", ["b", "c"]),
        ("duplicate", ["a", "a", "b", "c"]),
        ("reorder", ["b", "a", "c"]),
        ("delay", ["b", "c", "a"]),
    ],
)
async def test_order_events_fare_badly(quiet: Simulator, trouble: str, expected: list[str]) -> None:
    """One event is lost, doubled, overtaken or late; the ledger is none the wiser."""
    setattr(quiet.tampering, trouble, 1)
    quiet.tampering.delay_s = 0.05
    hand = quiet.by_hand("PK1")
    async with trading(quiet) as client:
        for name in "abc":
            hand.place("A", 1, client_order_id=name)
        assert await heard(client, len(expected)) == expected
    assert [u["order"]["client_order_id"] for u in quiet.ledger(ME)] == ["a", "b", "c"]


async def test_an_overtaken_event_without_a_follower_comes_late(
    quiet: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reordered is not lost."""
    monkeypatch.setattr("alpaca_broker.simulator.tampering._PATIENCE_S", 0.02)
    quiet.tampering.reorder = 1
    async with trading(quiet) as client:
        quiet.by_hand("PK1").place("A", 1, client_order_id="a")
        assert await heard(client, 1) == ["a"]


async def test_a_ghost_holds_the_only_trading_connection(start: Start) -> None:
    """Cut without a close frame: 429 until it is reaped; closed in order: free at once."""

    async def left_behind(linger_s: float) -> Simulator:
        simulator = await start(trading_connection_limit=1, linger_s=linger_s)
        async with trading(simulator):
            pass
        await eventually(lambda: simulator.stats.trading_open == 0)
        async with trading(simulator):
            simulator.cut("trading")
            await eventually(lambda: simulator.stats.trading_open == 0)
        return simulator

    simulator = await left_behind(3_600.0)
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        async with dialled(simulator, "/stream"):
            pass
    assert caught.value.status == 429
    simulator = await left_behind(0.05)

    async def free() -> bool:
        try:
            async with trading(simulator):
                return True
        except aiohttp.WSServerHandshakeError:
            return False

    async with asyncio.timeout(45):
        while not await free():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.02)


async def test_doors_refuse(quiet: Simulator) -> None:
    """An HTTP status at the upgrade, an error after it, an error to right keys: each by stream."""
    switches = quiet.switches
    for path, stream, other in (("/stream", "trading", "market"), ("/v2/iex", "market", "trading")):
        with thrown(switches.upgrade_status[other], 503):
            async with dialled(quiet, path):
                pass
        with thrown(switches.upgrade_status[stream], 503):
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                async with dialled(quiet, path):
                    pass
            assert caught.value.status == 503
    with thrown(switches.slam["market"], 406):
        async with dialled(quiet, "/v2/iex", KEY) as client:
            codes = [(await client.receive())[0].get("code") for _ in range(2)]
            assert codes == [None, 406]
            assert (await client.frame()).type is aiohttp.WSMsgType.CLOSE
    with thrown(switches.slam["trading"], 0):
        async with dialled(quiet, "/stream") as client:
            assert (await client.receive())["action"] == "error"
            assert (await client.frame()).type is aiohttp.WSMsgType.CLOSE
    with thrown(switches.auth_error["market"], 406):
        async with dialled(quiet, "/v2/iex", KEY) as client:
            await client.receive()
            assert (await client.receive())[0]["code"] == 406
    with thrown(switches.auth_error["trading"], 402):
        async with dialled(quiet, "/stream") as client:
            answer = await client.ask({"action": "auth", "key": "PK1", "secret": "s"})
            assert answer["data"]["status"] == "unauthorized"
    async with market(quiet), trading(quiet):
        pass


@pytest.mark.parametrize(
    ("trouble", "status", "body"),
    [
        (RestTrouble(status=500), 500, "internal server error"),
        (RestTrouble(status=429, headers={"Retry-After": "7"}), 429, "too many requests"),
        (RestTrouble(status=500, body=b"[]"), 500, "[]"),
        (RestTrouble(delay_s=0.05), 200, "[]"),
    ],
)
async def test_rest_calls_are_troubled_by_path(
    quiet: Simulator, trouble: RestTrouble, status: int, body: str
) -> None:
    """Only under the prefix; with rate headers all the same."""
    trouble = RestTrouble(**(vars(trouble) | {"prefix": "/v2/orders"}))
    async with rest_of(quiet) as rest:
        with thrown(quiet.switches.rest, trouble):
            assert (await rest("GET", "/v2/clock"))[0] == 200
            loop = asyncio.get_running_loop()
            began = loop.time()
            async with rest.http.get(quiet.url + "/v2/orders") as response:
                assert response.status == status
                assert body in await response.text()
                assert response.headers["X-RateLimit-Limit"] == "200"
                assert response.headers.get("Retry-After") == trouble.headers.get("Retry-After")
            assert loop.time() - began >= trouble.delay_s
        assert (await rest("GET", "/v2/orders")) == (200, [])


async def test_a_body_is_cut_in_the_middle(quiet: Simulator) -> None:
    """The head promises what never comes, and the connection breaks."""
    quiet.by_hand("PK1").place("A", 1)
    async with rest_of(quiet) as rest:
        with thrown(quiet.switches.rest, RestTrouble(cut=True)):
            async with rest.http.get(quiet.url + "/v2/orders") as response:
                assert response.status == 200
                with pytest.raises(aiohttp.ClientPayloadError):
                    await response.read()
        status, orders = await rest("GET", "/v2/orders")
        assert (status, len(orders)) == (200, 1)


def test_the_last_switch_counts_and_each_is_taken_back() -> None:
    """Troubles overlap in any order."""
    switches = Switches()
    first, second = (RestTrouble(status=n, prefix=p) for n, p in ((500, "/"), (429, "/v2/o")))

    def status(path: str) -> Any:
        trouble = switches.rest_trouble(path)
        return trouble and trouble.status

    outer = thrown(switches.rest, first)
    outer.__enter__()
    with thrown(switches.rest, second):
        assert (status("/v2/orders"), status("/v2/clock")) == (429, 500)
        outer.__exit__(None, None, None)
        assert (status("/v2/orders"), status("/v2/clock")) == (429, None)
    assert not switches.rest
