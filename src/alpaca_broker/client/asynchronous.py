"""The client for asyncio: the same, with `async for`.

Owns the loop's side of the queues. What is heard is heard by the engine's thread, so a loop that
is busy for a while neither loses its lease nor is cut off by Redis. One client belongs to one loop.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import weakref
from collections.abc import AsyncIterator, Iterable, Iterator
from operator import attrgetter
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from alpaca_broker.client.front import Front, Handler
from alpaca_broker.client.inbox import Portion
from alpaca_broker.client.market_data import BarUpdate, MarketData, QuoteUpdate
from alpaca_broker.client.subscription import Subscription
from alpaca_broker.client.updates import Gap, OrderUpdate, PriceUpdate
from alpaca_broker.errors import UsageError

if TYPE_CHECKING:
    from typing import Self

log = logging.getLogger("alpaca_broker.client")

Update = TypeVar("Update")


class AsyncStream(Generic[Update]):
    """Updates, one after the other, until it or its client is closed. For one task."""

    def __init__(self, client: AsyncClient, subscription: Subscription) -> None:
        self._client, self._subscription, self._plain = client, subscription, client._plain
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


class AsyncClient(Front):
    """A trading bot's way to the broker, in asyncio; the arguments are those of `Client`.

    Handlers are functions or coroutine functions, and are called from the loop.
    """

    @overload
    def prices(self, *symbols: str, gaps: Literal[False]) -> AsyncStream[PriceUpdate]: ...
    @overload
    def prices(self, *symbols: str, gaps: bool = True) -> AsyncStream[PriceUpdate | Gap]: ...
    def prices(self, *symbols: str, gaps: bool = True) -> AsyncStream[Any]:
        """As `Client.prices`."""
        return AsyncStream(self, self._follow_prices(symbols, gaps))

    @overload
    def quotes(self, *symbols: str, gaps: Literal[False]) -> AsyncStream[QuoteUpdate]: ...
    @overload
    def quotes(self, *symbols: str, gaps: bool = True) -> AsyncStream[QuoteUpdate | Gap]: ...
    def quotes(self, *symbols: str, gaps: bool = True) -> AsyncStream[Any]:
        """As `Client.quotes`."""
        return AsyncStream(self, self._follow_updates(symbols, ("quotes",), gaps))

    @overload
    def bars(self, *symbols: str, gaps: Literal[False]) -> AsyncStream[BarUpdate]: ...
    @overload
    def bars(self, *symbols: str, gaps: bool = True) -> AsyncStream[BarUpdate | Gap]: ...
    def bars(self, *symbols: str, gaps: bool = True) -> AsyncStream[Any]:
        """As `Client.bars`."""
        return AsyncStream(self, self._follow_updates(symbols, ("bars",), gaps))

    def updates(
        self, *symbols: str, channels: Iterable[str], content: bool = False, gaps: bool = True
    ) -> AsyncStream[MarketData | Gap]:
        """As `Client.updates`."""
        return AsyncStream(self, self._follow_updates(symbols, channels, gaps, content))

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
        return AsyncStream(self, self._follow_orders(account_id, since, journal_id, gaps))

    def gaps(self) -> AsyncStream[Gap]:
        """Every gap of everything that this client follows."""
        return AsyncStream(self, self._engine.subscribe())

    async def last(self, symbol: str) -> Any:
        """As `Client.last`."""
        return await asyncio.to_thread(self._last, symbol)

    async def wait_ready(self, timeout: float = 10.0) -> bool:
        """As `Client.wait_ready`."""
        until = monotonic() + timeout
        while not self._engine.is_ready():
            if monotonic() >= until:
                return False
            await asyncio.sleep(0.005)
        return True

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

    def _begin(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._finalize = weakref.finalize(self, self._engine.close, 1.0)

    def _check(self, handler: Handler) -> None:
        if not callable(handler):
            raise UsageError(f"a handler is a function, not {handler!r}")

    def _attach(self, subscription: Subscription, handler: Handler) -> None:
        stream: AsyncStream[Any] = AsyncStream(self, subscription)
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


async def _hand_out(stream: AsyncStream[Any], handler: Handler) -> None:
    async for update in stream:
        try:
            result = handler(update)
            if inspect.isawaitable(result):
                await result
        except Exception:
            log.exception("a handler failed: %r", handler)
