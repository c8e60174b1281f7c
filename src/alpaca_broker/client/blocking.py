"""The client for bots with threads: iterate, or be called back.

Owns the bot's side of the queues. What comes is heard whether the bot is busy or not, so a slow bot
is never cut off by Redis: by the engine's thread, or by that of a bot that waits for it anyway
(`lending.py`). Callbacks run one after the other in a thread of their own.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterable, Iterator
from math import inf
from operator import attrgetter
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from alpaca_broker.client.arguments import checked_handler
from alpaca_broker.client.engine import Engine
from alpaca_broker.client.front import Front, Handler
from alpaca_broker.client.handlers import HANDLER_ENDS_WITHIN_S, Dispatcher
from alpaca_broker.client.inbox import Bell, Portion
from alpaca_broker.client.market_data import BarUpdate, MarketData, QuoteUpdate
from alpaca_broker.client.subscription import Subscription
from alpaca_broker.client.updates import Gap, OrderUpdate, PriceUpdate

if TYPE_CHECKING:
    from typing import Self

Update = TypeVar("Update")


class Stream(Generic[Update]):
    """Updates, one after the other, until it or its client is closed. For one thread."""

    def __init__(self, client: Client, subscription: Subscription) -> None:
        # The client is kept alive: closing it ends the stream.
        self._client, self._subscription, self._plain = client, subscription, client._plain
        self._lending = client._engine.lending
        self._bell = Bell(self._lending.wake)
        self._portion = Portion()
        self._ready: Iterator[Update] = iter(())
        subscription.inbox.bell = self._bell.ring
        # A stream that is simply dropped is followed no longer.
        weakref.finalize(self, client._engine.drop, subscription).atexit = False

    def __iter__(self) -> Iterator[Update]:
        """May be left and taken up again: nothing is lost in between."""
        while True:
            yield from self._ready
            if not self._refill(None):
                return

    def __next__(self) -> Update:
        """The next one; waits for it."""
        update: Update | None
        while (update := next(self._ready, None)) is None:
            if not self._refill(None):
                raise StopIteration
        return update

    def poll(self, timeout: float = 0.0) -> Update | None:
        """The next one, or None where none came in time or the stream is closed."""
        update: Update | None = next(self._ready, None)
        if update is None and self._refill(timeout):
            update = next(self._ready, None)
        return update

    def close(self) -> None:
        """No longer follow; what has come can still be taken. May be called again."""
        self._client._engine.drop(self._subscription)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _refill(self, timeout: float | None) -> bool:
        """Wait until something has come; False where nothing will, or not in time."""
        inbox = self._subscription.inbox
        until = inf if timeout is None else monotonic() + timeout
        while True:
            closed = inbox.closed
            taken = self._portion.hold(inbox)
            if not taken:
                if closed:
                    return False
                left = until - monotonic()
                found = self._lending.wait(inbox, self._bell, self._portion, left)
                if found is None:
                    return False
                taken = found
            # What was rung for may have been taken already, so it is looked at again.
            if taken:
                updates: Iterator[Any] = iter(taken)
                updates = map(attrgetter("raw"), updates) if self._plain else updates
                self._ready, inbox.in_hand = updates, []  # in one step, see `Inbox.hold`
                return True


class Client(Front):
    __doc__ = Front.__doc__

    @overload
    def prices(self, *symbols: str, gaps: Literal[False]) -> Stream[PriceUpdate]: ...
    @overload
    def prices(self, *symbols: str, gaps: bool = True) -> Stream[PriceUpdate | Gap]: ...
    def prices(self, *symbols: str, gaps: bool = True) -> Stream[Any]:
        """Prices of these symbols (`"*"`: of all), and gaps where some were missed.

        They are followed until the stream is closed or no longer held by anyone.

        Raises:
            UsageError: no symbol, or the client is closed.
        """
        return Stream(self, self._follow_prices(symbols, gaps))

    @overload
    def quotes(self, *symbols: str, gaps: Literal[False]) -> Stream[QuoteUpdate]: ...
    @overload
    def quotes(self, *symbols: str, gaps: bool = True) -> Stream[QuoteUpdate | Gap]: ...
    def quotes(self, *symbols: str, gaps: bool = True) -> Stream[Any]:
        """The best bids and asks of these symbols, and gaps; otherwise as `prices`."""
        return Stream(self, self._follow_updates(symbols, ("quotes",), gaps))

    @overload
    def bars(self, *symbols: str, gaps: Literal[False]) -> Stream[BarUpdate]: ...
    @overload
    def bars(self, *symbols: str, gaps: bool = True) -> Stream[BarUpdate | Gap]: ...
    def bars(self, *symbols: str, gaps: bool = True) -> Stream[Any]:
        """Their bars of a minute, each once it is over; otherwise as `prices`."""
        return Stream(self, self._follow_updates(symbols, ("bars",), gaps))

    def updates(
        self, *symbols: str, channels: Iterable[str], content: bool = False, gaps: bool = True
    ) -> Stream[MarketData | Gap]:
        """Any kinds of market data, named as in a registration, such as `quotes` and `dailyBars`.

        `content`: news with the whole article. `backfill` brings what a gap took: prices whose
        `source` is `backfill`, oldest first, beside the live ones; a second `Gap` (`again`) then
        says whether that was all.

        Raises:
            UsageError: no symbol, no such kind of data, or the client is closed.
        """
        return Stream(self, self._follow_updates(symbols, channels, gaps, content))

    @overload
    def orders(
        self,
        account_id: str | None = None,
        *,
        since: int | None = None,
        journal_id: str | None = None,
        gaps: Literal[False],
    ) -> Stream[OrderUpdate]: ...
    @overload
    def orders(
        self,
        account_id: str | None = None,
        *,
        since: int | None = None,
        journal_id: str | None = None,
        gaps: bool = True,
    ) -> Stream[OrderUpdate | Gap]: ...
    def orders(
        self,
        account_id: str | None = None,
        *,
        since: int | None = None,
        journal_id: str | None = None,
        gaps: bool = True,
    ) -> Stream[Any]:
        """Order events of an account, each once and in order.

        With `since`, the last `seq` that the bot has seen, what came after it is read from the
        journal first; with `journal_id` also a journal that was lost and begun anew is noticed.
        Without, the open orders come first, as snapshots.

        Raises:
            UsageError: no account, or the client is closed.
        """
        return Stream(self, self._follow_orders(account_id, since, journal_id, gaps))

    def gaps(self) -> Stream[Gap]:
        """Every gap of everything that this client follows."""
        return Stream(self, self._engine.subscribe())

    def last(self, symbol: str) -> Any:
        """The last price of a symbol, or None where none is known to be current.

        Raises:
            BusError: Redis is unreachable or refused.
        """
        return self._last(symbol)

    def wait_ready(self, timeout: float = 10.0) -> bool:
        """Wait until all symbols are acknowledged or refused, and orders are caught up."""
        until = monotonic() + timeout
        while not (ready := self._engine.is_ready()) and monotonic() < until:
            time.sleep(0.005)
        return ready

    def close(self) -> None:
        """Unregister, and end the threads; may be called again."""
        _end(self._engine, self._dispatcher, HANDLER_ENDS_WITHIN_S)
        if self._engine.has_ended:  # a signal's handler may have to leave that for later
            self._finalize.detach()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self) -> None:
        self._dispatcher = Dispatcher(self._plain)
        self._engine.lending.open()
        # Also for a bot that forgets to close: it unregisters, and exits without a hang.
        self._finalize = weakref.finalize(self, _end, self._engine, self._dispatcher)

    def _check(self, handler: Handler) -> None:
        checked_handler(handler)

    def _attach(self, subscription: Subscription, handler: Handler) -> None:
        self._dispatcher.add(subscription, handler)


def _end(engine: Engine, dispatcher: Dispatcher, within_s: float = 1.0) -> None:
    engine.request_close()
    dispatcher.close(within_s)
    engine.close(within_s)
