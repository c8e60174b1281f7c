"""What bots may pass to a client: checked once, at the door.

Owns the texts that say what to change. Whether a symbol exists is the broker's business.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

from alpaca_broker.client.market_data import KINDS
from alpaca_broker.errors import UsageError


def checked_symbols(symbols: tuple[str, ...]) -> frozenset[str]:
    """The symbols of a subscription.

    Raises:
        UsageError: there is none, or one is no text.
    """
    if not symbols:
        raise UsageError('no symbol: name some, or "*" for all of the feed')
    for symbol in symbols:
        if not isinstance(symbol, str) or not symbol or not symbol.isprintable():
            raise UsageError(f"a symbol is a text such as AAPL, not {symbol!r}")
        if "*" in symbol and symbol != "*":
            raise UsageError(f'{symbol} is a pattern: name symbols, or "*" for all')
    return frozenset(symbols)


def checked_since(since: int | None) -> int | None:
    """The `seq` of the last order event that a bot has.

    Raises:
        UsageError: it is none.
    """
    if since is not None and (not isinstance(since, int) or since < 0):
        raise UsageError(f"since is the seq of the last update you have, not {since!r}")
    return since


def checked_handler(handler: Any) -> None:
    """Whether it can be called from a thread.

    Raises:
        UsageError: it cannot.
    """
    if not callable(handler) or inspect.iscoroutinefunction(handler):
        raise UsageError(f"a handler is a plain function, not {handler!r}")


def checked_account(account_id: str | None) -> str:
    """The account to follow.

    Raises:
        UsageError: none is named.
    """
    if not account_id:
        raise UsageError("no account: name one, here or as the client's account_id")
    return account_id


def checked_kinds(channels: Iterable[str]) -> frozenset[str]:
    """The kinds of market data of a subscription.

    Raises:
        UsageError: there is none, or one does not exist.
    """
    kinds = frozenset((channels,) if isinstance(channels, str) else channels)
    if not kinds or not kinds <= set(KINDS):
        raise UsageError(f"channels are some of {', '.join(KINDS)}, not {sorted(map(str, kinds))}")
    return kinds
