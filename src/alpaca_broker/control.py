"""What is neither prices nor orders: the lease, registrations, the heartbeat, the log records.

Owns the third loop, so that a saturated feed delays no sign of life and no registration. Here it is
known first whether this process leads; `on_lead` and `on_loss` hand it on.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import cast

import aiohttp
from redis.asyncio import Redis

from alpaca_broker.alpaca.assets import Assets
from alpaca_broker.alpaca.link import http_session
from alpaca_broker.alpaca.rest import TradingRest
from alpaca_broker.bus.desk import Desk
from alpaca_broker.bus.fence import Fence
from alpaca_broker.bus.heartbeat import Heartbeat
from alpaca_broker.bus.lease import LeaseKeeper
from alpaca_broker.bus.logbook import Logbook
from alpaca_broker.bus.redis_client import RedisError, connect, deadline
from alpaca_broker.bus.registrar import Registrar
from alpaca_broker.core.answers import FeedView
from alpaca_broker.core.backoff import Patience
from alpaca_broker.core.channels import Channels
from alpaca_broker.core.messages import Gap, Status
from alpaca_broker.settings import RedisTarget
from alpaca_broker.telemetry import RecordQueue
from alpaca_broker.tenure import Tenure

log = logging.getLogger(__name__)

GOODBYE_WITHIN_S = 1.0

MakeRest = Callable[[aiohttp.ClientSession], TradingRest]


class Control:
    """Runs the lease's keeper, the registrar's desk, the heartbeat and the logbook."""

    def __init__(
        self,
        *,
        target: RedisTarget,
        channels: Channels,
        fence: Fence,
        leader: str,
        keys: list[str],
        records: RecordQueue,
        registrar: Registrar,
        compose: Callable[[], Status],
        on_lead: Callable[[int, dict[str, float]], None],
        on_loss: Callable[[], None],
        rest: MakeRest | None,
    ) -> None:
        self._channels = channels
        self._on_lead, self._on_loss, self._rest = on_lead, on_loss, rest
        # Nothing is opened before `run`; the loop that first uses a client is the one that owns it.
        self._client: Redis = connect(target, "alpaca-broker:control", on_connected=fence.connected)
        self._tenure = Tenure()
        self.registrar = registrar
        self.lease = LeaseKeeper(
            target,
            channels,
            fence,
            leader=leader,
            keys=keys,
            on_begin=self._tenure.begin,
            on_end=self._lost,
        )
        self.desk = Desk(self._client, channels, registrar, fence)
        self.heartbeat = Heartbeat(self._client, channels, target, fence, compose)
        self.logbook = Logbook(self._client, channels.logs, records)

    def view(self, view: FeedView) -> None:
        """In our loop: the feed has decided something about symbols."""
        self.registrar.view(view)
        self.desk.work()

    def announce(self, gap: Gap) -> None:
        """In our loop: something was missed."""
        self.heartbeat.announce(gap)

    async def run(self) -> None:
        """Run all of it until cancelled; then say goodbye.

        Raises:
            ExceptionGroup of ConfigError: our prefix is another deployment's.
        """
        try:
            async with http_session() as http, asyncio.TaskGroup() as tasks:
                tasks.create_task(self.desk.listen(), name="registrations")
                tasks.create_task(self.desk.look(), name="listeners")
                if self._rest is not None:
                    assets = Assets(self._rest(http))
                    tasks.create_task(self.desk.verify(assets.unknown), name="assets")
                tasks.create_task(self._tenure.run(self._serve), name="leadership")
                tasks.create_task(self.lease.run(), name="lease")
                tasks.create_task(self.logbook.run(), name="logbook")
        finally:
            await self._say_goodbye()

    async def _serve(self, epoch: int) -> None:
        """We lead: take up what bots wanted before anything is asked of Alpaca."""
        self.heartbeat.forget()
        self.registrar.begin(epoch)
        received = await self._take_up()
        log.info("leading (epoch %d)", epoch)
        self._on_lead(epoch, received)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.heartbeat.beat(epoch), name="heartbeat")
            tasks.create_task(self.desk.write(), name="answers")

    async def _take_up(self) -> dict[str, float]:
        """Restore the registry; returns until when each feed and account was heard before us."""
        patience = Patience(random.uniform, first=0.1, ceiling=1.0, settled=5.0)
        while True:
            began = monotonic()
            try:
                await self.desk.restore()
                async with deadline():
                    received = await cast(
                        Awaitable[dict[bytes, bytes]], self._client.hgetall(self._channels.received)
                    )
                return _times(received)
            except (RedisError, OSError) as error:
                log.debug("nothing is restored yet: %s", error)
            await asyncio.sleep(patience.after(monotonic() - began))

    def _lost(self) -> None:
        self._tenure.end()
        self._on_loss()

    async def _say_goodbye(self) -> None:
        try:
            async with asyncio.timeout(GOODBYE_WITHIN_S):
                if self.lease.epoch and self.lease.redis.is_up:
                    await self.heartbeat.last_words(self.lease.epoch, self.lease.last_value)
                await self.logbook.flush()
        except (RedisError, OSError):
            pass  # without Redis there is nobody to tell; the log lines were on the terminal, too
        finally:
            await self._client.aclose()


def _times(received: dict[bytes, bytes]) -> dict[str, float]:
    """Times that were kept; what is none is left out."""
    times: dict[str, float] = {}
    for name, at in received.items():
        try:
            times[name.decode()] = float(at)
        except ValueError:  # UnicodeDecodeError is one, too
            continue
    return times
