"""Control: it ends whenever it is told to."""

from __future__ import annotations

import asyncio
import random
import time

import uvloop
from support import PATIENCE_S

from alpaca_broker.bus.fence import Fence
from alpaca_broker.bus.registrar import Registrar
from alpaca_broker.control import Control
from alpaca_broker.core.channels import Channels
from alpaca_broker.core.messages import Status
from alpaca_broker.embedded import EmbeddedRedis
from alpaca_broker.settings import RedisTarget
from alpaca_broker.telemetry import RecordQueue, Redactor


def control(server: EmbeddedRedis, prefix: str) -> Control:
    """Control parts without producers."""
    return Control(
        target=RedisTarget("127.0.0.1", server.port, 0),
        channels=Channels(prefix),
        fence=Fence(),
        leader="test",
        keys=["key"],
        records=RecordQueue(Redactor()),
        registrar=Registrar(lambda symbols, accounts: None),
        compose=lambda: Status(
            epoch=1,
            leader="test",
            timestamp=time.time(),
            state="live",
            feeds={},
            accounts={},
            bots=0,
        ),
        on_lead=lambda epoch, received: None,
        on_loss=lambda: None,
        rest=None,
    )


def test_it_ends_whenever_it_is_cancelled(valkey: EmbeddedRedis, prefix: str) -> None:
    """At any moment of a beat: redis-py's own send deadline once swallowed a cancellation here."""

    async def once(number: int) -> None:
        parts = control(valkey, f"{prefix}{number}:")
        running = asyncio.create_task(parts.run())
        for _ in range(random.Random(number).randrange(12)):
            parts.heartbeat.beat_now()
            await asyncio.sleep(random.random() * 0.002)
        running.cancel()
        _, pending = await asyncio.wait([running], timeout=PATIENCE_S)
        assert not pending, f"still running after its cancellation (seed {number})"

    async def all_of_them() -> None:
        for first in range(0, 100, 20):
            await asyncio.gather(*(once(first + n) for n in range(20)))

    uvloop.run(all_of_them())
