"""The simulator as a whole: its parts put together, started and stopped in order.

Owns the port, the clock and the tasks. Invariant: accounts, orders and the position in a replay
outlive a stop; connections and tasks do not. It answers nothing itself.
"""

import asyncio
import errno
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from types import TracebackType
from typing import Any, Literal, Self, get_args

from aiohttp import web

from alpaca_broker.simulator.access import Access
from alpaca_broker.simulator.accounts import Account
from alpaca_broker.simulator.by_hand import ByHand
from alpaca_broker.simulator.exchange import Exchange
from alpaca_broker.simulator.feeds import FEEDS, Feed, feed_of
from alpaca_broker.simulator.market_data import MarketData
from alpaca_broker.simulator.market_stream import MarketHub
from alpaca_broker.simulator.options import SimulatorOptions
from alpaca_broker.simulator.outbox import Link
from alpaca_broker.simulator.pulse import Pulse
from alpaca_broker.simulator.replay import Replay
from alpaca_broker.simulator.rest import STATUS_PATH, Gate, answer, asks_rest
from alpaca_broker.simulator.rest_data import DataApi
from alpaca_broker.simulator.rest_trading import TradingApi
from alpaca_broker.simulator.stats import Stats
from alpaca_broker.simulator.switches import Switches
from alpaca_broker.simulator.synthetic import UNIVERSE
from alpaca_broker.simulator.ticks import load
from alpaca_broker.simulator.trading_hours import TradingHours
from alpaca_broker.simulator.trading_stream import TradingHub

log = logging.getLogger(__name__)

Kind = Literal["market", "trading", "all"]
_GOING_AWAY = 1001
_TRADING_PATHS = ("/stream", "/stream/")  # the older Python client has the slash [O]
_OUR_PORT_AGAIN_S, _BETWEEN_TRIES_S = 10.0, 0.05
_SHUTDOWN_S = 0.2  # for REST calls that are still being answered; sockets were closed before


class Simulator:
    """A pretend Alpaca on one port. Use it from one event loop.

    Raises `TickFileError` when tick files are unreadable, and `OSError` from `start` when the
    port is taken.
    """

    def __init__(self, options: SimulatorOptions | None = None) -> None:
        self.options = options = options or SimulatorOptions()
        self.stats = Stats()
        self.port = options.port
        access = Access(options.keys)
        rows = load(options.tick_paths())
        self.switches = Switches()
        self.hours = TradingHours(
            options.time, market_open=options.market_open, quiet=options.quiet_when_closed
        )
        now_ns = self.hours.now_ns
        self._hub = MarketHub(options, access, self.stats, self.switches)
        self.exchange = Exchange(
            *(options, now_ns, self._first_price, self._tell), is_open=self.hours.is_open
        )
        self.data = MarketData(options, self._hub, now_ns, self.exchange, replayed=bool(rows))
        self._trading = TradingHub(options, access, self.exchange, self.stats, self.switches)
        self.tampering = self._trading.tampering
        open_paths = (*(feed.path for feed in FEEDS.values()), *_TRADING_PATHS, STATUS_PATH)
        self._gate = Gate(access, self.stats, options.rest_limit_per_min, open_paths, self.switches)
        stocks = self.data.stocks
        self._replay = Replay(rows, stocks, self._hub, options.batch) if rows else None
        self._pulse = Pulse(self.data, self._hub, self.exchange, options, self.hours)
        self._symbols = {row.symbol for row in rows} | set(UNIVERSE)
        self._stopping: asyncio.Event | None = None
        self._life: asyncio.Task[None] | None = None
        self._runner: web.AppRunner | None = None
        self._site: web.TCPSite | None = None
        self._has_listened = False
        # Waited for before the simulator ever starts, so it cannot be made by a running loop.
        self._replayed = self._replay.finished if self._replay else asyncio.Event()

    @property
    def url(self) -> str:
        """Where it listens; the same with ws:// for WebSockets."""
        return f"http://{self.options.host}:{self.port}"

    @property
    def replay_finished(self) -> asyncio.Event:
        """Set when every row was sent; never in a synthetic market."""
        return self._replayed

    @property
    def sent(self) -> Counter[str]:
        """Replayed rows by symbol, each counted once however many clients took it."""
        return self._replay.sent if self._replay else Counter()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen. After a stop: on the same port again, with the same accounts and orders."""
        if self._life is not None:
            raise RuntimeError("the simulator runs already")
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stopping = asyncio.Event()
        self._life = asyncio.create_task(self._live(ready, self._stopping), name="simulator")
        try:
            await asyncio.wait((ready, self._life), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._life.cancel()
            raise
        if not ready.done():
            life, self._life = self._life, None
            await life  # raises what went wrong

    async def stop(self) -> None:
        """Close everything in order; may be called again. Raises what broke a task of ours."""
        if self._life is not None and self._stopping is not None:
            self._stopping.set()
            life, self._life = self._life, None
            await life

    @asynccontextmanager
    async def away(self) -> AsyncIterator[None]:
        """Refuse connections for as long as the block runs; those that are open break."""
        runner = self._runner
        await self._stop_listening()
        for served in runner.server.connections if runner and runner.server else ():
            if served.transport is not None:
                served.transport.abort()
        try:
            yield
        finally:
            if runner is not None and runner is self._runner and self._site is None:
                await self._listen(runner)

    async def _listen(self, runner: web.AppRunner) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + _OUR_PORT_AGAIN_S
        while True:
            site = web.TCPSite(runner, self.options.host, self.port)
            try:
                await site.start()
                break
            except OSError as error:
                # While we were away a client that tried our port may have been given it as its
                # own, and have connected to itself; it leaves as soon as it reads what it said.
                was_ours = self._has_listened and error.errno == errno.EADDRINUSE
                if not was_ours or loop.time() > until:
                    raise
            await site.stop()
            await asyncio.sleep(_BETWEEN_TRIES_S)
        self._site, self.port, self._has_listened = site, runner.addresses[0][1], True

    async def _stop_listening(self) -> None:
        site, self._site = self._site, None
        if site is not None:
            await site.stop()

    async def closed(self) -> None:
        """Wait until it stops or breaks, without stopping it."""
        if self._life is not None:
            await asyncio.wait((self._life,))

    def cut(self, kind: str = "all") -> int:
        """Drop connections without a close frame; how many there were.

        Args:
            kind: "market", "trading", "all", or the name of a feed.
        """
        if kind not in get_args(Kind):
            return self._hub.cut(feed_of(kind).name)
        cut = 0
        if kind in ("market", "all"):
            cut += self._hub.connections.cut()
        if kind in ("trading", "all"):
            cut += self._trading.connections.cut()
        return cut

    def emit(self, feed: str, message: Mapping[str, Any]) -> int:
        """Send one market-data message to the sessions of a feed that want it; how many did.

        See `MarketData.emit`; `data` has more that a test can make happen.
        """
        return self.data.emit(feed, message)

    def emit_raw(self, feed: str, frame: bytes) -> int:
        """Send bytes as they are, say broken ones, to every session of a feed or of "trading"."""
        if feed == "trading":
            return self._trading.send_raw(frame)
        return self._hub.emit_raw(feed_of(feed).name, frame)

    def set_time(self, moment: str | datetime | None) -> None:
        """Let it be this moment now, such as 2026-11-27T03:00 in New York, and go on from there.

        Clock, calendar, orders and the times of messages follow; a replay keeps its own. "now" is
        the real time with its real hours, None the real time with `market_open` for all hours.
        """
        self.hours.set(moment)
        self.data.jump()

    def mute(self, kind: str = "all", *, muted: bool = True) -> None:
        """Let the connections open now stay up and answer pings, but say nothing more.

        What they should say is lost. Later connections are not muted.

        Args:
            kind: "market", "trading", "all", or the name of a feed.
            muted: False lets them speak again.
        """
        if kind not in get_args(Kind):
            self._hub.mute(muted, feed_of(kind).name)
        if kind in ("market", "all"):
            self._hub.mute(muted)
        if kind in ("trading", "all"):
            self._trading.mute(muted)

    def lose_trade_updates(self, count: int) -> None:
        """Let the next `count` order events reach no WebSocket; the ledger has them."""
        self.tampering.lose = count

    def refuse_rest(self, status: int | None) -> None:
        """Answer every REST call with this HTTP status until told None."""
        self._gate.refuse_all_with = status

    def refuse_sockets(self, status: int | None) -> None:
        """Answer every WebSocket upgrade with this HTTP status until told None.

        Alpaca is reported to answer 429 when clients reconnect too quickly [T CS #518].
        """
        self._gate.refuse_sockets_with = status

    def by_hand(self, key_id: str) -> ByHand:
        """Orders of a key's account that fill and end when told to, not by the market."""
        return ByHand(self.exchange, self.exchange.account(key_id))

    def links(self, kind: Kind = "all") -> list[Link]:
        """The WebSockets open now."""
        links = self._hub.links() + self._trading.links()
        return [link for link in links if kind in (link.stream, "all")]

    def ledger(self, account_id: str) -> list[dict[str, Any]]:
        """Every order event of an account, oldest first: what a perfect client has seen."""
        account = self.exchange.find(account_id)
        return list(account.ledger) if account else []

    async def _live(self, ready: asyncio.Future[None], stopping: asyncio.Event) -> None:
        runner = web.AppRunner(
            self._application(), access_log=None, shutdown_timeout=_SHUTDOWN_S, handle_signals=False
        )
        await runner.setup()
        try:
            await self._listen(runner)
            self._runner = runner
            log.info("simulator listens on %s", self.url)
            async with asyncio.TaskGroup() as tasks:
                ours = [tasks.create_task(self._pulse.run(), name="market pulse")]
                if self._replay is not None:
                    replay = self._replay.run(self.options.pace())
                    ours.append(tasks.create_task(replay, name="replay"))
                ready.set_result(None)
                await stopping.wait()
                for task in ours:
                    task.cancel()
                await self._stop_listening()
                tasks.create_task(self._hub.connections.close(_GOING_AWAY), name="close market")
                tasks.create_task(
                    self._trading.connections.close(_GOING_AWAY), name="close trading"
                )
        finally:
            self._site = self._runner = None
            self.tampering.close()
            self.cut()
            await runner.cleanup()

    def _application(self) -> web.Application:
        application = web.Application(middlewares=[self._gate.middleware])
        data = DataApi(self.data, self.hours, recent_sip=self.options.recent_sip)
        for feed in FEEDS.values():
            application.router.add_get(feed.path, self._market_endpoint(feed, data))
        for path in _TRADING_PATHS:
            application.router.add_get(path, self._trading.handle)
        application.router.add_get(STATUS_PATH, self._status)
        api = TradingApi(
            self.exchange,
            self.hours.now_ns,
            self._known_symbols,
            is_open=self.hours.is_open,
            unknown=self.options.unknown_assets,
        )
        application.add_routes(api.routes())
        application.add_routes(data.routes())
        return application

    def _market_endpoint(self, feed: Feed, data: DataApi) -> Callable[[web.Request], Any]:
        async def serve_feed(request: web.Request) -> web.StreamResponse:
            if asks_rest(request):
                return await data.news(request)
            return await self._hub.handle(request, feed)

        return serve_feed

    async def _status(self, _: web.Request) -> web.Response:
        replay = {"finished": self.replay_finished.is_set(), "sent": dict(self.sent)}
        return answer(self.stats.as_json() | {"replay": replay})

    def _known_symbols(self) -> set[str]:
        return self._symbols | self.data.stocks.trades.keys() | set(self.exchange.open_symbols())

    def _first_price(self, symbol: str) -> int | None:
        return self.data.first_price(symbol)

    def _tell(self, account: Account, update: dict[str, Any]) -> None:
        self._trading.deliver(account, update)


async def serve(
    options: SimulatorOptions,
    ready: Callable[[Simulator], None] | None = None,
    stop: asyncio.Event | None = None,
    beside: Callable[[Simulator], Coroutine[Any, Any, None]] | None = None,
) -> None:
    """Run a simulator until `stop` is set or the caller cancels; closes in order either way.

    Args:
        options: What to simulate.
        ready: Called once it listens.
        stop: Ends it when set.
        beside: What else runs until then, say `practice.practise`.
    """
    async with Simulator(options) as simulator:
        if ready is not None:
            ready(simulator)
        async with asyncio.TaskGroup() as tasks:
            broken = tasks.create_task(simulator.closed(), name="simulator watch")
            asked = tasks.create_task(_until(stop), name="simulator stop")
            ours = [broken, asked]
            if beside is not None:
                ours.append(tasks.create_task(beside(simulator), name="beside"))
            await asyncio.wait((broken, asked), return_when=asyncio.FIRST_COMPLETED)
            for task in ours:
                task.cancel()


async def _until(stop: asyncio.Event | None) -> None:
    await (stop or asyncio.Event()).wait()
