"""What the simulator's tests speak with: plain aiohttp clients, no code of the broker."""

import asyncio
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from alpaca_broker.simulator import Simulator

KEY = {"APCA-API-KEY-ID": "PK1", "APCA-API-SECRET-KEY": "s1"}
MSGPACK = {"Content-Type": "application/msgpack"}
ANSWER_S = 45.0


class Client:
    """One WebSocket that speaks JSON or MessagePack."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, *, packed: bool) -> None:
        self.socket = socket
        self.packed = packed

    async def send(self, message: Any) -> None:
        if self.packed:
            await self.socket.send_bytes(msgspec.msgpack.encode(message))
        else:
            await self.socket.send_str(msgspec.json.encode(message).decode())

    async def frame(self) -> aiohttp.WSMessage:
        return await self.socket.receive(timeout=ANSWER_S)

    async def receive(self) -> Any:
        frame = await self.frame()
        assert frame.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY), frame
        if self.packed:
            return msgspec.msgpack.decode(frame.data)
        return msgspec.json.decode(frame.data)

    async def ask(self, message: Any) -> Any:
        await self.send(message)
        return await self.receive()

    async def receive_type(self, kind: str) -> Any:
        """The next message of a type, others skipped."""
        while True:
            for message in await self.receive():
                if message["T"] == kind:
                    return message


async def eventually(condition: Callable[[], object], seconds: float = ANSWER_S) -> None:
    """Wait until a condition holds; fail if it does not in time."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.005)


@asynccontextmanager
async def dialled(
    simulator: Simulator,
    path: str,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> AsyncIterator[Client]:
    headers = dict(headers or {})
    packed = headers.get("Content-Type") == "application/msgpack"
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(simulator.url + path, headers=headers, **more) as socket,
    ):
        yield Client(socket, packed=packed)


@asynccontextmanager
async def market(
    simulator: Simulator, feed: str = "/v2/iex", headers: Mapping[str, str] | None = None
) -> AsyncIterator[Client]:
    """A market-data session that is authenticated."""
    async with dialled(simulator, feed, KEY | dict(headers or {})) as client:
        assert await client.receive() == [{"T": "success", "msg": "connected"}]
        assert await client.receive() == [{"T": "success", "msg": "authenticated"}]
        yield client


@asynccontextmanager
async def trading(simulator: Simulator, key: str = "PK1") -> AsyncIterator[Client]:
    """A trading session that listens."""
    async with dialled(simulator, "/stream") as client:
        auth = {"action": "authenticate", "data": {"key_id": key, "secret_key": "s"}}
        assert (await client.ask(auth))["data"]["status"] == "authorized"
        ack = await client.ask({"action": "listen", "data": {"streams": ["trade_updates"]}})
        assert ack["data"] == {"streams": ["trade_updates"]}
        yield client


class Rest:
    """The REST API of one key."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self.http = http
        self.url = url

    async def __call__(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        async with self.http.request(method, self.url + path, json=body) as response:
            text = await response.read()
            return response.status, msgspec.json.decode(text) if text else None

    async def order(self, symbol: str, qty: str, side: str = "buy", **more: Any) -> dict[str, Any]:
        body = {"symbol": symbol, "qty": qty, "side": side, "time_in_force": "day"}
        status, order = await self("POST", "/v2/orders", body | {"type": "market"} | more)
        assert status == 200, order
        return order


@asynccontextmanager
async def rest_of(simulator: Simulator, key: str = "PK1") -> AsyncIterator[Rest]:
    headers = {"APCA-API-KEY-ID": key, "APCA-API-SECRET-KEY": "s"}
    async with aiohttp.ClientSession(headers=headers) as http:
        yield Rest(http, simulator.url)


def write_ticks(folder: Path, name: str, lines: list[str]) -> Path:
    """Write a tick zip such as spy_20131007_trade.zip."""
    path = folder / name
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name.replace(".zip", ".csv"), "".join(f"{line}\n" for line in lines))
    return path


Start = Callable[..., Awaitable[Simulator]]
