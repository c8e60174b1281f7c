"""What Alpaca's documentation leaves open, answered the other way."""

import aiohttp
import pytest
from simulator_clients import KEY, MSGPACK, Start, dialled

from alpaca_broker.simulator import Variants

AUTHENTICATED = [{"T": "success", "msg": "authenticated"}]
CLOSED = (aiohttp.WSMsgType.CLOSE, 1008)


async def test_credentials_in_headers_without_a_welcome(start: Start) -> None:
    """`authenticated` comes first; who authenticates by message is welcomed all the same."""
    simulator = await start(variants=Variants(header_welcome=False))
    async with dialled(simulator, "/v2/iex", KEY) as client:
        assert await client.receive() == AUTHENTICATED
    async with dialled(simulator, "/v2/iex") as client:
        assert (await client.receive())[0]["msg"] == "connected"


async def test_wrong_credentials_in_headers_fail_the_upgrade(start: Start) -> None:
    """With the status of the variant; right ones do not."""
    simulator = await start(keys={"PK1": "s1"}, variants=Variants(bad_header_status=401))
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        async with dialled(simulator, "/v2/iex", KEY | {"APCA-API-SECRET-KEY": "no"}):
            pass
    assert caught.value.status == 401
    async with dialled(simulator, "/v2/iex", KEY) as client:
        assert (await client.receive())[0]["msg"] == "connected"


@pytest.mark.parametrize("headers", [{}, KEY])
async def test_refusals_that_close(start: Start, headers: dict[str, str]) -> None:
    """The error first, then the close frame; other errors leave the socket open."""
    simulator = await start(variants=Variants(closing_errors=frozenset({406})))
    async with dialled(simulator, "/v2/iex", KEY) as holder:
        await holder.receive()
        assert await holder.receive() == AUTHENTICATED
        async with dialled(simulator, "/v2/iex", headers) as client:
            await client.receive()
            if not headers:
                await client.send({"action": "auth", "key": "PK1", "secret": "s1"})
            assert (await client.receive())[0]["code"] == 406
            frame = await client.frame()
            assert (frame.type, frame.data) == CLOSED
        assert (await holder.ask({"action": "dance"}))[0]["code"] == 400
        assert (await holder.ask({"action": "subscribe", "bars": []}))[0]["T"] == "subscription"


async def test_sparse_acknowledgements(start: Start) -> None:
    """Only the channels that somebody asked for."""
    simulator = await start(rate=0.001, variants=Variants(sparse_acks=True))
    async with dialled(simulator, "/v2/iex", KEY) as client:
        await client.receive()
        await client.receive()
        ack = await client.ask({"action": "subscribe", "bars": ["A"]})
        assert ack == [{"T": "subscription", "bars": ["A"]}]
        assert await client.ask({"action": "unsubscribe", "bars": ["A"]}) == [{"T": "subscription"}]


@pytest.mark.parametrize("headers", [KEY, KEY | MSGPACK])
async def test_the_type_may_come_last(start: Start, headers: dict[str, str]) -> None:
    """In control messages and in data, to the nanosecond."""
    simulator = await start(rate=100.0, variants=Variants(type_last=True))
    async with dialled(simulator, "/v2/iex", headers) as client:
        assert list((await client.receive())[0]) == ["msg", "T"]
        await client.receive()
        ack = (await client.ask({"action": "subscribe", "trades": ["AAPL"], "lulds": ["B"]}))[0]
        assert list(ack)[-1] == "T"
        trade = await client.receive_type("t")
        assert list(trade)[-1] == "T"
        assert trade["S"] == "AAPL"
        simulator.data.band("iex", "B")
        assert list(await client.receive_type("l"))[-1] == "T"
