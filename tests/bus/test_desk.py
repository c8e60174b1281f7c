"""The registrar's desk: what it writes, it writes as the leader."""

from __future__ import annotations

import asyncio
import json
from time import monotonic

import pytest
import redis.asyncio
from support import PATIENCE_S

from alpaca_broker.bus.desk import AT_ONCE, Desk
from alpaca_broker.bus.fence import always_open
from alpaca_broker.bus.journal import Superseded
from alpaca_broker.bus.registrar import Registrar
from alpaca_broker.core.channels import Channels
from alpaca_broker.embedded import EmbeddedRedis


def registered(registrar: Registrar, bots: int, reply_to: str) -> None:
    """So many bots have registered, and wait for an answer."""
    for number in range(bots):
        message = {"action": "register", "symbols": ["AAPL"], "bot_id": f"bot{number}"}
        registrar.hear(json.dumps(message | {"reply_to": reply_to}).encode(), monotonic())
    registrar.settle(monotonic())


@pytest.mark.parametrize("ahead", [0, 1])
async def test_it_writes_nothing_once_another_one_leads(
    valkey: EmbeddedRedis, prefix: str, ahead: int
) -> None:
    """Though its own fence is open: it was suspended between a look at that and the writing."""
    channels, registrar = Channels(prefix), Registrar(lambda topics, names: None)
    registrar.begin(7)
    async with redis.asyncio.Redis(port=valkey.port) as client, client.pubsub() as answers:
        await answers.subscribe(f"{prefix}answers")
        await answers.get_message(timeout=PATIENCE_S)
        desk = Desk(client, channels, registrar, always_open())
        registered(registrar, 2 * AT_ONCE + 1, f"{prefix}answers")
        bots = len(registrar.changed)
        await client.set(channels.epoch, 7 + ahead)
        writing = asyncio.create_task(desk.write())
        if ahead:
            with pytest.raises(Superseded):
                async with asyncio.timeout(PATIENCE_S):
                    await writing
            assert len(registrar.changed) == bots  # for when we lead again
            assert registrar.replies
            with pytest.raises(Superseded):
                await desk._answer()
        else:
            async with asyncio.timeout(PATIENCE_S):
                while registrar.changed or registrar.replies:  # noqa: ASYNC110 - any condition
                    await asyncio.sleep(0.01)
            writing.cancel()
            await asyncio.wait([writing])
        assert await client.hlen(channels.registry) == (0 if ahead else bots)
        message = await answers.get_message(timeout=0.2 if ahead else PATIENCE_S)
        assert (message is None) is bool(ahead)


async def test_wishes_are_kept_and_taken_back(valkey: EmbeddedRedis, prefix: str) -> None:
    """A bot that wants nothing any more is kept no longer, beside one that does."""
    channels, registrar = Channels(prefix), Registrar(lambda topics, names: None)
    registrar.begin(7)
    async with redis.asyncio.Redis(port=valkey.port) as client:
        desk = Desk(client, channels, registrar, always_open())
        registered(registrar, 3, "answers")
        await desk._keep()
        goodbye = {"action": "unregister", "bot_id": "bot1"}
        registrar.hear(json.dumps(goodbye).encode(), monotonic())
        await desk._keep()
        assert set(await client.hgetall(channels.registry)) == {b"bot0", b"bot2"}
        again = Registrar(lambda topics, names: None)
        await Desk(client, channels, again, always_open()).restore()
        assert len(again.registry) == 2
