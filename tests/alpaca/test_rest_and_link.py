"""The shells towards Alpaca against a hostile server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import WSCloseCode, web
from support import Stopwatch

from alpaca_broker.alpaca.assets import Assets
from alpaca_broker.alpaca.link import http_session, open_link
from alpaca_broker.alpaca.quota import LEFT_FOR_ORDERS, Quota
from alpaca_broker.alpaca.rest import DataRest, TradingRest
from alpaca_broker.core.accounts import KeyPair
from alpaca_broker.errors import UpstreamRefused, UpstreamUnavailable

KEYS = KeyPair("paper", "PK", "very-secret")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    """A server that answers every request with `handler`; its address."""
    runner = web.ServerRunner(web.Server(handler), shutdown_timeout=0.1)  # type: ignore[arg-type]
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[union-attr]
    finally:
        await runner.cleanup()


async def test_an_answer_in_pieces_is_read_whole() -> None:
    """However the network cuts it."""

    async def handler(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        for piece in (b'{"id":"acc",', b'"account_', b'number":"PA1"}'):
            await answer.write(piece)
            await asyncio.sleep(0.02)
        await answer.write_eof()
        return answer

    async with serving(handler) as url, http_session() as http:
        account = await TradingRest(http, url, KEYS).account()
        assert (account.id, account.account_number) == ("acc", "PA1")


@pytest.mark.parametrize("body", [b"", b"null", b"\xff\xff", b"[" * 50_000, b'{"id":7}'])
async def test_an_answer_that_cannot_be_read_is_said(body: bytes) -> None:
    """As unavailable: it may be better next time."""

    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=body)

    async with serving(handler) as url, http_session() as http:
        with pytest.raises(UpstreamUnavailable, match="cannot be read"):
            await TradingRest(http, url, KEYS).account()


async def test_whoever_uses_the_key_waits_until_it_may_ask_again() -> None:
    """What the trading API told one of them, the other one has heard."""
    heard: list[float] = []

    async def handler(request: web.Request) -> web.Response:
        heard.append(time.time())
        limits = {"X-RateLimit-Limit": "200", "X-RateLimit-Reset": str(int(heard[0]) + 2)}
        if len(heard) == 1:
            return web.Response(status=429, headers=limits | {"X-RateLimit-Remaining": "0"})
        return web.json_response({"id": "acc"}, headers=limits | {"X-RateLimit-Remaining": "199"})

    async with serving(handler) as url, http_session() as http:
        quota = Quota()
        orders = TradingRest(http, url, KEYS, quota)
        others = TradingRest(http, url, KEYS, quota, leaving=LEFT_FOR_ORDERS)
        with pytest.raises(UpstreamRefused):
            await others.account()
        await orders.account()
    assert heard[1] >= int(heard[0]) + 2


async def test_no_redirect_carries_the_keys_away() -> None:
    """Neither by REST nor by WebSocket: the other place hears nothing."""
    heard: list[str] = []

    async def other(request: web.Request) -> web.Response:
        heard.append(request.headers.get("APCA-API-SECRET-KEY", "something"))
        return web.json_response({"id": "acc"})

    async with serving(other) as elsewhere:

        async def handler(request: web.Request) -> web.Response:
            return web.Response(status=302, headers={"Location": elsewhere})

        async with serving(handler) as url, http_session() as http:
            with pytest.raises(UpstreamRefused):
                await TradingRest(http, url, KEYS).account()
            with pytest.raises(UpstreamRefused):
                async with open_link(http, url.replace("http", "ws")):
                    pass
    assert heard == []


async def test_closing_takes_no_longer_than_it_may() -> None:
    """A server that floods on and does not answer the close frame."""
    over = asyncio.Event()

    async def handler(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(autoclose=False)
        await socket.prepare(request)
        try:
            while not over.is_set():
                await socket.send_str("x" * 1_000)
                await asyncio.sleep(0.001)
        except ConnectionError:
            pass
        return socket

    lived = Stopwatch()
    async with serving(handler) as url, http_session() as http:
        async with open_link(http, url.replace("http", "ws")) as link:
            await link.receive()
            lived.start()
        lived.stop()
        assert lived.seconds < 2
        over.set()


async def test_a_refused_upgrade_has_its_status() -> None:
    """So that the verdict can be decided on it."""

    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=429)

    async with serving(handler) as url, http_session() as http:
        with pytest.raises(UpstreamRefused) as caught:
            async with open_link(http, url.replace("http", "ws")):
                pass
        assert (caught.value.code, caught.value.http) == (429, True)
        assert caught.value.too_many_requests


async def test_the_other_sides_close_is_told_with_its_code() -> None:
    """A person sees why the link ended."""

    async def handler(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.close(code=WSCloseCode.GOING_AWAY)
        return socket

    async with serving(handler) as url, http_session() as http:
        async with open_link(http, url.replace("http", "ws")) as link:
            with pytest.raises(UpstreamUnavailable, match="code 1001"):
                await link.receive()


async def test_what_lies_unread_is_seen() -> None:
    """A sender that is faster than we read; and a socket that is closed holds nothing."""

    async def handler(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        for _ in range(100):
            await socket.send_str("x" * 100_000)
        await socket.close()
        return socket

    async with serving(handler) as url, http_session() as http:
        async with open_link(http, url) as link:
            async with asyncio.timeout(60):
                while link.unread < 50_000:  # noqa: ASYNC110 - the kernel tells nobody
                    await asyncio.sleep(0.01)
            for _ in range(100):
                assert len(await link.receive()) == 100_000
            assert link.read == 100 * 100_000
            with pytest.raises(UpstreamUnavailable):
                await link.receive()
        assert link.unread == 0


async def test_nobody_there_is_said_in_plain_words() -> None:
    """Host and reason, and nothing of the library's inside."""
    async with http_session() as http:
        with pytest.raises(UpstreamUnavailable, match=r"cannot be reached \(.*\)$") as caught:
            async with open_link(http, "ws://127.0.0.1:1/v2/iex"):
                pass
        assert "ssl:" not in str(caught.value)


async def test_assets_are_asked_for_once_and_doubts_one_by_one() -> None:
    """The list first; what is not on it singly, in a budget; without REST nothing is refused."""
    calls: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        calls.append(request.raw_path)
        if request.path == "/v2/assets":
            listed = {"us_equity": "AAPL", "crypto": "BTC/USD"}[request.query["asset_class"]]
            return web.json_response([{"symbol": listed}])
        known = request.raw_path.endswith("/ETH%2FUSD")
        return web.json_response(
            {"symbol": "ETH/USD"} if known else {}, status=200 if known else 404
        )

    async with serving(handler) as url, http_session() as http:
        assets = Assets(TradingRest(http, url, KEYS))
        assert await assets.unknown(["AAPL", "AAPLL"]) == {"AAPLL"}
        assert len(calls) == 2  # nobody has asked for crypto
        assert await assets.unknown(["AAPL", "BTC/USD", "ETH/USD"]) == frozenset()
        assert await assets.unknown(["AAPL", "BTC/USD", "ETH/USD"]) == frozenset()
        assert len(calls) == 4
        assert len(await assets.unknown([f"X{n}" for n in range(50)])) <= 20
    async with http_session() as http:
        assert await Assets(TradingRest(http, url, KEYS)).unknown(["NOPE"]) == frozenset()


async def test_last_trades_are_read() -> None:
    """Those that Alpaca knows."""

    async def handler(request: web.Request) -> web.Response:
        assert request.query["symbols"] == "AAPL,MSFT"
        assert request.query["feed"] == "iex"
        trade = {"t": "2026-01-05T15:00:00Z", "p": 1.5, "s": 3, "x": "V", "c": ["@"], "i": 7}
        return web.json_response({"trades": {"AAPL": trade}})

    async with serving(handler) as url, http_session() as http:
        found = await DataRest(http, url, KEYS).latest_trades(
            "/latest?feed=iex&symbols=", ["AAPL", "MSFT"]
        )
        assert list(found) == ["AAPL"]
        assert (found["AAPL"].p, found["AAPL"].s) == (1.5, 3)


async def test_alpacas_time_goes_on_where_our_clock_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour ahead at once: what is before the watermark would be taken for told, for an hour."""

    async def handler(request: web.Request) -> web.Response:
        return web.json_response({"id": "acc"})

    async with serving(handler) as url, http_session() as http:
        api = TradingRest(http, url, KEYS)
        await api.account()
        before = api.now()
        assert before == pytest.approx(time.time(), abs=2.5)
        monkeypatch.setattr("alpaca_broker.alpaca.rest.time", lambda: time.time() + 3_600)
        assert api.now() == pytest.approx(before, abs=5)
        await api.account()
        assert api.now() == pytest.approx(before, abs=5)
