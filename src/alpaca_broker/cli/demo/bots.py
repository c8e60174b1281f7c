"""The sample bots: two that only watch, and one that trades.

Owns what they want and do. They know the broker by its contract only: a Redis client and JSON.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

from alpaca_broker.cli.demo.listener import Listener, Message
from alpaca_broker.cli.demo.orders import OrderBook
from alpaca_broker.cli.demo.rest_account import RestAccount
from alpaca_broker.cli.demo.tally import PriceBook

ACT_EVERY_S = 2.0
CANCEL_AFTER_S = 3.0
LOOKS_BACK = 50
QUANTITIES = (10, 150, 25)  # the simulator fills above 100 shares in parts


class WatchingBot:
    """Registers its symbols and counts their prices."""

    def __init__(
        self, name: str, port: int, symbols: Sequence[str], failed: Callable[[BaseException], None]
    ) -> None:
        self.name = name
        self.prices = PriceBook(symbols)
        self.listener = Listener(
            name,
            port,
            [f"price:{symbol}" for symbol in symbols],
            hear=self.prices.add,
            failed=failed,
            symbols=symbols,
        )


class MomentumBot:
    """Buys what rises most, sells it again, and now and then changes its mind about a bid.

    Its `client_order_id`s begin with its name, so that the broker can say whose order it was.
    """

    def __init__(
        self,
        port: int,
        symbols: Sequence[str],
        account: RestAccount,
        account_id: str,
        failed: Callable[[BaseException], None],
    ) -> None:
        self.name = "momentum"
        self.prices = PriceBook(symbols)
        self.orders = OrderBook()
        self._account = account
        self._moves: dict[str, deque[float]] = {s: deque(maxlen=LOOKS_BACK) for s in symbols}
        self._holding: tuple[str, int] | None = None
        self._bid: tuple[str, float] | None = None  # the order's id, and when to cancel it
        self._next_act = 0.0
        self._number = 0
        self.listener = Listener(
            self.name,
            port,
            [*(f"price:{symbol}" for symbol in symbols), f"order:{account_id}"],
            hear=self._hear,
            failed=failed,
            idle=self._act,
            symbols=symbols,
        )

    def _hear(self, message: Message, now: float) -> None:
        if message["type"] == "order_update":
            self.orders.add(message)
        else:
            self.prices.add(message, now)
            self._moves[message["symbol"]].append(message["price"])

    def _act(self) -> None:
        now = time.monotonic()
        if self._bid is not None and now >= self._bid[1]:
            self._account.cancel(self._bid[0])
            self._bid = None
        symbol = self._strongest()
        if symbol is None or now < self._next_act:
            return
        self._next_act = now + ACT_EVERY_S
        if self._number % 3 == 1 and self._bid is None:
            self._bid_below(symbol, now)
        elif self._holding is None:
            quantity = QUANTITIES[self._number // 3 % len(QUANTITIES)]
            if self._place(symbol, "buy", quantity, type="market"):
                self._holding = (symbol, quantity)
        else:
            held, quantity = self._holding
            if self._place(held, "sell", quantity, type="market"):
                self._holding = None

    def _strongest(self) -> str | None:
        rises = {symbol: p[-1] / p[0] for symbol, p in self._moves.items() if p and p[0]}
        return max(rises, key=rises.__getitem__) if rises else None

    def _bid_below(self, symbol: str, now: float) -> None:
        price = f"{self._moves[symbol][-1] * 0.95:.2f}"
        if order_id := self._place(symbol, "buy", 10, type="limit", limit_price=price):
            self._bid = (order_id, now + CANCEL_AFTER_S)

    def _place(self, symbol: str, side: str, quantity: int, **more: str) -> str | None:
        self._number += 1
        return self._account.submit(
            symbol=symbol,
            side=side,
            qty=str(quantity),
            time_in_force="day",
            client_order_id=f"{self.name}.{self._number}",
            **more,
        )
