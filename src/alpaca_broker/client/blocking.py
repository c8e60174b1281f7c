"""The client for bots with threads: iterate, or be called back.

Owns the bot's side of the queues. What is heard is heard by the engine's thread whether the bot is
busy or not, so a slow bot is never cut off by Redis; callbacks run one after the other in a thread
of their own.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator
from operator import attrgetter
from threading import Event
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from alpaca_broker.client.arguments import checked_handler, checked_since, checked_symbols
from alpaca_broker.client.engine import Engine, Options
from alpaca_broker.client.handlers import HANDLER_ENDS_WITHIN_S, Dispatcher
from alpaca_broker.client.inbox import Portion
from alpaca_broker.client.seam import Seam
from alpaca_broker.client.subscription import Counters, Subscription
from alpaca_broker.client.updates import Gap, OrderUpdate, PriceUpdate, Status
from alpaca_broker.errors import UsageError

if TYPE_CHECKING:
    from typing import Self

    from alpaca_broker.settings import RedisTarget

Update = TypeVar("Update")


class Stream(Generic[Update]):
    """Updates, one after the other, until it or its client is closed. For one thread."""

    def __init__(self, client: Client, subscription: Subscription, plain: bool) -> None:
        # The client is kept alive: closing it ends the stream.
        self._client, self._subscription, self._plain = client, subscription, plain
        self._awake = Event()
        self._portion = Portion()
        self._ready: Iterator[Update] = iter(())
        subscription.inbox.bell = self._awake.set
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
        while True:
            self._awake.clear()
            closed = inbox.closed
            if taken := self._portion.take(inbox):
                updates: Iterator[Any] = iter(taken)
                self._ready = map(attrgetter("raw"), updates) if self._plain else updates
                return True
            if closed or not self._awake.wait(timeout):
                return False


class Client:
    """A trading bot's way to the broker.

    Where Redis is comes from `url`, `target` or `host`, else from the settings. `plain` yields
    dicts instead of objects. `queue` bounds what waits for each consumer.
    """

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
        self._dispatcher = Dispatcher(plain)
        # Also for a bot that forgets to close: it unregisters, and exits without a hang.
        self._finalize = weakref.finalize(self, _end, self._engine, self._dispatcher)

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
        subscription = self._engine.subscribe(checked_symbols(symbols), gaps=gaps)
        return Stream(self, subscription, self._plain)

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
        seam = Seam(self._account(account_id), checked_since(since), journal_id)
        subscription = self._engine.subscribe(seam=seam, gaps=gaps)
        return Stream(self, subscription, self._plain)

    def gaps(self) -> Stream[Gap]:
        """Every gap of everything that this client follows."""
        return Stream(self, self._engine.subscribe(), self._plain)

    def on_price(
        self, symbols: str | list[str] | tuple[str, ...], handler: Callable[[Any], object]
    ) -> None:
        """Call `handler` with every price of these symbols, in a thread of the client's."""
        names = (symbols,) if isinstance(symbols, str) else tuple(symbols)
        checked_handler(handler)
        subscription = self._engine.subscribe(checked_symbols(names), gaps=False)
        self._dispatcher.add(subscription, handler)

    def on_order(
        self,
        account_id: str | None,
        handler: Callable[[Any], object],
        *,
        since: int | None = None,
        journal_id: str | None = None,
    ) -> None:
        """Call `handler` with every order event of the account, in a thread of the client's."""
        checked_handler(handler)
        seam = Seam(self._account(account_id), checked_since(since), journal_id)
        self._dispatcher.add(self._engine.subscribe(seam=seam, gaps=False), handler)

    def on_gap(self, handler: Callable[[Any], object]) -> None:
        """Call `handler` with every gap of everything that this client follows."""
        checked_handler(handler)
        self._dispatcher.add(self._engine.subscribe(), handler)

    def last(self, symbol: str) -> Any:
        """The last price of a symbol, or None where none is known to be current.

        Raises:
            BusError: Redis is unreachable or refused.
        """
        update = self._engine.last(symbol)
        return update.raw if update is not None and self._plain else update

    def status(self) -> Status | None:
        """The last heartbeat of the broker, or None where none was heard yet."""
        return self._engine.session.health.status

    @property
    def state(self) -> str:
        """`live`, `degraded` or `down` as the broker says; `stale` without heartbeat for three
        seconds; `unknown` before the first."""
        return self._engine.session.health.state(monotonic())

    def is_fresh(self, symbol: str) -> bool:
        """Whether what is known of the symbol is current: heartbeat within three seconds, its feed
        live, the symbol acknowledged, no unrepaired hole. Not: traded recently."""
        return self._engine.session.is_fresh(symbol, monotonic())

    def wait_ready(self, timeout: float = 10.0) -> bool:
        """Wait until all symbols are acknowledged or refused, and orders are caught up."""
        until = monotonic() + timeout
        while not (ready := self._engine.is_ready()) and monotonic() < until:
            time.sleep(0.005)
        return ready

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

    def close(self) -> None:
        """Unregister, and end the threads; may be called again."""
        self._finalize.detach()
        _end(self._engine, self._dispatcher, HANDLER_ENDS_WITHIN_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _account(self, account_id: str | None) -> str:
        account = account_id or self._engine.account_id
        if not account:
            raise UsageError("no account: name one, here or as the client's account_id")
        return account


def _end(engine: Engine, dispatcher: Dispatcher, within_s: float = 1.0) -> None:
    engine.request_close()
    dispatcher.close(within_s)
    engine.close(within_s)
