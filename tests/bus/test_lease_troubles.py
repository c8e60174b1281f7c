"""The lease's keeper in trouble: Redis restarted, slow, full, or holding what nobody expects."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
from full_disk import SmallDisk
from lease_copies import Copy, soon
from support import PATIENCE_S
from wire import Wire

from alpaca_broker.bus.fence import EPOCH_IN
from alpaca_broker.core.lease import MOST_EPOCH
from alpaca_broker.embedded import EmbeddedRedis


@pytest.fixture
async def client(valkey: EmbeddedRedis) -> AsyncIterator[redis.asyncio.Redis]:
    """A client of nobody's."""
    async with redis.asyncio.Redis(port=valkey.port) as found:
        yield found


def one_connection(port: int) -> redis.asyncio.Redis:
    """A client that does not connect again by itself into another connection's number."""
    return redis.asyncio.Redis(port=port, single_connection_client=True)


async def numbers(client: Any) -> set[int]:
    """The connections that the server has."""
    return {int(c["id"]) for c in await client.client_list()}


async def no_lease(client: Any, prefix: str) -> None:
    """Wait until the lease has run out."""
    async with asyncio.timeout(PATIENCE_S):
        while await client.get(f"{prefix}broker:leader"):  # noqa: ASYNC110 - Redis' own clock
            await asyncio.sleep(0.05)


async def test_who_has_the_number_of_a_former_connection_is_left_alone(tmp_path: Path) -> None:
    """A Redis that was restarted counts its connections anew, and still knows the last leader."""
    config = {"appendonly": "yes", "appendfsync": "always"}
    with EmbeddedRedis(folder=tmp_path, **config) as server:
        async with Copy(server.port, "", "first").running() as first:
            await soon(lambda: first.epochs)
            for _ in range(20):  # numbers that a restarted server soon gives to others
                async with one_connection(server.port) as held:
                    last = (await first.has(held)).number
        server.stop()
        server.start()
        async with AsyncExitStack() as strangers:
            theirs: set[int] = set()
            while max(theirs, default=0) < last + 10:
                stranger = one_connection(server.port)
                strangers.push_async_callback(stranger.aclose)
                theirs.add(int(await stranger.client_id()))
            entry = json.loads(await stranger.get("broker:deployment"))
            assert theirs & set(entry["connections"])
            async with Copy(server.port, "", "second").running() as second:
                await soon(lambda: second.epochs)
                assert theirs <= await numbers(stranger)


async def test_who_starts_after_the_lease_ran_out_cuts_the_last_leader(
    valkey: EmbeddedRedis, prefix: str, client: Any
) -> None:
    """It never saw the lease; the connections are named beyond it."""
    async with one_connection(valkey.port) as held:
        async with Copy(valkey.port, prefix, "first").running() as first:
            await soon(lambda: first.epochs)
            link = await first.has(held)
        await no_lease(client, prefix)
        assert link.number in await numbers(client)
        async with Copy(valkey.port, prefix, "second").running() as second:
            await soon(lambda: second.epochs)
            assert link.number not in await numbers(client)


async def test_nobody_leads_before_the_last_leader_is_cut_and_nothing_is_forgotten(
    valkey: EmbeddedRedis, prefix: str, client: Any
) -> None:
    """Where the order to cut is lost it is given again, if need be by the next one."""
    async with one_connection(valkey.port) as held:
        async with Copy(valkey.port, prefix, "first").running() as first:
            await soon(lambda: first.epochs)
            link = await first.has(held)
        async with (
            Wire(valkey.port, cut_at=b"KILL") as wire,
            Copy(wire.port, prefix, "second").running() as second,
        ):
            await soon(lambda: wire.cuts >= 2)
            assert second.epochs == []
            assert not second.fence.is_open
            assert link.number in await numbers(client)
        async with Copy(valkey.port, prefix, "third").running() as third:
            await soon(lambda: third.epochs)
            assert link.number not in await numbers(client)
            entry = json.loads(await client.get(f"{prefix}broker:deployment"))
            await soon(lambda: third.fence.is_open)
        assert entry["leader"] == "third"


async def test_what_redis_does_not_let_us_name_or_cut_is_no_connection_of_anybodys(
    valkey: EmbeddedRedis, prefix: str, client: Any
) -> None:
    """A number alone cuts nobody: neither by an older copy's entry nor by a foolish one."""
    async with one_connection(valkey.port) as stranger:
        info = await stranger.client_info()
        number, address = int(info["id"]), info["addr"]
        entry = {"leader": "x", "keys": ["key"], "connections": [number, -1, 2**64, number]}
        for addresses in ([], ["there:1", address, address, ""]):
            await client.set(
                f"{prefix}broker:deployment", json.dumps(entry | {"addresses": addresses})
            )
            await client.delete(f"{prefix}broker:leader", f"{prefix}broker:epoch")
            async with Copy(valkey.port, prefix, "copy").running() as copy:
                await soon(lambda copy=copy: copy.epochs)
        assert number in await numbers(client)


async def test_a_slow_redis_has_a_leader(valkey: EmbeddedRedis, prefix: str, client: Any) -> None:
    """A second for each answer, both after a crash and from then on; a copy leaves it alone.

    Half a second is left of such a lease. Where the machine does not let us run for as long, it is
    lost, and rightly so: then it is tried again.
    """
    async with Wire(valkey.port, delay_s=0.5) as wire:
        for trial in range(4):
            at = f"{prefix}{trial}:"
            await client.set(f"{at}broker:epoch", 1)  # somebody led
            if await one_leads_and_the_other_waits(wire.port, at):
                return
    raise AssertionError("nobody keeps the lead")


async def one_leads_and_the_other_waits(port: int, prefix: str) -> bool:
    """What it is told in time is that it may write, again and again."""
    async with (
        Copy(port, prefix, "first").running() as first,
        Copy(port, prefix, "second").running() as second,
    ):
        await soon(lambda: first.epochs or second.epochs)
        leader, other = (first, second) if first.epochs else (second, first)
        for _ in range(3):
            until = leader.fence.until
            await soon(lambda until=until: leader.fence.until != until)
            if not leader.fence.is_open:
                return False
        return (len(leader.epochs), other.epochs) == (1, [])


HOSTILE = [
    "inf",
    "1e300",
    "nan",
    "-7",
    "0x7fffffffffffffff",
    str(MOST_EPOCH + 2),
    "text",
    "9" * 400,
]


@pytest.mark.parametrize("value", HOSTILE)
async def test_what_is_no_epoch_is_understood_as_none(
    valkey: EmbeddedRedis, prefix: str, client: Any, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Before the lead, where the line names the key; and under it, where ours is kept again."""
    key = f"{prefix}broker:epoch"
    await client.set(key, value)
    before, _ = await client.time()
    async with Copy(valkey.port, prefix, "copy").running() as copy:
        await soon(lambda: copy.epochs)
        after, _ = await client.time()
        assert before * 1_000 <= copy.epochs[0] < (after + 1) * 1_000
        (line,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
        assert line.startswith(f"what {key} holds is no epoch ({value.encode()!r:.40})")
        assert await client.eval(EPOCH_IN + "return epoch_in(KEYS[1])", 1, key) == copy.epochs[0]
        async with client.pipeline(transaction=True) as at_once:  # it is kept again soon
            at_once.set(key, value).eval(EPOCH_IN + "return epoch_in(KEYS[1])", 1, key)
            assert (await at_once.execute())[1] == 0
        async with asyncio.timeout(PATIENCE_S):
            while await client.get(key) != str(copy.epochs[0]).encode():  # noqa: ASYNC110 - Redis has it
                await asyncio.sleep(0.02)
        assert len(copy.epochs) == 1


async def test_keys_of_another_kind_are_replaced(
    valkey: EmbeddedRedis, prefix: str, client: Any
) -> None:
    """What stands in their place is nobody's lease, epoch or deployment: before and under us."""

    async def spoil() -> None:
        for name in ("leader", "epoch", "deployment"):
            await client.delete(f"{prefix}broker:{name}")
            await client.hset(f"{prefix}broker:{name}", "a", "b")

    await spoil()
    async with Copy(valkey.port, prefix, "copy").running() as copy:
        await soon(lambda: copy.epochs)
        await spoil()
        async with asyncio.timeout(PATIENCE_S):
            while await client.type(f"{prefix}broker:deployment") != b"string":  # noqa: ASYNC110 - Redis has it
                await asyncio.sleep(0.02)
        assert int(await client.get(f"{prefix}broker:epoch")) == copy.epochs[0]
        assert len(copy.epochs) == 1


async def test_the_highest_epoch_is_one_that_every_bot_can_read(
    valkey: EmbeddedRedis, prefix: str, client: Any
) -> None:
    """A whole number to whoever reads numbers into doubles."""
    await client.set(f"{prefix}broker:epoch", MOST_EPOCH)
    async with Copy(valkey.port, prefix, "copy").running() as copy:
        await soon(lambda: copy.epochs)
    assert copy.epochs[0] == MOST_EPOCH + 1 == int(float(MOST_EPOCH + 1))


async def test_when_a_full_disk_has_room_again_the_leader_comes_first(tmp_path: Path) -> None:
    """Though it is slow, and the other one has seen the lease absent all the while."""
    with SmallDisk(tmp_path) as disk:
        async with (
            Wire(disk.port, delay_s=0.3) as wire,
            Copy(wire.port, "", "first").running() as first,
        ):
            await soon(lambda: first.fence.is_open)
            async with (
                Copy(disk.port, "", "second").running() as second,
                redis.asyncio.Redis(port=disk.port) as client,
            ):
                await soon(lambda: second.keeper._stood_by)
                await asyncio.to_thread(disk.fill)
                await no_lease(client, "")
                await soon(lambda: not second.keeper.redis.is_up)
                await asyncio.sleep(1.5)  # longer than a lease has to be absent
                await soon(lambda: first.fence.is_open)  # what is only said goes on
                await asyncio.to_thread(disk.clear)
                async with asyncio.timeout(PATIENCE_S):
                    while not await client.get("broker:leader"):  # noqa: ASYNC110 - Redis has it
                        await asyncio.sleep(0.01)
                await soon(lambda: second.keeper.redis.is_up)
                assert (len(first.epochs), second.epochs) == (1, [])
