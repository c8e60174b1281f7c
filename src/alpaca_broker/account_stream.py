"""One account's order stream: its link to Alpaca, and what comes over it.

Owns the conversation (who we are, what we listen to) and the reading of order events, which it puts
into its lane. A full lane stops the reading of this account's stream, nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import time
from typing import Any

import aiohttp

from alpaca_broker.alpaca.link import Link, open_link
from alpaca_broker.alpaca.rest import Account, TradingRest
from alpaca_broker.bus.journal import Journal
from alpaca_broker.core.messages import AccountStatus, Gap
from alpaca_broker.core.orders import dedupe_key, order_update
from alpaca_broker.core.outage import RESTARTED, Outage
from alpaca_broker.core.verdicts import NO_CODE
from alpaca_broker.core.wire import json_object, listen_message, trading_auth_message
from alpaca_broker.errors import UpstreamRefused, UpstreamUnavailable
from alpaca_broker.order_lane import OrderLane
from alpaca_broker.settings import KeyPair, RedisTarget
from alpaca_broker.supervision import LinkState, Supervisor
from alpaca_broker.telemetry import Seldom, fields

log = logging.getLogger(__name__)

GREETING_WITHIN_S = 10.0


class AccountStream:
    """One account's order events, kept alive."""

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
        self._order_channel, self._on_gap = order_channel, on_gap
        self._state = LinkState(changed)
        self._supervisor = Supervisor(f"{keys.environment} account", self._state)
        self._outage = Outage()
        self._epoch = 0
        self._received: dict[str, float] = {}
        self._complaints = Seldom(1.0)
        self._known = asyncio.Event()
        self._last_event: float | None = None
        self._account_names: frozenset[str] = frozenset()
        self.lane = OrderLane()
        self.account: Account | None = None

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
        state, error = self._state.state, self._state.error
        if state == "live" and self.lane.trouble is not None:
            state, error = "stale", self.lane.trouble
        return AccountStatus(
            environment=self._keys.environment,
            state=state,
            since=round(self._state.since, 3),
            account_number=self.account.account_number if self.account else None,
            last_message=self._last_event,
            error=error,
        )

    def begin(self, epoch: int, received: dict[str, float]) -> None:
        """We lead under this epoch; `received` says until when accounts were heard before."""
        self._epoch, self._received = epoch, received
        self._outage = Outage()  # of an epoch that was lost: whoever led since has told it
        if self.account is not None:
            self._missed_since(self.account.id)

    def named(self, account_names: frozenset[str]) -> None:
        """Bots follow orders under these names: the account's number is one we understand."""
        self._account_names = account_names
        number = self.account.account_number if self.account else ""
        self.lane.also_on = self._order_channel(number) if number in account_names else None

    async def stay_connected(self, http: aiohttp.ClientSession) -> None:
        """Keep the stream alive until cancelled, or until Alpaca refuses for good."""
        await self._supervisor.run(lambda: self._converse(http))

    async def write(self, journal: Callable[[str], Journal], target: RedisTarget) -> None:
        """Record every event until cancelled.

        Raises:
            Superseded: another broker leads.
        """
        await self._known.wait()
        await self.lane.write(journal(self.name), target)

    async def _converse(self, http: aiohttp.ClientSession) -> None:
        """One link, from the account's name to the link's end."""
        if self.account is None:
            rest = TradingRest(http, self._rest_url, self._keys)
            self.account = await rest.account()
            self.named(self._account_names)
            self._known.set()
            self._missed_since(self.account.id)
        async with open_link(http, self._url) as link:
            await self._greet(link)
            self._is_live(self.account)
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(link.stay_heard(self.lane.has_room), name="pings")
                    while True:
                        self._take(await link.receive())
                        await self.lane.room()
            finally:
                self._outage.begins(round(time(), 6), (), "the order stream ended")

    def _missed_since(self, account_id: str) -> None:
        if (at := self._received.get(account_id)) is not None:
            self._outage.begins(at, (), RESTARTED)

    def _is_live(self, account: Account) -> None:
        self._state.set("live")
        log.info(
            "%s account %s is live (id %s)",
            self._keys.environment,
            account.account_number or "without a number",
            account.id,
            extra=fields(account_id=account.id, environment=self._keys.environment),
        )
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
                    text = str(answer.get("message") or "unauthorized")[:300]
                    raise UpstreamRefused(NO_CODE, f"{self._url}: {text}")
                await link.send(listen_message())
                answer = await self._answer(link, "listening")
                if "trade_updates" not in (answer.get("streams") or ()):
                    raise UpstreamRefused(NO_CODE, f"{self._url}: no order events for this key")
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
            self._take(frame)

    def _take(self, frame: bytes | str) -> None:
        """Put an order event into the lane; anything else is complained about.

        Raises:
            UpstreamUnavailable: Alpaca says that the stream ends.
        """
        now = round(time(), 6)
        message = json_object(frame)
        data = message.get("data") if message is not None else None
        if message is not None and message.get("action") == "error":
            text = str(data.get("error_message") if isinstance(data, dict) else "an error")[:300]
            raise UpstreamUnavailable(self._url, f"the stream ends: {text}")
        if message is not None and message.get("stream") in ("listening", "authorization"):
            return
        update = None
        is_update = message is not None and message.get("stream") == "trade_updates"
        if is_update and isinstance(data, dict):
            update = order_update(
                data,
                account_id=self.name,
                environment=self._keys.environment,
                received_at=now,
            )
        if update is None or not isinstance(data, dict):
            self._complain(frame)
            return
        self._last_event = now
        self.lane.put(update, dedupe_key(update, data.get("event_id")))

    def _complain(self, frame: bytes | str) -> None:
        if len(frame) > 1 and self._complaints.may_say():  # a heartbeat is one byte (JS SDK 3)
            sample = frame if isinstance(frame, str) else frame[:600].decode("utf-8", "replace")
            more = self._complaints.more()
            log.warning("an order message was not understood%s: %s", more, sample[:300])
