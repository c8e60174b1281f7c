"""The client for asyncio: the same, with `async for`.

Owns the loop's side of the queues. What is heard is heard by the engine's thread, so a loop that
is busy for a while neither loses its lease nor is cut off by Redis. One client belongs to one loop.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from operator import attrgetter
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from alpaca_broker.client.arguments import checked_since, checked_symbols
from alpaca_broker.client.engine import Engine, Options
from alpaca_broker.client.inbox import Portion
from alpaca_broker.client.seam import Seam
from alpaca_broker.client.subscription import Counters, Subscription
from alpaca_broker.client.updates import Gap, OrderUpdate, PriceUpdate, Status
from alpaca_broker.errors import UsageError

if TYPE_CHECKING:
    from typing import Self

    from alpaca_broker.settings import RedisTarget

log = logging.getLogger("alpaca_broker.client")

Update = TypeVar("Update")


class AsyncStream(Generic[Update]):
    """Updates, one after the other, until it or its client is closed. For one task."""

    def __init__(self, client: AsyncClient, subscription: Subscription, plain: bool) -> None:
        self._client, self._subscription, self._plain = client, subscription, plain
        self._awake: asyncio.Event | None = None
        self._portion = Portion()
        self._ready: Iterator[Update] = iter(())
        # A stream that is simply dropped is followed no longer.
        weakref.finalize(self, client._engine.drop, subscription).atexit = False

    async def __aiter__(self) -> AsyncIterator[Update]:
        """May be left and taken up again: nothing is lost in between."""
        while True:
            for update in self._ready:
                yield update
            if not await self._refill():
                return
            # However much waits, other tasks have their turn.
            await asyncio.sleep(0)

    async def __anext__(self) -> Update:
        """The next one; waits for it."""
        update: Update | None
        while (update := next(self._ready, None)) is None:
            if not await self._refill():
                raise StopAsyncIteration
        return update

    def close(self) -> None:
        """No longer follow; what has come can still be taken. May be called again."""
        self._client._engine.drop(self._subscription)

    async def _refill(self) -> bool:
        """Wait until something has come; False where nothing will."""
        inbox = self._subscription.inbox
        if self._awake is None:
            self._awake = asyncio.Event()
            inbox.bell = _Bell(asyncio.get_running_loop(), self._awake).ring
        while True:
            self._awake.clear()
            closed = inbox.closed
            if taken := self._portion.take(inbox):
                updates: Iterator[Any] = iter(taken)
                self._ready = map(attrgetter("raw"), updates) if self._plain else updates
                return True
            if closed:
                return False
            await self._awake.wait()


class AsyncClient:
    """A trading bot's way to the broker, in asyncio; the arguments are those of `Client`."""

    def __init__(
        self,
        url: str | None = None,
        *,
        target: RedisTarget | None = None,
        host: str | None = None,
        port: int = 6379,
        prefix: str | None = None,
        bot_id: str | None = None,
        account_id: str | None = None,
        ttl: float = 30.0,
        register: bool = True,
        plain: bool = False,
        queue: int = 10_000,
    ) -> None:
        """Connect in the background.

        Raises:
            ConfigError: a setting is wrong.
            UsageError: an argument is.
        """
        self._engine = Engine(
            Options(
                url=url,
                target=target,
                host=host,
                port=port,
                prefix=prefix,
                bot_id=bot_id,
                account_id=account_id,
                ttl=ttl,
                register=register,
                queue=queue,
            )
        )
        self._plain = plain
        self._tasks: set[asyncio.Task[None]] = set()
        self._finalize = weakref.finalize(self, self._engine.close, 1.0)

    @overload
    def prices(self, *symbols: str, gaps: Literal[False]) -> AsyncStream[PriceUpdate]: ...
    @overload
    def prices(self, *symbols: str, gaps: bool = True) -> AsyncStream[PriceUpdate | Gap]: ...
    def prices(self, *symbols: str, gaps: bool = True) -> AsyncStream[Any]:
        """As `Client.prices`."""
        subscription = self._engine.subscribe(checked_symbols(symbols), gaps=gaps)
        return AsyncStream(self, subscription, self._plain)

    @overload
    def orders(
        self,
        account_id: str | None = None,
        *,
        since: int | None = None,
        journal_id: str | None = None,
        gaps: Literal[False],
    ) -> AsyncStream[OrderUpdate]: ...
    @overload
    def orders(
        self,
        account_id: str | None = None,
        *,
        since: int | None = None,
        journal_id: str | None = None,
        gaps: bool = True,
    ) -> AsyncStream[OrderUpdate | Gap]: ...
    def orders(
        self,
        account_id: str | None = None,
        *,
        since: int | None = None,
        journal_id: str | None = None,
        gaps: bool = True,
    ) -> AsyncStream[Any]:
        """As `Client.orders`."""
        seam = Seam(self._account(account_id), checked_since(since), journal_id)
        subscription = self._engine.subscribe(seam=seam, gaps=gaps)
        return AsyncStream(self, subscription, self._plain)

    def gaps(self) -> AsyncStream[Gap]:
        """Every gap of everything that this client follows."""
        return AsyncStream(self, self._engine.subscribe(), self._plain)

    def on_price(
        self, symbols: str | list[str] | tuple[str, ...], handler: Callable[[Any], object]
    ) -> None:
        """Call `handler`, a function or a coroutine function, with every price; from the loop."""
        names = (symbols,) if isinstance(symbols, str) else tuple(symbols)
        self._call_with(self.prices(*names, gaps=False), handler)

    def on_order(
        self,
        account_id: str | None,
        handler: Callable[[Any], object],
        *,
        since: int | None = None,
        journal_id: str | None = None,
    ) -> None:
        """Call `handler` with every order event of the account; from the loop."""
        orders = self.orders(account_id, since=since, journal_id=journal_id, gaps=False)
        self._call_with(orders, handler)

    def on_gap(self, handler: Callable[[Any], object]) -> None:
        """Call `handler` with every gap of everything that this client follows; from the loop."""
        self._call_with(self.gaps(), handler)

    async def last(self, symbol: str) -> Any:
        """As `Client.last`."""
        update = await asyncio.to_thread(self._engine.last, symbol)
        return update.raw if update is not None and self._plain else update

    def status(self) -> Status | None:
        """The last heartbeat of the broker, or None where none was heard yet."""
        return self._engine.session.health.status

    @property
    def state(self) -> str:
        """As `Client.state`."""
        return self._engine.session.health.state(monotonic())

    def is_fresh(self, symbol: str) -> bool:
        """As `Client.is_fresh`."""
        return self._engine.session.is_fresh(symbol, monotonic())

    async def wait_ready(self, timeout: float = 10.0) -> bool:
        """As `Client.wait_ready`."""
        until = monotonic() + timeout
        while not self._engine.is_ready():
            if monotonic() >= until:
                return False
            await asyncio.sleep(0.005)
        return True

    @property
    def rejected(self) -> dict[str, str]:
        """What the broker refused, and why."""
        return dict(self._engine.session.wishes.rejected)

    @property
    def counters(self) -> Counters:
        """What was counted so far."""
        return self._engine.counters()

    @property
    def bot_id(self) -> str:
        """Under which name this bot is registered."""
        return self._engine.bot_id

    async def close(self) -> None:
        """Unregister, end the thread and the handlers' tasks; may be called again."""
        self._finalize.detach()
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        self._engine.request_close()
        if tasks:
            await asyncio.wait(tasks)
        await asyncio.to_thread(self._engine.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _account(self, account_id: str | None) -> str:
        account = account_id or self._engine.account_id
        if not account:
            raise UsageError("no account: name one, here or as the client's account_id")
        return account

    def _call_with(self, stream: AsyncStream[Any], handler: Callable[[Any], object]) -> None:
        if not callable(handler):
            raise UsageError(f"a handler is a function, not {handler!r}")
        task = asyncio.create_task(_hand_out(stream, handler), name="alpaca-broker-handler")
        self._tasks.add(task)  # the loop itself keeps no hold of it
        task.add_done_callback(self._tasks.discard)


class _Bell:
    """Wakes a task from another thread; a loop that has ended needs no waking."""

    def __init__(self, loop: asyncio.AbstractEventLoop, awake: asyncio.Event) -> None:
        self._loop, self._awake = loop, awake

    def ring(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._awake.set)
        except RuntimeError:
            pass


async def _hand_out(stream: AsyncStream[Any], handler: Callable[[Any], object]) -> None:
    async for update in stream:
        try:
            result = handler(update)
            if inspect.isawaitable(result):
                await result
        except Exception:
            log.exception("a handler failed: %r", handler)
