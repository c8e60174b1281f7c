"""One account's order events, from Alpaca's trading stream to the journal, none dropped.

Owns the account's link and a bounded queue. The reader puts events into the queue; one writer takes
them out and records each until Redis has it. A full queue stops the reading of this account's
stream, nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from time import monotonic, time
from typing import Any

import aiohttp

from alpaca_broker.alpaca.link import Link, open_link
from alpaca_broker.alpaca.rest import Account, TradingRest
from alpaca_broker.bus.journal import Journal
from alpaca_broker.bus.redis_client import RedisError, advice
from alpaca_broker.core.backoff import Patience
from alpaca_broker.core.messages import AccountStatus, Gap, OrderUpdate
from alpaca_broker.core.orders import dedupe_key, order_update
from alpaca_broker.core.outage import RESTARTED, Outage
from alpaca_broker.core.wire import json_object, listen_message, trading_auth_message
from alpaca_broker.errors import RemoteProtocolError, UpstreamRefused, UpstreamUnavailable
from alpaca_broker.settings import KeyPair, RedisTarget
from alpaca_broker.supervision import LinkState, Supervisor
from alpaca_broker.telemetry import Seldom, fields

log = logging.getLogger(__name__)

QUEUED_EVENTS = 10_000
GREETING_WITHIN_S = 10.0
PING_AFTER_S = 10.0
SILENT_FOR_S = 25.0
LOOK_EVERY_S = 1.0
DRAIN_WITHIN_S = 1.0


class AccountStream:
    """One account's order events: its link, its queue, its journal."""

    def __init__(
        self,
        *,
        keys: KeyPair,
        url: str,
        rest_url: str,
        order_channel: Callable[[str], str],
        changed: Callable[[], None],
        on_gap: Callable[[Gap], None],
    ) -> None:
        self._keys, self._url, self._rest_url = keys, url, rest_url
        self._order_channel = order_channel
        self._on_gap = on_gap
        self._outage = Outage()
        self._epoch = 0
        self._received: dict[str, float] = {}
        self._state = LinkState(changed)
        self._supervisor = Supervisor(f"{keys.environment} account", self._state)
        self._queue: asyncio.Queue[tuple[OrderUpdate, str]] = asyncio.Queue(QUEUED_EVENTS)
        self._complaints = Seldom(1.0)
        self._known = asyncio.Event()
        self._unfinished = 0  # read and not yet recorded
        self._last_event: float | None = None
        self.account: Account | None = None
        self.account_names: frozenset[str] = frozenset()  # under which bots follow orders
        self.events = 0

    @property
    def environment(self) -> str:
        """`paper` or `live`."""
        return self._keys.environment

    @property
    def name(self) -> str:
        """The account's id, or its environment while that is not known."""
        return self.account.id if self.account else self._keys.environment

    @property
    def status(self) -> AccountStatus:
        """What the heartbeat says of this account. May be read from any thread."""
        return AccountStatus(
            environment=self._keys.environment,
            state=self._state.state,
            since=round(self._state.since, 3),
            account_number=self.account.account_number if self.account else None,
            last_message=self._last_event,
            error=self._state.error,
        )

    def begin(self, epoch: int, received: dict[str, float]) -> None:
        """We lead under this epoch; `received` says until when accounts were heard before."""
        self._epoch, self._received = epoch, received

    async def stay_connected(self, http: aiohttp.ClientSession) -> None:
        """Keep the stream alive until cancelled, or until Alpaca refuses for good."""
        await self._supervisor.run(lambda: self._converse(http))

    async def write(self, journal: Callable[[str], Journal], target: RedisTarget) -> None:
        """Record every event until cancelled; one that Redis did not take is tried again.

        Raises:
            Superseded: another broker leads.
        """
        await self._known.wait()
        assert self.account is not None
        book = journal(self.account.id)
        patience = Patience(random.uniform, first=0.05, ceiling=2.0, settled=1.0)
        complaints = Seldom(10.0)
        while True:
            update, key = await self._queue.get()
            while True:
                began = monotonic()
                try:
                    if await book.record(update, key, self._also_on()):
                        self.events += 1
                    break
                except (RedisError, OSError) as error:
                    if complaints.may_say():
                        log.error("orders wait, none is lost: %s", advice(error, target))
                    await asyncio.sleep(patience.after(monotonic() - began))
            self._queue.task_done()
            self._unfinished -= 1

    async def drain(self) -> int:
        """Wait until everything read is recorded; returns how many events were not in time."""
        try:
            async with asyncio.timeout(DRAIN_WITHIN_S):
                await self._queue.join()
        except TimeoutError:
            pass
        return self._unfinished

    def _also_on(self) -> str | None:
        """A second channel, for bots that know the account by its number."""
        number = self.account.account_number if self.account else ""
        return self._order_channel(number) if number in self.account_names else None

    async def _converse(self, http: aiohttp.ClientSession) -> None:
        """One link, from the account's name to the link's end."""
        if self.account is None:
            rest = TradingRest(http, self._rest_url, self._keys)
            self.account = await rest.account()
            self._known.set()
            if (at := self._received.get(self.account.id)) is not None:
                self._outage.begins(at, (), RESTARTED)
        async with open_link(http, self._url) as link:
            await self._greet(link)
            self._state.set("live")
            log.info(
                "%s account %s is live (id %s)",
                self._keys.environment,
                self.account.account_number or "without a number",
                self.account.id,
                extra=fields(account_id=self.account.id, environment=self._keys.environment),
            )
            self._say_what_was_missed(self.account)
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._watch(link), name="watch")
                    while True:
                        await self._take(await link.receive())
            finally:
                self._outage.begins(round(time(), 6), (), "the order stream ended")

    def _say_what_was_missed(self, account: Account) -> None:
        if gap := self._outage.ends(round(time(), 6), (), self._epoch):
            gap.account_id = account.id
            self._on_gap(gap)

    async def _greet(self, link: Link) -> None:
        """Authenticate, then listen (Alpaca's page "Websocket Streaming": there is no welcome)."""
        try:
            async with asyncio.timeout(GREETING_WITHIN_S):
                await link.send(trading_auth_message(self._keys.key_id, self._keys.secret))
                answer = await self._answer(link, "authorization")
                if answer.get("status") != "authorized":
                    text = answer.get("message") or "the order stream refused the keys"
                    raise UpstreamRefused(401, str(text)[:300], http=True)
                await link.send(listen_message())
                answer = await self._answer(link, "listening")
                if "trade_updates" not in (answer.get("streams") or ()):
                    raise UpstreamRefused(403, "order events are not available", http=True)
        except TimeoutError as error:
            raise UpstreamUnavailable(self._url, "no answer to the greeting") from error

    async def _answer(self, link: Link, stream: str) -> dict[str, Any]:
        """The data of the next message of `stream`; order events in between are taken."""
        while True:
            frame = await link.receive()
            message = json_object(frame)
            if message is not None and message.get("stream") == stream:
                data = message.get("data")
                return data if isinstance(data, dict) else {}
            await self._take(frame)

    async def _take(self, frame: bytes | str) -> None:
        """Queue an order event; a full queue makes this account's stream wait."""
        now = round(time(), 6)
        message = json_object(frame)
        if message is not None and message.get("action") == "error":
            raise RemoteProtocolError("live", "an error message: the stream ends")
        if message is None or message.get("stream") != "trade_updates":
            if message is None or message.get("stream") not in ("listening", "authorization"):
                self._complain(frame)
            return
        data = message.get("data")
        update = None
        if isinstance(data, dict) and self.account is not None:
            update = order_update(
                data,
                account_id=self.account.id,
                environment=self._keys.environment,
                received_at=now,
            )
        if update is None or not isinstance(data, dict):
            self._complain(frame)
            return
        self._last_event = now
        self._unfinished += 1
        await self._queue.put((update, dedupe_key(update, data.get("event_id"))))

    def _complain(self, frame: bytes | str) -> None:
        if len(frame) > 1 and self._complaints.may_say():  # a heartbeat is one byte (JS SDK 3)
            sample = frame if isinstance(frame, str) else frame[:600].decode("utf-8", "replace")
            more = self._complaints.more()
            log.warning("an order message was not understood%s: %s", more, sample[:300])

    async def _watch(self, link: Link) -> None:
        """Ping a silent link, and hang up where nothing comes back.

        Raises:
            UpstreamUnavailable: no sign of life.
        """
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            silent_for = monotonic() - link.heard_at
            if self._queue.full():
                link.heard_at = monotonic()  # we are the ones who do not listen
            elif silent_for >= SILENT_FOR_S:
                raise UpstreamUnavailable(self._url, f"no sign of life for {silent_for:.0f} s")
            if silent_for >= PING_AFTER_S:
                await link.ping()
