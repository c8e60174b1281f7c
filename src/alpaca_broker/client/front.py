"""What both clients have in common: how a bot is told where Redis is, and what it may ask for.

Owns the arguments, checked at the door, and all that needs no waiting. How a bot waits, and who
calls its handlers, is `Client`'s and `AsyncClient`'s.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from time import monotonic
from typing import TYPE_CHECKING, Any

from alpaca_broker.client.arguments import (
    checked_account,
    checked_kinds,
    checked_since,
    checked_symbols,
)
from alpaca_broker.client.engine import Engine, Options
from alpaca_broker.client.seam import Seam
from alpaca_broker.client.subscription import Counters, Subscription
from alpaca_broker.client.updates import Status
from alpaca_broker.core.feeds import CONTENT

if TYPE_CHECKING:
    from alpaca_broker.settings import RedisTarget

Handler = Callable[[Any], object]
Symbols = str | list[str] | tuple[str, ...]


class Front(ABC):
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
        self._begin()

    @abstractmethod
    def _begin(self) -> None:
        """Make ready what only this client has."""

    @abstractmethod
    def _check(self, handler: Handler) -> None:
        """Whether it can be called.

        Raises:
            UsageError: it cannot.
        """

    @abstractmethod
    def _attach(self, subscription: Subscription, handler: Handler) -> None:
        """Call `handler` with what comes."""

    # What a bot follows.

    def _follow_prices(self, symbols: Iterable[str], gaps: bool) -> Subscription:
        return self._engine.subscribe(checked_symbols(tuple(symbols)), gaps=gaps)

    def _follow_updates(
        self, symbols: Iterable[str], channels: Iterable[str], gaps: bool, content: bool = False
    ) -> Subscription:
        names, kinds = checked_symbols(tuple(symbols)), checked_kinds(channels)
        kinds |= {CONTENT} if content and "news" in kinds else set()
        prices = names if "trades" in kinds else frozenset[str]()
        others = frozenset((kind, name) for kind in kinds - {"trades"} for name in names)
        return self._engine.subscribe(prices, others=others, gaps=gaps)

    def _follow_orders(
        self, account_id: str | None, since: int | None, journal_id: str | None, gaps: bool
    ) -> Subscription:
        account = checked_account(account_id or self._engine.account_id)
        seam = Seam(account, checked_since(since), journal_id)
        return self._engine.subscribe(seam=seam, gaps=gaps)

    # Handlers: called in a thread of the client's, or from the loop.

    def on_price(self, symbols: Symbols, handler: Handler) -> None:
        """Call `handler` with every price of these symbols."""
        self._check(handler)
        self._attach(self._follow_prices(_several(symbols), gaps=False), handler)

    def on_update(
        self, symbols: Symbols, handler: Handler, *, channels: Iterable[str], content: bool = False
    ) -> None:
        """Call `handler` with every update of these kinds of data of these symbols."""
        self._check(handler)
        self._attach(self._follow_updates(_several(symbols), channels, False, content), handler)

    def on_order(
        self,
        account_id: str | None,
        handler: Handler,
        *,
        since: int | None = None,
        journal_id: str | None = None,
    ) -> None:
        """Call `handler` with every order event of the account."""
        self._check(handler)
        self._attach(self._follow_orders(account_id, since, journal_id, gaps=False), handler)

    def on_gap(self, handler: Handler) -> None:
        """Call `handler` with every gap of everything that this client follows."""
        self._check(handler)
        self._attach(self._engine.subscribe(), handler)

    # What is known.

    def status(self) -> Status | None:
        """The last heartbeat of the broker, or None where none was heard yet."""
        return self._engine.session.health.status

    @property
    def state(self) -> str:
        """`live`, `degraded` or `down` as the broker says; `stale` without heartbeat for three
        seconds; `unknown` before the first."""
        return self._engine.session.health.state(monotonic())

    def is_fresh(self, symbol: str, channels: Iterable[str] | None = None) -> bool:
        """Whether what is known of the symbol is current: heartbeat within three seconds, its feed
        live, the symbol acknowledged, no unrepaired hole. Not: traded recently.

        Of everything that is followed of the symbol, or of these kinds alone. What is told once
        (bars, halts, corrections, news) counts as current while it flows; a gap says what did not.
        """
        kinds = None if channels is None else checked_kinds(channels)
        return self._engine.session.is_fresh(symbol, monotonic(), kinds)

    @property
    def rejected(self) -> dict[str, str]:
        """What the broker refused, and why: `SYMBOL` for trades, else `kind:SYMBOL`."""
        return dict(self._engine.session.wishes.rejected)

    @property
    def counters(self) -> Counters:
        """What was counted so far."""
        return self._engine.counters()

    @property
    def bot_id(self) -> str:
        """Under which name this bot is registered."""
        return self._engine.bot_id

    def _last(self, symbol: str) -> Any:
        update = self._engine.last(symbol)
        return update.raw if update is not None and self._plain else update


def _several(symbols: Symbols) -> tuple[str, ...]:
    return (symbols,) if isinstance(symbols, str) else tuple(symbols)
