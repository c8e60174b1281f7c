"""Where the data of one feed comes from: its addresses, keys, hours, and what is asked of its past.

Owns no state of its own: an immutable value that the parts of a feed share.
"""

from __future__ import annotations

from dataclasses import dataclass

import aiohttp

from alpaca_broker.alpaca.hours import MarketHours
from alpaca_broker.alpaca.quota import Quota
from alpaca_broker.alpaca.rest import DataRest
from alpaca_broker.core.accounts import KeyPair
from alpaca_broker.core.feeds import Feed, Topic


@dataclass(frozen=True, kw_only=True)
class Upstream:
    """One feed at Alpaca.

    Args:
        feed: Which one.
        url: Where it streams.
        data_url: Where REST tells of its past.
        keys: What Alpaca knows us by.
        quota: How many REST calls those keys have.
        hours: When its market is open.
        backfill_trades: How many trades of a symbol are recovered after a gap, at most.
        canary: What always trades, to tell a quiet link from a mute one; where the feed has it.
    """

    feed: Feed
    url: str
    data_url: str
    keys: KeyPair
    quota: Quota
    hours: MarketHours
    backfill_trades: int
    canary: Topic | None = None

    def rest(self, http: aiohttp.ClientSession) -> DataRest:
        """Its past, by REST."""
        return DataRest(http, self.data_url, self.keys, self.quota)
