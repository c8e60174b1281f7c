"""The market-data WebSocket: sessions, errors, codecs, subscriptions, delivery."""

import asyncio
import base64
import contextlib
import logging
from typing import Any

import aiohttp
import msgspec
import pytest
from simulator_clients import KEY, MSGPACK, Start, dialled, eventually, market

from alpaca_broker.simulator import Simulator

CONNECTED = [{"T": "success", "msg": "connected"}]
AUTHENTICATED = [{"T": "success", "msg": "authenticated"}]
AUTH = {"action": "auth", "key": "PK1", "secret": "s1"}
STOCK_PATHS = [
    *("/v2/iex", "/v2/sip", "/v2/delayed_sip", "/v2/test"),
    *("/v1beta1/boats", "/v1beta1/overnight"),
]


def error(code: int, text: str) -> list[dict[str, Any]]:
    return [{"T": "error", "code": code, "msg": text}]


def ack(**lists: list[str]) -> list[dict[str, Any]]:
    channels = ("trades", "quotes", "bars", "updatedBars", "dailyBars", "statuses", "lulds")
    full = {channel: lists.get(channel, []) for channel in channels}
    full |= {"corrections": full["trades"], "cancelErrors": full["trades"]}
    return [{"T": "subscription"} | full]


@pytest.mark.parametrize("path", STOCK_PATHS)
async def test_every_stock_path_greets_and_authenticates(quiet: Simulator, path: str) -> None:
    """Welcome at once, then one answer to the auth message."""
    async with dialled(quiet, path) as client:
        assert await client.receive() == CONNECTED
        assert await client.ask(AUTH) == AUTHENTICATED


@pytest.mark.parametrize("path", ["/v2/nope", "/v2/boats", "/", "/v1beta1/iex"])
async def test_unknown_path_is_404(quiet: Simulator, path: str) -> None:
    """The upgrade fails with HTTP 404."""
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        async with dialled(quiet, path):
            pass
    assert caught.value.status == 404


async def test_query_strings_are_ignored(quiet: Simulator) -> None:
    """A path with a query is the same path."""
    async with dialled(quiet, "/v2/iex?x=1") as client:
        assert await client.receive() == CONNECTED


@pytest.mark.parametrize(
    ("content_type", "kind"),
    [
        (None, aiohttp.WSMsgType.TEXT),
        ("application/json", aiohttp.WSMsgType.TEXT),
        ("text/nonsense", aiohttp.WSMsgType.TEXT),
        ("application/msgpack", aiohttp.WSMsgType.BINARY),
    ],
)
async def test_codec_follows_content_type(
    quiet: Simulator, content_type: str | None, kind: aiohttp.WSMsgType
) -> None:
    """JSON in text frames unless MessagePack was asked for."""
    headers = {"Content-Type": content_type} if content_type else {}
    async with dialled(quiet, "/v2/iex", headers) as client:
        frame = await client.frame()
        assert frame.type is kind
        decode = msgspec.msgpack.decode if client.packed else msgspec.json.decode
        assert decode(frame.data) == CONNECTED


async def test_client_frames_are_decoded_by_codec_not_by_opcode(quiet: Simulator) -> None:
    """JSON in a binary frame is understood, as one SDK sends it."""
    async with dialled(quiet, "/v2/iex") as client:
        await client.receive()
        await client.socket.send_bytes(msgspec.json.encode(AUTH))
        assert await client.receive() == AUTHENTICATED


async def test_auth_sent_before_the_welcome_is_answered_after_it(quiet: Simulator) -> None:
    """Clients that do not wait for the welcome get both messages in order."""
    async with dialled(quiet, "/v2/iex", MSGPACK) as client:
        await client.send(AUTH)
        assert [await client.receive(), await client.receive()] == [CONNECTED, AUTHENTICATED]


@pytest.mark.parametrize(
    "headers",
    [
        KEY,
        {"Authorization": "Bearer s1"},
        {"Authorization": "Basic " + base64.b64encode(b"PK1:s1").decode()},
    ],
)
async def test_credentials_in_headers_authenticate(start: Start, headers: dict[str, str]) -> None:
    """`connected` and then `authenticated`, without an auth message."""
    simulator = await start(keys={"PK1": "s1"})
    async with dialled(simulator, "/v2/iex", headers) as client:
        assert [await client.receive(), await client.receive()] == [CONNECTED, AUTHENTICATED]


@pytest.mark.parametrize(
    "auth",
    [
        AUTH,
        {"action": "auth", "key": "oauth", "secret": "s1"},
        {"action": "auth", "key": "access_token", "secret": "s1"},
    ],
)
async def test_right_credentials(start: Start, auth: dict[str, str]) -> None:
    """Key pairs, and tokens which count by their secret."""
    simulator = await start(keys={"PK1": "s1"})
    async with dialled(simulator, "/v2/iex") as client:
        await client.receive()
        assert await client.ask(auth) == AUTHENTICATED


@pytest.mark.parametrize(
    "auth",
    [
        {"action": "auth", "key": "PK1", "secret": "wrong"},
        {"action": "auth", "key": "PK2", "secret": "s1"},
        {"action": "auth", "key": "oauth", "secret": "wrong"},
        {"action": "auth", "token": "s1"},
        {"action": "auth", "key": 5, "secret": None},
        {"action": "auth"},
    ],
)
async def test_402_wrong_credentials(start: Start, auth: dict[str, Any]) -> None:
    """Refused with the documented text; the socket stays open for another try."""
    simulator = await start(keys={"PK1": "s1"})
    async with dialled(simulator, "/v2/iex") as client:
        await client.receive()
        assert await client.ask(auth) == error(402, "auth failed")
        assert await client.ask(AUTH) == AUTHENTICATED


async def test_402_wrong_credentials_in_headers(start: Start) -> None:
    """Bad headers are refused in-band, after the welcome."""
    simulator = await start(keys={"PK1": "other"})
    async with dialled(simulator, "/v2/iex", KEY) as client:
        assert await client.receive() == CONNECTED
        assert await client.receive() == error(402, "auth failed")


@pytest.mark.parametrize("headers", [{}, MSGPACK])
@pytest.mark.parametrize("garbage", [b"\xff\xc1{", b"", b"[1]", b"5", b'{"action":"dance"}', b"{}"])
async def test_400_unparsable(quiet: Simulator, headers: dict[str, str], garbage: bytes) -> None:
    """Rubbish is answered and changes nothing."""
    async with market(quiet, headers=headers) as client:
        await client.socket.send_bytes(garbage)
        assert await client.receive() == error(400, "invalid syntax")
        assert await client.ask({"action": "subscribe", "bars": ["A"]}) == ack(bars=["A"])


@pytest.mark.parametrize(
    "request_",
    [
        {"action": "subscribe"},
        {"action": "unsubscribe"},
        {"action": "subscribe", "trades": "AAPL"},
        {"action": "subscribe", "trades": [""]},
        {"action": "subscribe", "trades": ["A B"]},
        {"action": "subscribe", "trades": ["A\n"]},
        {"action": "subscribe", "trades": [5]},
        {"action": "subscribe", "trades": ["A" * 33]},
        {"action": "subscribe", "trades": {"A": 1}},
        {"action": "subscribe", "trades": ["GOOD"], "quotes": [None]},
    ],
)
async def test_400_bad_subscriptions(quiet: Simulator, request_: dict[str, Any]) -> None:
    """Bad symbols and missing channels are refused whole."""
    async with market(quiet) as client:
        assert await client.ask(request_) == error(400, "invalid syntax")
        assert await client.ask({"action": "subscribe", "bars": []}) == ack()


@pytest.mark.parametrize("action", ["subscribe", "unsubscribe"])
async def test_401_before_auth(quiet: Simulator, action: str) -> None:
    """Subscribing needs authentication; the socket stays open."""
    async with dialled(quiet, "/v2/iex") as client:
        await client.receive()
        request = {"action": action, "trades": ["A"]}
        assert await client.ask(request) == error(401, "not authenticated")
        assert await client.ask(AUTH) == AUTHENTICATED


async def test_403_second_auth(quiet: Simulator) -> None:
    """An authenticated session stays so, and its subscriptions too."""
    async with market(quiet) as client:
        assert await client.ask(AUTH) == error(403, "already authenticated")
        assert await client.ask({"action": "subscribe", "trades": ["A"]}) == ack(trades=["A"])


async def test_404_auth_timeout_closes(start: Start) -> None:
    """Who stays silent is told so, then disconnected."""
    simulator = await start(auth_timeout_s=0.05)
    async with dialled(simulator, "/v2/iex") as client:
        assert await client.receive() == CONNECTED
        assert await client.receive() == error(404, "auth timeout")
        assert (await client.frame()).type is aiohttp.WSMsgType.CLOSE


async def test_authenticated_sessions_do_not_time_out(start: Start) -> None:
    """The time limit is for authentication only."""
    simulator = await start(auth_timeout_s=0.05)
    async with market(simulator, "/v2/test") as client:
        for _ in range(4):
            await asyncio.sleep(0.05)
        assert (await client.ask({"action": "subscribe", "bars": []}))[0]["T"] == "subscription"


async def test_405_leaves_the_list_unchanged(start: Start) -> None:
    """Distinct symbols over trades and quotes count; bars do not."""
    simulator = await start(symbol_limit=3, rate=0.01)
    async with market(simulator) as client:
        request = {"action": "subscribe", "trades": ["A", "B"], "quotes": ["B", "C"]}
        lists = {"trades": ["A", "B"], "quotes": ["B", "C"]}
        assert await client.ask(request) == ack(**lists)
        refused = await client.ask({"action": "subscribe", "trades": ["D"], "bars": ["X"]})
        assert refused == error(405, "symbol limit exceeded")
        more = await client.ask({"action": "subscribe", "bars": ["X", "Y"]})
        assert more == ack(**lists, bars=["X", "Y"])


async def test_406_until_the_older_session_leaves(start: Start) -> None:
    """The older session keeps its slot; the same socket gets in once it is free."""
    simulator = await start()
    async with dialled(simulator, "/v2/iex") as second:
        await second.receive()
        async with market(simulator) as first:
            assert await second.ask(AUTH) == error(406, "connection limit exceeded")
            assert await first.ask({"action": "subscribe", "bars": []}) == ack()
        await eventually(lambda: simulator.stats.market_open == 1)
        assert await second.ask(AUTH) == AUTHENTICATED


async def test_406_does_not_reach_other_feeds_or_keys(quiet: Simulator) -> None:
    """The limit is one session per key and endpoint."""
    other = {"APCA-API-KEY-ID": "PK2", "APCA-API-SECRET-KEY": "s2"}
    async with market(quiet), market(quiet, "/v2/sip"), market(quiet, headers=other):
        assert quiet.stats.market_sessions == 3


async def test_406_ends_with_the_auth_timeout(start: Start) -> None:
    """A refused session that does not get in is timed out."""
    simulator = await start(auth_timeout_s=0.1)
    async with market(simulator), dialled(simulator, "/v2/iex", KEY) as second:
        await second.receive()
        assert await second.receive() == error(406, "connection limit exceeded")
        assert await second.receive() == error(404, "auth timeout")


async def test_a_broken_connection_lingers_only_if_asked_to(start: Start) -> None:
    """With `linger_s` a cut session holds its slot for a while, a closed one does not."""
    simulator = await start(linger_s=30.0)
    async with market(simulator):
        pass
    async with market(simulator) as client:
        simulator.cut("market")
        assert (await client.frame()).type is aiohttp.WSMsgType.CLOSED
    await eventually(lambda: simulator.stats.market_open == 0)
    async with dialled(simulator, "/v2/iex", KEY) as client:
        await client.receive()
        assert await client.receive() == error(406, "connection limit exceeded")


async def test_407_slow_client_is_cut(start: Start) -> None:
    """A client that does not read is expelled, and others do not notice."""
    simulator = await start(send_limit_bytes=20_000, rate=0.001)
    other = {"APCA-API-KEY-ID": "PK2", "APCA-API-SECRET-KEY": "s2"}
    async with market(simulator) as lazy, market(simulator, headers=other) as keen:
        await lazy.ask({"action": "subscribe", "lulds": ["A"]})
        await keen.ask({"action": "subscribe", "lulds": ["B"]})
        transport = lazy.socket._response.connection.transport  # type: ignore[union-attr]
        transport.pause_reading()
        message = {"T": "l", "S": "A", "u": 1.0, "i": "x" * 10_000}
        while simulator.stats.slow_clients == 0:
            assert simulator.emit("iex", message) == 1
            await asyncio.sleep(0)
        assert simulator.stats.errors_sent[407] == 1
        await eventually(lambda: simulator.stats.market_open == 1)
        assert simulator.emit("iex", {"T": "l", "S": "B"}) == 1
        assert (await keen.receive())[0]["S"] == "B"
        transport.resume_reading()


async def test_409_refused_feed(start: Start) -> None:
    """A feed outside the plan is refused in reply to auth."""
    simulator = await start(refused_feeds=frozenset({"sip"}))
    async with dialled(simulator, "/v2/sip") as client:
        await client.receive()
        assert await client.ask(AUTH) == error(409, "insufficient subscription")
    async with market(simulator, "/v2/iex"):
        pass


@pytest.mark.parametrize(
    ("path", "channel"),
    [("/v2/iex", "orderbooks"), ("/v2/iex", "news"), ("/v2/test", "updatedBars")],
)
async def test_410_channel_of_another_feed(quiet: Simulator, path: str, channel: str) -> None:
    """Refused if it is not empty, tolerated if it is."""
    async with market(quiet, path) as client:
        refused = await client.ask({"action": "subscribe", channel: ["A"], "trades": ["A"]})
        assert refused == error(410, "invalid subscribe action for this feed")
        for empty in ([], None):
            answer = await client.ask({"action": "subscribe", channel: empty, "bars": ["B"]})
            assert answer[0]["bars"] == ["B"]
            assert answer[0]["trades"] == []


async def test_500_our_own_fault(
    quiet: Simulator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug of the simulator is an error message, not a broken session."""
    monkeypatch.setattr(quiet._hub, "owner", lambda key, secret: 1 / 0)
    async with dialled(quiet, "/v2/iex") as client:
        await client.receive()
        with caplog.at_level(logging.CRITICAL):
            assert await client.ask(AUTH) == error(500, "internal error")


async def test_acks_are_complete_and_ordered(quiet: Simulator) -> None:
    """Every channel key in the documented order, the whole list, whatever was asked."""
    async with market(quiet) as client:
        first = await client.ask({"action": "subscribe", "trades": ["B", "A"], "bars": ["*"]})
        assert list(first[0]) == list(ack()[0])
        assert first == ack(trades=["A", "B"], bars=["*"])
        second = await client.ask({"action": "subscribe", "trades": ["C"], "lulds": ["A"]})
        assert second == ack(trades=["A", "B", "C"], bars=["*"], lulds=["A"])
        third = await client.ask({"action": "unsubscribe", "trades": ["A", "Z"], "bars": ["A"]})
        assert third == ack(trades=["B", "C"], bars=["*"], lulds=["A"])
        fourth = await client.ask({"action": "unsubscribe", "bars": ["*"], "statuses": None})
        assert fourth == ack(trades=["B", "C"], lulds=["A"])


async def test_ack_of_the_test_feed_has_three_channels(quiet: Simulator) -> None:
    """As its documented example."""
    async with market(quiet, "/v2/test") as client:
        answer = await client.ask({"action": "subscribe", "bars": ["FAKEPACA"]})
        expected = {"T": "subscription", "trades": [], "quotes": [], "bars": ["FAKEPACA"]}
        assert answer == [expected]


async def test_ack_is_the_first_message_after_a_subscribe(start: Start) -> None:
    """Even with a market that never pauses."""
    simulator = await start(rate=2000.0)
    async with market(simulator, headers=MSGPACK) as client:
        await client.send({"action": "subscribe", "trades": ["*"], "quotes": ["*"]})
        assert (await client.receive())[0]["T"] == "subscription"
        assert (await client.receive())[0]["T"] in {"t", "q"}


async def test_emitted_messages_reach_subscribers_only(quiet: Simulator) -> None:
    """By feed, channel and symbol; "*" takes all of a channel."""
    async with market(quiet) as one, market(quiet, "/v2/sip") as all_:
        await one.ask({"action": "subscribe", "trades": ["A"]})
        await all_.ask({"action": "subscribe", "quotes": ["*"]})
        trade = {"S": "A", "p": 1.5, "s": 1, "T": "t", "t": "2026-01-05T15:00:00Z"}
        assert quiet.emit("iex", trade | {"S": "B"}) == 0
        assert quiet.emit("sip", trade) == 0
        assert quiet.emit("iex", trade) == 1
        assert quiet.emit("sip", {"T": "q", "S": "B"}) == 1
        (received,) = await one.receive()
        assert received == trade
        assert next(iter(received)) == "T"
        assert (await all_.receive())[0]["S"] == "B"


@pytest.mark.parametrize("kind", ["c", "x"])
async def test_corrections_and_cancels_follow_trades(quiet: Simulator, kind: str) -> None:
    """Nobody subscribes to them; they come with the trades of the symbol."""
    async with market(quiet) as client:
        await client.ask({"action": "subscribe", "trades": ["A"]})
        assert quiet.emit("iex", {"T": kind, "S": "A", "x": "V"}) == 1
        assert (await client.receive())[0]["T"] == kind


async def test_unknown_types_and_raw_frames_reach_everyone(quiet: Simulator) -> None:
    """So that tests can show a client what it does not expect."""
    async with market(quiet) as client:
        assert quiet.emit("iex", {"T": "zz", "S": "A", "t": "now"}) == 1
        assert await client.receive() == [{"T": "zz", "S": "A", "t": "now"}]
        assert quiet.emit_raw("iex", b"[{") == 1
        assert (await client.frame()).data == "[{"


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("2026-01-05T15:00:00Z", "695bd1f0"),
        ("2026-01-05T15:00:00.123456789Z", "1d6f3454695bd1f0"),
        ("2600-01-01T00:00:00.5Z", "1dcd650000000004a0fe7280"),
        ("1969-12-31T23:59:59Z", "00000000ffffffffffffffff"),
    ],
)
async def test_msgpack_timestamps_are_extension_minus_one(
    quiet: Simulator, text: str, data: str
) -> None:
    """In the three lengths of the standard timestamp type."""
    async with market(quiet, headers=MSGPACK) as client:
        await client.ask({"action": "subscribe", "bars": ["A"]})
        quiet.emit("iex", {"T": "b", "S": "A", "t": text})
        frame = await client.frame()
        (message,) = msgspec.msgpack.decode(frame.data, type=list[dict[str, msgspec.Raw]])
        assert bytes(message["t"])[-len(data) // 2 :].hex() == data
        assert bytes(message["t"])[:2] in (b"\xd6\xff", b"\xd7\xff", b"\xc7\x0c")


@pytest.mark.parametrize("headers", [{}, MSGPACK])
async def test_synthetic_market_speaks_both_codecs(start: Start, headers: dict[str, str]) -> None:
    """Trades and quotes with the documented fields, ints as ints."""
    simulator = await start(rate=200.0)
    async with market(simulator, headers=headers) as client:
        await client.ask({"action": "subscribe", "trades": ["AAPL"], "quotes": ["AAPL"]})
        trade, quote = await client.receive_type("t"), await client.receive_type("q")
        assert list(trade) == ["T", "S", "i", "x", "p", "s", "c", "z", "t"]
        assert [type(trade[key]) for key in "ixpscz"] == [int, str, float, int, list, str]
        assert list(quote) == ["T", "S", "bx", "bp", "bs", "ax", "ap", "as", "c", "z", "t"]
        assert quote["bp"] < quote["ap"]


async def test_equal_seeds_make_equal_prices(start: Start) -> None:
    """The walk of a symbol depends on the seed only."""

    async def prices(seed: int) -> list[float]:
        simulator = await start(rate=500.0, seed=seed)
        async with market(simulator) as client:
            await client.ask({"action": "subscribe", "trades": ["AAPL"]})
            found = [(await client.receive_type("t"))["p"]]
            while len(found) < 5:
                found += [message["p"] for message in await client.receive()]
            return found[:5]

    assert (await prices(7))[:1] == (await prices(7))[:1]
    assert await prices(7) != await prices(8)


async def test_test_feed_only_knows_fakepaca(start: Start) -> None:
    """Other symbols are accepted but silent there, and FAKEPACA is silent elsewhere."""
    simulator = await start(rate=200.0)
    async with market(simulator, "/v2/test") as client, market(simulator) as stocks:
        await client.ask({"action": "subscribe", "trades": ["FAKEPACA", "AAPL"]})
        await stocks.ask({"action": "subscribe", "trades": ["FAKEPACA", "AAPL"]})
        for _ in range(3):
            assert {message["S"] for message in await client.receive()} == {"FAKEPACA"}
            assert {message["S"] for message in await stocks.receive()} == {"AAPL"}


async def test_fragmented_messages_are_put_together(quiet: Simulator) -> None:
    """Fragments, with an empty last one, as the Python SDK sends its subscriptions."""
    reader, writer = await asyncio.open_connection("127.0.0.1", quiet.port)
    handshake = (
        "GET /v2/iex HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    writer.write(handshake.encode())
    await reader.readuntil(b"\r\n\r\n")
    body = msgspec.json.encode(AUTH)
    first, second = body[:10], body[10:]
    for head, part in ((0x01, first), (0x00, second), (0x80, b"")):
        writer.write(bytes((head, 0x80 | len(part), 0, 0, 0, 0)) + part)
    assert b"authenticated" in await asyncio.wait_for(reader.readuntil(b"authenticated"), 45)
    writer.close()
    await writer.wait_closed()


async def test_deflate_is_negotiated_when_offered(quiet: Simulator) -> None:
    """And the messages survive it; without an offer there is none."""
    async with dialled(quiet, "/v2/iex", KEY, compress=15) as client:
        assert client.socket.compress
        assert [await client.receive(), await client.receive()] == [CONNECTED, AUTHENTICATED]
        symbols = [f"S{n}" for n in range(2000)]
        answer = await client.ask({"action": "subscribe", "lulds": symbols})
        assert answer == ack(lulds=sorted(symbols))
    async with dialled(quiet, "/v2/sip", KEY, compress=0) as client:
        assert not client.socket.compress
        assert await client.receive() == CONNECTED


async def test_too_large_messages_close_with_1009(quiet: Simulator) -> None:
    """More than 1 MiB is not read."""
    async with market(quiet) as client:
        await client.socket.send_str(" " * (1024 * 1024 + 1))
        frame = await client.frame()
        assert (frame.type, frame.data) == (aiohttp.WSMsgType.CLOSE, 1009)


async def test_pings_are_answered(quiet: Simulator) -> None:
    """At once, also on an idle connection."""
    async with dialled(quiet, "/v2/iex", autoping=False) as client:
        await client.receive()
        await client.socket.ping(b"hello")
        frame = await client.frame()
        assert (frame.type, bytes(frame.data)) == (aiohttp.WSMsgType.PONG, b"hello")


async def test_cut_drops_without_a_close_frame(quiet: Simulator) -> None:
    """As a network failure does; the slot is free again."""
    async with market(quiet) as client:
        assert quiet.cut("trading") == 0
        assert quiet.cut("market") == 1
        frame = await client.frame()
        assert frame.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
    await eventually(lambda: quiet.stats.market_open == 0)
    async with market(quiet):
        pass


async def test_mute_keeps_the_connection_but_loses_the_data(quiet: Simulator) -> None:
    """A muted session hears nothing; a new one does."""
    async with market(quiet) as deaf, market(quiet, "/v2/sip") as client:
        await deaf.ask({"action": "subscribe", "lulds": ["A"]})
        quiet.mute("market")
        quiet.emit("iex", {"T": "l", "S": "A", "u": 1})
        await deaf.socket.ping()
        await asyncio.sleep(0.02)
        quiet.mute("market", muted=False)
        quiet.emit("iex", {"T": "l", "S": "A", "u": 2})
        assert (await deaf.receive())[0]["u"] == 2
        assert (await client.ask({"action": "subscribe", "bars": []}))[0]["T"] == "subscription"


async def test_counters(quiet: Simulator) -> None:
    """What clients did can be read off the stats."""
    async with market(quiet) as client:
        await client.ask({"action": "subscribe", "lulds": ["A"]})
        await client.ask({"action": "unsubscribe", "lulds": ["A"]})
        await client.socket.close(code=4321)
    await eventually(lambda: quiet.stats.market_open == 0)
    stats = quiet.stats
    assert (stats.market_connections, stats.market_sessions) == (1, 1)
    assert (stats.subscribe_messages, stats.unsubscribe_messages) == (1, 1)
    assert stats.messages_sent == stats.frames_sent == 4
    assert list(stats.close_codes) == [4321]


async def test_refused_upgrades(quiet: Simulator) -> None:
    """For tests of clients that reconnect too quickly."""
    quiet.refuse_sockets(429)
    for path in ("/v2/iex", "/stream"):
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            async with dialled(quiet, path):
                pass
        assert caught.value.status == 429
    quiet.refuse_sockets(None)
    async with market(quiet):
        pass


async def test_a_client_that_asks_without_reading_is_cut(start: Start) -> None:
    """Answers are bounded too."""
    simulator = await start(send_limit_bytes=5000)
    async with market(simulator) as client:
        transport = client.socket._response.connection.transport  # type: ignore[union-attr]
        transport.pause_reading()
        request = {"action": "subscribe", "lulds": [f"S{n}" for n in range(10_000)]}
        with contextlib.suppress(ConnectionError):
            while simulator.stats.market_open:
                await client.send(request)
                await asyncio.sleep(0)
        transport.resume_reading()
    await eventually(lambda: simulator.stats.market_open == 0)
