"""Every fault, seen by a raw client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import pytest
from simulator_clients import (
    KEY,
    MSGPACK,
    Client,
    dialled,
    eventually,
    market,
    rest_of,
    trading,
)

from alpaca_broker.simulator import (
    Simulator,
    SimulatorOptions,
    SimulatorThread,
    account_id_of,
    fault_acts,
    practise,
    script,
    serve,
    storm,
)
from alpaca_broker.simulator.fault_run import play
from alpaca_broker.simulator.faults import KINDS
from alpaca_broker.simulator.order_flow import Flow, plan
from alpaca_broker.simulator.switches import Switches

ME = account_id_of("PK1")
CLOSED = (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSING)
AUTH = {"action": "auth", "key": "PK1", "secret": "s1"}
UPDATES = {"stream": "trade_updates"}
SHOWN: dict[str, Callable[[Simulator], Awaitable[None]]] = {}
Show = Callable[[Simulator], Awaitable[None]]


def shows(*names: str) -> Callable[[Show], Show]:
    """Say which faults a scene shows."""

    def take(scene: Show) -> Show:
        SHOWN.update(dict.fromkeys(names, scene))
        return scene

    return take


@asynccontextmanager
async def playing(simulator: Simulator, *words: str) -> AsyncIterator[None]:
    """Faults that begin now, ended with the block."""
    told: list[Any] = []
    task = asyncio.create_task(play(simulator, script(words), told.append))
    await eventually(lambda: len(told) == len(words))
    await asyncio.sleep(0)
    yield
    task.cancel()
    await asyncio.wait([task])


async def refused(simulator: Simulator, path: str) -> int:
    """The HTTP status of an upgrade."""
    try:
        async with dialled(simulator, path):
            return 101
    except aiohttp.WSServerHandshakeError as error:
        return error.status


async def subscribed(client: Client) -> Client:
    await client.ask({"action": "subscribe", "trades": ["A"]})
    return client


def trade(simulator: Simulator, size: int = 1) -> None:
    simulator.emit("iex", {"T": "t", "S": "A", "p": 10, "s": size})


async def is_cut(client: Client) -> bool:
    """Whether the socket breaks without a close frame of the server's."""
    while (frame := await client.frame()).type not in CLOSED:
        pass
    return frame.type is aiohttp.WSMsgType.CLOSED and client.socket.close_code == 1006


@shows("cut")
async def cut(simulator: Simulator) -> None:
    async with market(simulator) as prices, trading(simulator) as orders:
        async with playing(simulator, "cut@0s:market"):
            assert await is_cut(prices)
            await orders.socket.ping()
        async with playing(simulator, "cut@0s:trading"):
            assert await is_cut(orders)


@shows("mute")
async def mute(simulator: Simulator) -> None:
    async with dialled(simulator, "/v2/iex", KEY, autoping=False) as client:
        for _ in range(2):
            await client.receive()
        await subscribed(client)
        async with playing(simulator, "mute@0s+60s"):
            trade(simulator, 1)
            await client.socket.ping()
            assert (await client.frame()).type is aiohttp.WSMsgType.PONG
            async with market(simulator, "/v2/sip"):
                pass  # later sockets speak
        trade(simulator, 2)
        assert (await client.receive_type("t"))["s"] == 2


@shows("no-data")
async def no_data(simulator: Simulator) -> None:
    async with market(simulator) as prices, trading(simulator) as orders:
        await subscribed(prices)
        async with playing(simulator, "no-data@0s+60s"):
            trade(simulator, 1)
            answer = await prices.ask({"action": "subscribe", "trades": ["B"]})
            assert answer[0]["trades"] == ["A", "B"]
            await prices.socket.ping()
            await orders.send({"action": "listen", "data": {"streams": ["trade_updates"]}})
            assert (await orders.receive())["stream"] == "listening"
        trade(simulator, 2)
        assert (await prices.receive_type("t"))["s"] == 2


@shows("half-open")
async def half_open(simulator: Simulator) -> None:
    async with dialled(simulator, "/v2/iex", KEY, autoping=False) as client:
        for _ in range(2):
            await client.receive()
        await subscribed(client)
        async with playing(simulator, "half-open@0s+60s:market"):
            trade(simulator)
            await client.send({"action": "subscribe", "trades": ["B"]})
            await client.socket.ping()
            before = simulator.stats.subscribe_messages
            async with dialled(simulator, "/v2/iex", KEY) as second:
                assert (await second.receive())[0]["msg"] == "connected"
                assert (await second.receive())[0]["code"] == 406  # the slot is taken
            assert simulator.stats.subscribe_messages == before
        frame = await client.frame()  # not even the pong
        assert (frame.type, client.socket.close_code) == (aiohttp.WSMsgType.CLOSED, 1006)


@shows("server-error")
async def server_error(simulator: Simulator) -> None:
    async with market(simulator) as prices, trading(simulator) as orders:
        async with playing(simulator, "server-error@0s"):
            assert (await prices.receive())[0]["code"] == 500
            assert (await orders.receive())["data"] == {"error_message": "internal server error"}
            for client in (prices, orders):
                frame = await client.frame()
                assert (frame.type, frame.data) == (aiohttp.WSMsgType.CLOSE, 1011)


@shows("slow-client")
async def slow_client(simulator: Simulator) -> None:
    async with market(simulator) as prices, trading(simulator) as orders:
        async with playing(simulator, "slow-client@0s"):
            assert (await prices.receive())[0] == {"T": "error", "code": 407, "msg": "slow client"}
            assert (await orders.receive())["action"] == "error"
            assert await is_cut(prices)
            assert await is_cut(orders)


@shows("406")
async def slot_taken(simulator: Simulator) -> None:
    async with market(simulator) as prices, trading(simulator) as orders:
        async with playing(simulator, "406@0s+60s"):
            assert await is_cut(prices)
            async with dialled(simulator, "/v2/iex") as client:
                await client.receive()
                for _ in range(2):  # the socket stays open, one may ask again
                    assert (await client.ask(AUTH))[0]["code"] == 406
            await orders.socket.ping()
    async with market(simulator):
        pass


@shows("ghost")
async def ghost(simulator: Simulator) -> None:
    async with market(simulator), trading(simulator) as orders:
        async with playing(simulator, "ghost@0s+60s"):
            assert await is_cut(orders)
            assert await refused(simulator, "/stream") == 429
            assert await refused(simulator, "/v2/iex") == 101
    assert await refused(simulator, "/stream") == 101


@shows("refuse-429", "refuse-500", "refuse-503")
async def refuse(simulator: Simulator) -> None:
    for status in (429, 500, 503):
        async with market(simulator) as prices:
            async with playing(simulator, f"refuse-{status}@0s+60s:market"):
                assert await is_cut(prices)
                assert await refused(simulator, "/v2/iex") == status
                assert await refused(simulator, "/stream") == 101
        assert await refused(simulator, "/v2/iex") == 101


@shows("away")
async def away(simulator: Simulator) -> None:
    async with (
        market(simulator) as prices,
        trading(simulator) as orders,
        rest_of(simulator) as rest,
    ):
        assert (await rest("GET", "/v2/clock"))[0] == 200
        async with playing(simulator, "away@0s+60s"):
            assert await is_cut(prices)
            assert await is_cut(orders)
            with pytest.raises(aiohttp.ClientConnectorError):
                await rest("GET", "/v2/clock")
        assert (await rest("GET", "/v2/clock"))[0] == 200
    assert await refused(simulator, "/stream") == 101


@shows("stall")
async def stall(simulator: Simulator) -> None:
    async with market(simulator) as prices:
        async with playing(simulator, "stall@0s+60s:market"):
            assert await is_cut(prices)
            assert await refused(simulator, "/stream") == 101
            waiting = asyncio.create_task(refused(simulator, "/v2/iex"))
            await asyncio.wait([waiting], timeout=0.1)
            assert not waiting.done()
        assert await waiting == 503
    assert await refused(simulator, "/v2/iex") == 101


@shows("auth-refused")
async def auth_refused(simulator: Simulator) -> None:
    async with playing(simulator, "auth-refused@0s+60s"):
        async with dialled(simulator, "/v2/iex") as client:
            await client.receive()
            assert (await client.ask(AUTH))[0]["code"] == 402
        async with dialled(simulator, "/stream") as client:
            assert (await client.ask(AUTH))["data"]["status"] == "unauthorized"
    async with market(simulator), trading(simulator):
        pass


@shows("accept-then-refuse")
async def accept_then_refuse(simulator: Simulator) -> None:
    async with playing(simulator, "accept-then-refuse@0s+60s"):
        async with dialled(simulator, "/v2/iex") as client:
            assert (await client.receive())[0]["msg"] == "connected"
            assert (await client.receive())[0]["code"] == 500
            assert (await client.frame()).type is aiohttp.WSMsgType.CLOSE
        async with dialled(simulator, "/stream") as client:
            assert (await client.receive())["action"] == "error"
            assert (await client.frame()).type is aiohttp.WSMsgType.CLOSE


@shows("drop-order", "duplicate-order", "reorder-orders", "delay-order")
async def order_events(simulator: Simulator) -> None:
    hand = simulator.by_hand("PK1")
    expected = {
        "drop-order@0s:2": "c",
        "duplicate-order@0s:2": "aabbc",
        "reorder-orders@0s": "bac",
        "delay-order@0s+50ms": "bca",
    }
    for number, (word, order) in enumerate(expected.items()):
        async with trading(simulator) as client:
            async with playing(simulator, word):
                for name in "abc":
                    hand.place("A", 1, client_order_id=f"{name}{number}")
                heard = [(await client.receive())["data"]["order"] for _ in order]
                assert "".join(o["client_order_id"][0] for o in heard) == order


@shows("null-data")
async def null_data(simulator: Simulator) -> None:
    async with market(simulator, headers=MSGPACK) as prices, trading(simulator) as orders:
        async with playing(simulator, "null-data@0s"):
            assert await prices.receive() == [None]
            assert await orders.receive() == UPDATES | {"data": None}


@shows("garbage")
async def garbage(simulator: Simulator) -> None:
    async with market(simulator) as prices, trading(simulator) as orders:
        async with playing(simulator, "garbage@0s"):
            for client in (prices, orders):
                frame = await client.frame()
                data = frame.data if isinstance(frame.data, bytes) else frame.data.encode()
                for decode in (msgspec.json.decode, msgspec.msgpack.decode):
                    with pytest.raises(msgspec.DecodeError):
                        decode(data)


@shows("truncated")
async def truncated(simulator: Simulator) -> None:
    for headers in ({}, MSGPACK):
        async with market(simulator, headers=headers) as prices, trading(simulator) as orders:
            await subscribed(prices)
            async with playing(simulator, "truncated@0s"):
                trade(simulator)
                simulator.by_hand("PK1").place("A", 1)
                for client in (prices, orders):
                    with pytest.raises(msgspec.DecodeError):
                        await client.receive()
            trade(simulator, 3)
            assert (await prices.receive_type("t"))["s"] == 3  # only the one


@shows("unknown-type")
async def unknown_type(simulator: Simulator) -> None:
    order = simulator.by_hand("PK1").place("A", 1)
    async with market(simulator) as prices, trading(simulator) as orders:
        async with playing(simulator, "unknown-type@0s"):
            assert (await prices.receive())[0]["T"] == "zz"
            assert (await orders.receive())["stream"] == "weather"
            event = (await orders.receive())["data"]
            assert (event["event"], event["order"]["id"]) == ("teleported", order)
    assert [u["event"] for u in simulator.ledger(ME)] == ["new"]


@shows("big-frame")
async def big_frame(simulator: Simulator) -> None:
    async with market(simulator) as prices, trading(simulator) as orders:
        async with playing(simulator, "big-frame@0s"):
            assert len((await prices.receive())[0]["content"]) == fault_acts.BIG_BYTES
            assert len((await orders.receive())["data"]["text"]) == fault_acts.BIG_BYTES


@shows("rest-429", "rest-500", "rest-empty")
async def rest_refuses(simulator: Simulator) -> None:
    async with rest_of(simulator) as rest:
        async with playing(simulator, "rest-429@0s+60s:/v2/orders"):
            async with rest.http.get(simulator.url + "/v2/orders") as response:
                assert (response.status, response.headers["Retry-After"]) == (429, "5")
                assert "X-RateLimit-Reset" in response.headers
            assert (await rest("GET", "/v2/clock"))[0] == 200
        async with playing(simulator, "rest-500@0s+60s"):
            assert (await rest("GET", "/v2/clock"))[0] == 500
        async with playing(simulator, "rest-empty@0s+60s"):
            assert await rest("GET", "/v2/orders") == (500, [])
        assert await rest("GET", "/v2/orders") == (200, [])


@shows("rest-slow")
async def rest_slow(simulator: Simulator) -> None:
    async with rest_of(simulator) as rest:
        async with playing(simulator, "rest-slow@0s+60s"):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await rest("GET", "/v2/clock")


@shows("rest-cut")
async def rest_cut(simulator: Simulator) -> None:
    async with rest_of(simulator) as rest:
        async with playing(simulator, "rest-cut@0s+60s"):
            with pytest.raises(aiohttp.ClientPayloadError):
                await rest("GET", "/v2/account")


SCENES = sorted(set(SHOWN.values()), key=lambda scene: scene.__name__)


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
async def test_a_raw_client_sees(quiet: Simulator, scene: Show) -> None:
    """The fault while it lasts, and health afterwards where it has an end."""
    await scene(quiet)


def test_every_fault_is_shown() -> None:
    """None in the table without a client that sees it."""
    assert SHOWN.keys() == KINDS.keys()


async def test_what_was_switched_is_switched_back(quiet: Simulator) -> None:
    """All faults at once, all over: nothing is left."""
    words = [
        f"{name}@0s" + ("+20ms" if kind.lasts_ms is not None else "")
        for name, kind in KINDS.items()
    ]
    async with market(quiet), trading(quiet):
        await play(quiet, script(words))
    await is_healthy(quiet)


async def is_healthy(simulator: Simulator) -> None:
    """Prices, order events and REST are as they should be, but for what waits to be tampered."""
    assert simulator.switches == Switches()
    tampering = simulator.tampering
    tampering.lose = tampering.duplicate = tampering.reorder = tampering.delay = 0
    async with market(simulator) as prices, trading(simulator) as orders:
        async with rest_of(simulator) as rest:
            await subscribed(prices)
            trade(simulator, 4)
            assert (await prices.receive_type("t"))["s"] == 4
            order = simulator.by_hand("PK1").place("A", 1)
            assert (await orders.receive())["data"]["order"]["id"] == order
            status, orders_now = await rest("GET", "/v2/orders?limit=1")
            assert (status, orders_now[0]["id"]) == (200, order)


def test_a_thread_plays_a_script() -> None:
    """Done when the last one has ended; leaving the context ends the rest."""
    with SimulatorThread() as thread:
        thread.play(script(["refuse-503@0s+20ms", "cut@30ms"])).result(60)
        assert not thread.simulator.switches.upgrade_status["market"]
        endless = thread.play(script(["mute@1h"]))
    assert endless.cancelled()


async def test_practice_begins_with_the_first_client() -> None:
    """Who starts a broker at leisure misses nothing; orders come at their rate."""
    told: list[str] = []
    ready: asyncio.Future[Simulator] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()

    async def beside(simulator: Simulator) -> None:
        faults = script(["cut@500ms"])
        tell = lambda fault: told.append(fault.name)  # noqa: E731 - shorter than a def
        await practise(simulator, faults, tell, key_id="PK1", orders_per_s=500.0)

    serving = asyncio.create_task(serve(SimulatorOptions(), ready.set_result, stop, beside))
    simulator = await ready
    async with rest_of(simulator) as rest:
        assert (await rest("GET", "/v2/clock"))[0] == 200
    assert not told
    assert not simulator.ledger(ME)
    async with trading(simulator) as client:
        assert (await client.receive())["stream"] == "trade_updates"
        assert await is_cut(client)
    assert told == ["cut"]
    stop.set()
    await serving


@pytest.mark.soak
async def test_a_storm_does_the_simulator_no_harm(quiet: Simulator, soak: bool) -> None:
    """Clients that come back again and again, orders all the while: afterwards all is well."""
    flow = Flow(quiet.by_hand("PK1"))
    names = [name for name in KINDS if name not in {"big-frame", "rest-slow"}]
    seconds = 60.0 if soak else 1.5
    faults = storm(11, seconds, faults=round(seconds * 60), longest_s=0.1, only=names)

    async def come_back(path: str) -> None:
        while True:
            try:
                async with dialled(quiet, path, KEY) as client:
                    await client.send({"action": "listen", "data": {"streams": ["trade_updates"]}})
                    while (await client.socket.receive(timeout=0.2)).type not in CLOSED:
                        pass
            except (aiohttp.ClientError, TimeoutError):
                await asyncio.sleep(0.01)

    clients = [asyncio.create_task(come_back(path)) for path in ("/stream", "/v2/iex")]
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(play(quiet, faults))
        done = tasks.create_task(flow.run(plan(1, 500), 500 / seconds))
    for client in clients:
        client.cancel()
    await asyncio.wait(clients)
    assert done.result() == len(quiet.ledger(ME)) == 500
    await eventually(lambda: quiet.stats.market_open + quiet.stats.trading_open == 0)
    await is_healthy(quiet)
