"""One account's order stream: its link to Alpaca, and what comes over it.

Owns the link and what the status and the gaps say of it. What the events mean, and which were told
before, is the reconciler's. A full lane stops the reading of this account's stream, nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import monotonic, time

import aiohttp
from msgspec import structs

from alpaca_broker.alpaca.link import Link, open_link
from alpaca_broker.alpaca.quota import Quota
from alpaca_broker.alpaca.rest import Account, TradingRest
from alpaca_broker.bus.journal import Journal
from alpaca_broker.core.accounts import KeyPair
from alpaca_broker.core.channels import begun_name, heard_name
from alpaca_broker.core.known_order import HOLD_S
from alpaca_broker.core.messages import AccountState, AccountStatus, Gap
from alpaca_broker.core.orderbook import MARGIN_S
from alpaca_broker.core.orders import order_event
from alpaca_broker.core.outage import Outage
from alpaca_broker.core.trading_session import (
    Heard,
    NotUnderstood,
    SendListen,
    State,
    TradingSession,
)
from alpaca_broker.core.verdicts import NO_CODE
from alpaca_broker.core.wire import listen_message, trading_auth_message
from alpaca_broker.errors import UpstreamRefused, UpstreamUnavailable
from alpaca_broker.settings import RedisTarget
from alpaca_broker.supervision import LinkState, Supervisor, why_ended
from alpaca_broker.telemetry import Seldom, fields
from alpaca_broker.trading.order_lane import OrderLane
from alpaca_broker.trading.reconciliation import Reconciler

log = logging.getLogger(__name__)

GREETING_WITHIN_S = 10.0
MARK_EVERY_S = 1.0
HANDED_OVER = "a hand-over, or a restart of the broker"
MOST_MISSED = 100  # gaps that may still be told as recovered


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
        claim: Callable[[str, str], str | None],
        calls_per_minute: float,
        quota: Quota,
    ) -> None:
        self._quota = quota
        self._keys, self._url, self._rest_url = keys, url, rest_url
        self._order_channel, self._on_gap = order_channel, on_gap
        self._state = LinkState(changed)
        self._claim = claim
        self._supervisor = Supervisor(
            f"{keys.label} account", self._state, advice=lambda refusal: keys.advice
        )
        self._outage = Outage()
        self._epoch = 0
        self._received: dict[str, float] = {}
        self._complaints = Seldom(1.0)
        self._known = asyncio.Event()
        self._last_event: float | None = None
        self._account_names: frozenset[str] = frozenset()
        self._doubt: str | None = None  # why the stream may lack something
        self._missed: list[Gap] = []  # what was told as not recovered
        self._gap_until = float("-inf")  # the last gap's end: the next one begins there or later
        self._heard_until: float | None = None  # all that was heard until then is in the journal
        self.lane = OrderLane()
        self._reconciler = Reconciler(
            *(keys.environment, self.lane, self._checked, self._let_go),
            calls_per_minute=calls_per_minute,
        )
        self.account: Account | None = None

    @property
    def label(self) -> str:
        """What people call the account: `paper`, `live`, or the name that it was given."""
        return self._keys.label

    @property
    def name(self) -> str:
        """The account's id, or its label while that is not known."""
        return self.account.id if self.account else self._keys.label

    @property
    def status(self) -> AccountStatus:
        """What the heartbeat says of this account. May be read from any thread."""
        state: AccountState = self._state.state
        error = self._state.error
        if state == "live" and (trouble := self.lane.broken or self.lane.trouble) is not None:
            state, error = "stale", trouble
        elif state == "live" and (doubt := self._doubt or self._reconciler.unchecked) is not None:
            state, error = "degraded", doubt
        return AccountStatus(
            name=self._keys.label,
            environment=self._keys.environment,
            state=state,
            since=round(self._state.since, 3),
            account_number=self.account.account_number if self.account else None,
            last_message=self._last_event,
            error=error,
            open_orders=self._reconciler.open_count,
            reconciled=self._reconciler.reconciled,
            recovered=self._reconciler.recovered,
            heard_until=self._heard_until,
        )

    def begin(self, epoch: int, received: dict[str, float]) -> None:
        """We lead under this epoch; `received` says until when accounts were heard before."""
        self._epoch, self._received = epoch, received

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
        kept = journal(self.name)
        kept.open_orders = lambda: self._reconciler.open_orders
        watermark = self._received.get(self.name)
        since = (watermark or 0.0) - 2 * MARGIN_S
        history = await self.lane.insist(lambda: kept.history(since), target)
        begun = self._received.get(begun_name(self.name))
        self._reconciler.restore(self.name, history, watermark, begun)
        await self.lane.write(kept, target)

    async def _converse(self, http: aiohttp.ClientSession) -> None:
        """One link, from the account's name to the link's end."""
        rest = TradingRest(http, self._rest_url, self._keys, self._quota)
        if self.account is None:
            account = await rest.account()
            if (other := self._claim(account.id, self.label)) is not None:
                text = f"the same account as {other} ({account.account_number or account.id})"
                raise UpstreamRefused(NO_CODE, f"{text}, which goes on")
            self.account = account
            self._state.ever_live = True  # the keys are good: a refusal by the stream will pass
            self.named(self._account_names)
            self._known.set()
            self._follows_another_broker(self.account, rest)
        self._reconciler.hold()
        async with open_link(http, self._url) as link:
            session = await self._greet(link)
            why = ""
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(link.stay_heard(self._reconciler.has_room), name="pings")
                    tasks.create_task(self._reconcile(rest, self.account), name="reconciliation")
                    tasks.create_task(self._reconciler.release_holes(), name="holes")
                    finding = self._reconciler.find_lost(rest, self._found)
                    tasks.create_task(finding, name="lost events")
                    tasks.create_task(self._mark(link), name="marks")
                    while True:
                        await self._take(await link.receive(), link, session)
                        await self._reconciler.room()
            except BaseException as error:
                why = why_ended(error)
                raise
            finally:
                self._outage.begins(_heard_at(link), (), f"the order stream ended{why}")

    def _follows_another_broker(self, account: Account, rest: TradingRest) -> None:
        """A gap goes on from when a broker before us last had all, by its stream or by REST."""
        begun = self._received.get(begun_name(account.id))
        held_against_rest = self._received.get(account.id, begun)
        if held_against_rest is None:
            return
        by_our_clock = held_against_rest + time() - rest.now()
        at = max(by_our_clock, self._received.get(heard_name(account.id), by_our_clock))
        self._outage.begins(round(min(at, time()), 6), (), HANDED_OVER)

    async def _greet(self, link: Link) -> TradingSession:
        """Authenticate, and listen."""
        session = TradingSession(self._url)
        try:
            async with asyncio.timeout(GREETING_WITHIN_S):
                await link.send(trading_auth_message(self._keys.key_id, self._keys.secret))
                while session.state is not State.LISTENING:
                    await self._take(await link.receive(), link, session)
        except TimeoutError as error:
            raise UpstreamUnavailable(self._url, f"{session.state.value} for too long") from error
        return session

    async def _mark(self, link: Link) -> None:
        """Keep until when all is known, for the gap that there is if we die; never returns."""
        while True:
            await asyncio.sleep(MARK_EVERY_S)
            if self._doubt is None and self._state.state == "live":
                await self._is_whole_until(max(_heard_at(link), self._gap_until)).wait()

    def _is_whole_until(self, at: float) -> asyncio.Event:
        """Nothing is missing until then; it is so once what was heard is in the journal, too."""
        done = asyncio.Event()

        async def tell(_: Journal) -> None:
            self._heard_until = at
            done.set()

        if self._reconciler.flows:
            self.lane.then(tell)
        else:
            done.set()
        return done

    async def _reconcile(self, rest: TradingRest, account: Account) -> None:
        """Live, once what was missed is told; then keep watch."""
        if await self._reconciler.catch_up(rest):
            until = round(time(), 6)
            self._is_whole_until(until)
            await self.lane.drain(HOLD_S)  # whoever hears "live" has heard what was missed
            self._is_live(account, until)
        else:
            self._is_degraded(account)
        await self._reconciler.keep_watch(rest, self._found)

    def _is_live(self, account: Account, until: float) -> None:
        self._doubt = None
        self._state.set("live")
        log.info(
            "%s account %s is live (id %s)",
            self._keys.label,
            account.account_number or "without a number",
            account.id,
            extra=fields(account_id=account.id, environment=self._keys.environment),
        )
        self._end_outage(until, recovered=True)

    def _is_degraded(self, account: Account) -> None:
        """Events flow although nobody knows what was missed: bots are told so."""
        self._doubt = f"what was missed is not known yet: {self._reconciler.trouble}"
        self._state.set("live")
        log.warning("%s account %s: %s", self._keys.label, account.id, self._doubt)
        self._end_outage(round(time(), 6), recovered=False)

    def _checked(self, began: float) -> None:
        """REST has answered since then, and everything that it shows is told."""
        missed = [gap for gap in self._missed if gap.ended <= began]
        self._missed = [gap for gap in self._missed if gap.ended > began]
        if self._doubt is not None and self.account is not None:
            self._is_live(self.account, round(time(), 6))
            self._state.changed()
        for gap in missed:
            self._on_gap(structs.replace(gap, again=True, recovered=True))

    def _found(self, events: int, since: float) -> None:
        """The stream was up and did not bring these events: REST did."""
        if self._doubt is not None:
            return  # they belong to what is told as missed already
        what = "an event" if events == 1 else f"{events} events"
        log.warning("the order stream did not bring %s: REST showed it", what)
        self._tell_of(since, f"the order stream did not bring {what}", recovered=True)

    def _let_go(self, events: int, since: float) -> None:
        """These waited for what was before them, which REST did not show in time: that is told."""
        if self._doubt is not None:
            return  # that is told already
        what = "an order event" if events == 1 else f"{events} order events"
        reason = f"{what} came without what was before, which REST did not show in time"
        self._tell_of(since, reason, recovered=False)

    def _tell_of(self, since: float, reason: str, *, recovered: bool) -> None:
        """A gap that ends now, while the stream is up."""
        outage = Outage()
        outage.begins(since, (), reason)
        self._tell_gap(outage.ends(round(time(), 6), (), self._epoch), recovered=recovered)

    def _end_outage(self, at: float, *, recovered: bool) -> None:
        gap = self._outage.ends(at, (), self._epoch)
        if gap is not None and (found_at := self._reconciler.missed_since) is not None:
            gap.began = min(gap.began, found_at)  # what was heard of the stream was not all
        self._tell_gap(gap, recovered=recovered)

    def _tell_gap(self, gap: Gap | None, *, recovered: bool) -> None:
        """An account's gaps do not overlap: what an earlier one covers is told already."""
        if gap is None:
            return
        gap.began = round(min(max(gap.began, self._gap_until), gap.ended), 6)
        gap.account_id, gap.recovered = self.name, recovered
        if gap.reason == HANDED_OVER:
            gap.reason += f": no order stream for {gap.ended - gap.began:.1f} s"
        self._gap_until = gap.ended
        self._on_gap(gap)
        if not recovered:
            self._missed = [*self._missed[-MOST_MISSED:], gap]

    async def _take(self, frame: bytes | str, link: Link, session: TradingSession) -> None:
        """Take one frame: an event goes to be told, anything strange is complained about."""
        now = round(time(), 6)
        match session.receive(frame):
            case SendListen():
                await link.send(listen_message())
            case Heard(data):
                event = order_event(
                    data,
                    account_id=self.name,
                    environment=self._keys.environment,
                    received_at=now,
                )
                if event is None:
                    self._complain(frame)
                else:
                    self._last_event = now
                    self._reconciler.hear(event)
            case NotUnderstood():
                self._complain(frame)

    def _complain(self, frame: bytes | str) -> None:
        if self._complaints.may_say():
            sample = frame if isinstance(frame, str) else frame[:600].decode("utf-8", "replace")
            more = self._complaints.more()
            log.warning("an order message was not understood%s: %s", more, sample[:300])


def _heard_at(link: Link) -> float:
    """When a link last brought anything, an answer to a ping included: until then it was whole."""
    return round(time() - (monotonic() - link.heard_at), 6)
