"""The lease's keeper against a real server: what it writes, and when it lets go."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from time import monotonic
from typing import Any

import pytest
import redis.asyncio
from lease_copies import Copy, soon
from support import PATIENCE_S, Stopwatch

from alpaca_broker.bus import fence as fence_module
from alpaca_broker.bus.fence import Fence, always_open
from alpaca_broker.bus.lease import TAKE
from alpaca_broker.core import lease as core_lease
from alpaca_broker.core.lease import LASTS_S, Holder, Link
from alpaca_broker.core.messages import encode
from alpaca_broker.embedded import EmbeddedRedis
from alpaca_broker.errors import ConfigError


@pytest.fixture
async def client(valkey: EmbeddedRedis) -> AsyncIterator[redis.asyncio.Redis]:
    """A client of nobody's."""
    async with redis.asyncio.Redis(port=valkey.port) as found:
        yield found


async def test_the_first_leads_at_once_and_says_so(
    valkey: EmbeddedRedis, prefix: str, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Name, epoch, connections and keys, in a value that expires."""
    monkeypatch.setattr(core_lease, "ABSENT_FOR_S", 3_600.0)  # it is not waited for
    async with Copy(valkey.port, prefix, "first").running() as first:
        await soon(lambda: first.epochs)
        assert first.fence.is_open
        value = json.loads(await client.get(f"{prefix}broker:leader"))
        assert (value["leader"], value["epoch"]) == ("first", first.epochs[0])
        assert value["keys"] == ["key"]
        mine = {c["id"] for c in await client.client_list() if c["name"] == "alpaca-broker:lease"}
        assert set(map(str, value["connections"])) <= mine
        assert 0 < await client.pttl(f"{prefix}broker:leader") <= LASTS_S * 1_000


async def test_a_second_one_waits_and_takes_over(
    valkey: EmbeddedRedis, prefix: str, client: Any
) -> None:
    """A leader that goes without a word is replaced within three seconds, by a higher epoch.

    What it left open is cut: nothing that hangs in a connection of its arrives any more.
    """
    left_open = await redis.asyncio.Redis(port=valkey.port, single_connection_client=True)
    info = await left_open.client_info()
    number = info["id"]
    second = Copy(valkey.port, prefix, "second")
    async with Copy(valkey.port, prefix, "first").running() as first:
        await soon(lambda: first.epochs)
        first.fence.enter("pipe", Link(int(number), info["addr"]), lambda: True)
        standing_by = asyncio.create_task(second.keeper.run())
        await soon(lambda: second.keeper._stood_by)
        assert second.epochs == []
        assert not second.fence.is_open
    began = monotonic()
    with Stopwatch() as lived:
        await soon(lambda: second.epochs)
    assert monotonic() - began > 1.0
    assert lived.seconds < 3.0
    assert second.epochs[0] > first.epochs[0]
    assert str(number) not in {c["id"] for c in await client.client_list()}
    await left_open.aclose()
    standing_by.cancel()
    await asyncio.wait([standing_by])


async def test_what_is_taken_is_lost_and_taken_again(
    valkey: EmbeddedRedis, prefix: str, client: Any
) -> None:
    """A higher epoch ends ours at once; once its holder is gone ours is higher still."""
    async with Copy(valkey.port, prefix, "patient").running() as copy:
        await soon(lambda: copy.epochs)
        first = copy.epochs[0]
        other = encode(Holder(epoch=first + 10, leader="other", keys=["key"]))
        async with client.pipeline(transaction=True) as at_once:
            at_once.set(f"{prefix}broker:leader", other, px=300)
            await at_once.set(f"{prefix}broker:epoch", first + 10).execute()
        await soon(lambda: len(copy.epochs) > 1)
        assert copy.epochs[1] == 0
        assert not copy.fence.is_open
        await soon(lambda: len(copy.epochs) > 2)
        assert copy.epochs[2] > first + 10


async def test_what_redis_forgot_is_taken_up_again(
    valkey: EmbeddedRedis, prefix: str, client: Any
) -> None:
    """The lease is still free, so it is still ours, and so is the epoch."""
    async with Copy(valkey.port, prefix, "alone").running() as copy:
        await soon(lambda: copy.epochs)
        await client.delete(f"{prefix}broker:leader", f"{prefix}broker:epoch")
        copy.keeper.renew_now()
        async with asyncio.timeout(PATIENCE_S):
            while not await client.get(f"{prefix}broker:epoch"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert int(await client.get(f"{prefix}broker:epoch")) == copy.epochs[0]
        assert len(copy.epochs) == 1


@pytest.mark.parametrize("gone", [False, True])
async def test_another_deployment_is_named_and_refused(
    valkey: EmbeddedRedis, prefix: str, gone: bool, client: Any
) -> None:
    """While it leads, and where it left its keys behind."""
    async with Copy(valkey.port, prefix, "host:1:abc", "theirs").running() as theirs:
        await soon(lambda: theirs.epochs)
        stranger = Copy(valkey.port, prefix, "stranger", "ours")
        if not gone:
            with pytest.raises(ConfigError, match=f"CHANNEL_PREFIX '{prefix}'.*host:1:abc"):
                await stranger.keeper.run()
    if gone:
        await client.delete(f"{prefix}broker:leader")
        with pytest.raises(ConfigError, match=f"host:1:abc.*delete the key {prefix}broker:depl"):
            await stranger.keeper.run()
        await client.delete(f"{prefix}broker:deployment", f"{prefix}broker:leader")
        async with Copy(valkey.port, prefix, "stranger", "ours").running() as adopted:
            await soon(lambda: adopted.epochs)


async def test_the_epoch_rises_even_where_redis_is_ahead(
    valkey: EmbeddedRedis, prefix: str, client: Any
) -> None:
    """max(stored + 1, Redis' clock in ms), and it is stored."""
    take = client.register_script(TAKE)
    keys = [f"{prefix}broker:{name}" for name in ("leader", "epoch", "deployment")]

    async def taken() -> int:
        await client.delete(keys[0])
        whose = await client.get(keys[2]) or ""
        return int(await take(keys=keys, args=["", whose, ',"leader":"x"}', 1_000, "{}"]))

    first = await taken()
    seconds, microseconds = await client.time()
    assert abs(seconds * 1_000 + microseconds // 1_000 - first) < 2_000
    await client.set(keys[1], first + 10**9)
    assert await taken() == first + 10**9 + 1
    assert await take(keys=keys, args=["", "{}", ',"leader":"y"}', 1_000, "{}"]) is None
    assert int(await client.get(keys[1])) == first + 10**9 + 1


async def test_a_fence_closes_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """No renewal, no writing: by our own clock, without a word from Redis."""
    now = [100.0]
    monkeypatch.setattr(fence_module, "monotonic", lambda: now[0])
    fence = Fence()
    assert not fence.is_open
    fence.extend(100.05, 0)
    assert fence.is_open
    now[0] = 100.05
    assert not fence.is_open


async def test_a_connection_is_admitted_once_the_lease_names_it() -> None:
    """Not by a renewal that was on its way before."""
    fence = Fence()
    place = fence.enter("pipe", Link(42, "there:1"), lambda: True)
    fence.extend(monotonic() + 9, place - 1)
    waiting = asyncio.create_task(fence.admit(place))
    await asyncio.sleep(0.03)
    assert not waiting.done()
    entered, numbers = fence.connections()
    assert numbers == [Link(42, "there:1")]
    fence.extend(monotonic() + 9, entered)
    async with asyncio.timeout(PATIENCE_S):
        await waiting
    fence.leave("pipe")
    assert fence.connections() == (1, [])


async def test_a_tool_needs_no_lease() -> None:
    """Its fence is open, and admits at once."""
    fence = always_open()
    assert fence.is_open
    async with asyncio.timeout(PATIENCE_S):
        await fence.admit(fence.enter("pipe", Link(), lambda: True))
