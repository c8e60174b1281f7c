"""The names of the contract: every channel and key, with the deployment's prefix before it.

Owns the spelling and nothing else. Redis' pub/sub ignores database numbers, so the prefix
is the only thing that keeps two deployments on one server apart.
"""

from __future__ import annotations

PRICE = "price:"
QUOTE = "quote:"
BAR = "bar:"
TRADING_STATUS = "trading_status:"
CORRECTION = "correction:"
BACKFILL = "backfill:"
NEWS = "news:"
ORDERBOOK = "orderbook:"
ORDER = "order:"

# Where each kind of data is heard: what a bot registers for, and what it then subscribes to.
HEARD_ON = {
    "trades": PRICE,
    "quotes": QUOTE,
    "bars": BAR,
    "updatedBars": BAR,
    "dailyBars": BAR,
    "statuses": TRADING_STATUS,
    "lulds": TRADING_STATUS,
    "corrections": CORRECTION,
    "backfill": BACKFILL,
    "news": NEWS,
    "newsContent": NEWS,
    "orderbooks": ORDERBOOK,
}
MARKET_DATA = tuple(dict.fromkeys(HEARD_ON.values()))


def heard_name(account_id: str) -> str:
    """The field of `broker:received` that says until when an account's stream was whole.

    The field of its id alone says until when the account was held against REST.
    """
    return f"heard:{account_id}"


def begun_name(account_id: str) -> str:
    """The field of `broker:received` that says when an account was followed for the first time."""
    return f"begun:{account_id}"


class Channels:
    """Channel and key names of one deployment (contract, section 1)."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self.registration = f"{prefix}broker:registration"
        self.logs = f"{prefix}broker:logs"
        self.status = f"{prefix}broker:status"
        self.leader = f"{prefix}broker:leader"
        self.deployment = f"{prefix}broker:deployment"
        self.epoch = f"{prefix}broker:epoch"
        self.registry = f"{prefix}broker:registry"
        self.gaps = f"{prefix}broker:gaps"
        self.received = f"{prefix}broker:received"
        self.last = f"{prefix}price:last"

    def price(self, symbol: str) -> str:
        """The channel of a symbol's trades."""
        return f"{self.prefix}{PRICE}{symbol}"

    def market_data(self, kind: str, symbol: str) -> str:
        """The channel of one of `MARKET_DATA`, such as `QUOTE`, of a symbol."""
        return f"{self.prefix}{kind}{symbol}"

    def backfill(self, symbol: str) -> str:
        """The channel of a symbol's trades that were recovered after a gap."""
        return f"{self.prefix}{BACKFILL}{symbol}"

    def order(self, account_id: str) -> str:
        """The channel of an account's order events."""
        return f"{self.prefix}{ORDER}{account_id}"

    def reply(self, to: str) -> str:
        """Where our own clients and commands have answers to their registrations sent."""
        return f"{self.prefix}reply:{to}"

    def journal(self, account_id: str) -> str:
        """The stream that keeps an account's order events."""
        return f"{self.prefix}journal:order:{account_id}"

    def open_orders(self, account_id: str) -> str:
        """The hash with the last event of each open order of an account."""
        return f"{self.prefix}orders:open:{account_id}"
