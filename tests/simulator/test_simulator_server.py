"""The simulator as a whole: options, starting, stopping, threads."""

import ast
import asyncio
import dataclasses
import socket
import urllib.request
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from simulator_clients import Start, dialled, eventually, market, rest_of, trading
from support import Stopwatch

import alpaca_broker.simulator
from alpaca_broker.simulator import (
    Simulator,
    SimulatorOptions,
    SimulatorThread,
    account_id_of,
    serve,
)

SOURCES = sorted(Path(alpaca_broker.simulator.__file__).parent.glob("*.py"))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("port", 70000),
        ("port", -1),
        ("speed", "fast"),
        ("speed", "0"),
        ("speed", "-2"),
        ("speed", "nan"),
        ("rate", 0.0),
        ("rate", float("inf")),
        ("batch", 0),
        ("symbol_limit", 0),
        ("auth_timeout_s", 0.0),
        ("linger_s", -1.0),
        ("refused_feeds", frozenset({"nope"})),
        ("trading_connection_limit", 0),
        ("rest_limit_per_min", 0),
        ("ledger_limit", 0),
        ("order_limit", 0),
        ("fill_part", 0),
        ("cash", -1),
        ("keys", {"a": ""}),
    ],
)
def test_bad_options_name_themselves(option: str, value: Any) -> None:
    """A ValueError says which option it was."""
    with pytest.raises(ValueError, match=option):
        SimulatorOptions(**{option: value})


def test_options_are_frozen_and_hide_secrets() -> None:
    """No secret in a repr."""
    options = SimulatorOptions(keys={"PK1": "hush"})
    assert "hush" not in repr(options)
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.port = 1  # type: ignore[misc]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_modules_are_short_and_foreign(path: Path) -> None:
    """No code shared with the broker, and no file that cannot be read in one go."""
    text = path.read_text()
    names = [
        name
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [])
        + [alias.name for alias in node.names if isinstance(node, ast.Import)]
    ]
    ours = [name for name in names if name.startswith("alpaca_broker")]
    assert all(name.startswith("alpaca_broker.simulator") for name in ours)
    assert len(text.splitlines()) < 400


async def test_start_and_stop_keep_the_port_and_the_accounts(start: Start) -> None:
    """Alpaca goes and comes back: same address, same orders, new connections."""
    simulator = await start()
    port = simulator.port
    async with (
        market(simulator) as client,
        trading(simulator) as updates,
        rest_of(simulator) as rest,
    ):
        order = await rest.order("AAPL", "1", type="limit", limit_price="0.01")
        await updates.receive()
        lived = Stopwatch().start()
        stopping = asyncio.create_task(simulator.stop())
        frame = await client.frame()
        assert (frame.type, frame.data) == (aiohttp.WSMsgType.CLOSE, 1001)
        assert (await updates.frame()).type is aiohttp.WSMsgType.CLOSE
        await stopping
        lived.stop()
        assert lived.seconds < 2
        with pytest.raises(aiohttp.ClientConnectorError):
            await rest("GET", "/v2/account")
        await simulator.start()
        assert simulator.port == port
        _, orders = await rest("GET", "/v2/orders")
        assert [o["id"] for o in orders] == [order["id"]]
    async with market(simulator):
        pass


async def test_stop_does_not_wait_for_clients_that_never_answer(start: Start) -> None:
    """A client that ignores the close frame is cut."""
    simulator = await start()
    async with dialled(simulator, "/v2/iex", autoclose=False) as client:
        await client.receive()
        transport = client.socket._response.connection.transport  # type: ignore[union-attr]
        transport.pause_reading()
        with Stopwatch() as lived:
            await simulator.stop()
        assert lived.seconds < 2
        transport.resume_reading()
    assert simulator.stats.market_open == 0


async def test_no_task_is_left_after_stop() -> None:
    """Whatever was going on."""
    before = asyncio.all_tasks()
    async with (
        Simulator(SimulatorOptions(rate=500.0)) as simulator,
        market(simulator) as client,
        trading(simulator),
    ):
        await client.ask({"action": "subscribe", "trades": ["*"]})
        await client.receive()
        await simulator.stop()
    await eventually(lambda: asyncio.all_tasks() <= before)


async def test_stop_may_be_called_again_and_start_not() -> None:
    """Stopping twice is nothing; starting twice is a mistake."""
    simulator = Simulator()
    await simulator.stop()
    async with simulator:
        with pytest.raises(RuntimeError):
            await simulator.start()
    await simulator.stop()


async def test_a_taken_port_is_an_error(start: Start) -> None:
    """From start itself, and nothing is left running."""
    simulator = await start()
    second = Simulator(SimulatorOptions(port=simulator.port))
    with pytest.raises(OSError, match="address already in use"):
        await second.start()
    await second.stop()


async def test_a_port_that_was_ours_is_waited_for(start: Start) -> None:
    """A client that tries while we are away may hold it for a moment, connected to itself."""
    simulator = await start()
    port = simulator.port
    await simulator.stop()
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        starting = asyncio.create_task(simulator.start())
        await asyncio.wait([starting], timeout=0.1)
        assert not starting.done()
    await starting
    assert simulator.port == port
    async with market(simulator):
        pass


async def test_serve_runs_until_told_to_stop() -> None:
    """`ready` hears of the running simulator."""
    stop = asyncio.Event()
    seen: list[int] = []

    def ready(simulator: Simulator) -> None:
        seen.append(simulator.port)
        stop.set()

    await asyncio.wait_for(serve(SimulatorOptions(), ready, stop), 60)
    assert seen[0] > 0


async def test_serve_closes_in_order_when_cancelled() -> None:
    """Clients get a close frame."""
    ready: asyncio.Future[Simulator] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve(SimulatorOptions(), ready.set_result))
    simulator = await ready
    async with market(simulator) as client:
        task.cancel()
        frame = await client.frame()
        assert (frame.type, frame.data) == (aiohttp.WSMsgType.CLOSE, 1001)
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_broken_task_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in the market loop ends the server and is raised by stop."""
    simulator = Simulator()
    await simulator.start()
    monkeypatch.setattr(simulator.exchange, "work", lambda: 1 / 0)
    await simulator.closed()
    with pytest.raises(ExceptionGroup) as caught:
        await simulator.stop()
    assert caught.group_contains(ZeroDivisionError)


def test_a_simulator_in_a_thread() -> None:
    """For programs without a loop: start, call, stop and start the server, join."""
    with SimulatorThread(SimulatorOptions(keys={"PK1": "s1"})) as thread:
        status = f"{thread.url}/simulator/status"
        with urllib.request.urlopen(status) as response:  # noqa: S310 - our own server
            assert response.status == 200
        assert thread.call(thread.simulator.emit, "iex", {"T": "l", "S": "A"}) == 0
        assert thread.call(thread.simulator.ledger, account_id_of("PK1")) == []
        port = thread.port
        thread.stop_server()
        with pytest.raises(OSError, match="refused"):
            urllib.request.urlopen(status)  # noqa: S310 - our own server
        thread.start_server()
        assert thread.port == port
        assert thread.stats.market_open == 0


def test_a_thread_that_cannot_start_says_why() -> None:
    """The error of the start is raised in the caller's thread."""
    with (
        SimulatorThread() as thread,
        pytest.raises(OSError, match="address already in use"),
        SimulatorThread(SimulatorOptions(port=thread.port)),
    ):
        pass
