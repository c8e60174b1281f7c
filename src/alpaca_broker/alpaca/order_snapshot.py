"""Taking a snapshot of an account's orders by REST: the open ones, the recent ones, the fills.

Owns the paging and which questions are asked. It retries nothing, and what it could not ask leaves
the snapshot incomplete. `after` of `GET /v2/orders` looks at the submission time: so an order from
yesterday that was filled meanwhile is asked for by its id.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from alpaca_broker.alpaca.rest import MOST_FILLS, MOST_ORDERS, TradingRest
from alpaca_broker.core.orders import created_at
from alpaca_broker.core.snapshot import Snapshot

MOST_PAGES = 200
MOST_SINGLE = 10  # orders asked for by id; where there are more, a list from the oldest on is asked
MOST_SINGLE_AT_ALL = 100

Unexplained = Callable[[Snapshot], dict[str, float]]


async def take_snapshot(
    rest: TradingRest,
    snapshot: Snapshot,
    *,
    orders_since: float | None,
    fills_since: float | None,
    unexplained: Unexplained = lambda snapshot: {},
) -> None:
    """Fill `snapshot`, and say whether it is complete. Times are epoch seconds; None: not asked.

    Raises:
        UpstreamRefused, UpstreamUnavailable: Alpaca did not answer one of the questions.
    """
    whole = await _orders(rest, snapshot, status="open")
    if orders_since is not None:
        whole &= await _orders(rest, snapshot, since=orders_since, status="all")
    if fills_since is not None:
        whole &= await _fills(rest, snapshot, fills_since)
    ids = unexplained(snapshot)
    if len(ids) > MOST_SINGLE:
        whole &= await _orders(rest, snapshot, since=min(ids.values()) - 1.0, status="all")
        ids = unexplained(snapshot)
    for order_id in list(ids)[:MOST_SINGLE_AT_ALL]:
        order = await rest.order(order_id)
        if order is None:
            snapshot.gone.add(order_id)
        else:
            snapshot.add_orders([order])
    snapshot.complete = whole and len(ids) <= MOST_SINGLE_AT_ALL


async def _orders(
    rest: TradingRest, snapshot: Snapshot, *, since: float | None = None, **query: str
) -> bool:
    """All pages of a list of orders; whether that was all."""
    for _ in range(MOST_PAGES):
        after = {} if since is None else {"after": _rfc3339(since)}
        page = await rest.orders(direction="asc", **query, **after)
        snapshot.add_orders(page)
        if len(page) < MOST_ORDERS:
            return True
        reached = _submitted(page[-1])
        if reached is None:
            return False
        # Exclusive, and several may have been submitted at once: the last ones come again.
        reached -= 0.001
        since = reached if since is None or reached > since else since + 0.001
    return False


async def _fills(rest: TradingRest, snapshot: Snapshot, since: float) -> bool:
    """All pages of fills, oldest first; whether that was all."""
    token: dict[str, str] = {}
    for _ in range(MOST_PAGES):
        page = await rest.fills(direction="asc", after=_rfc3339(since), **token)
        snapshot.add_fills(page)
        if len(page) < MOST_FILLS:
            return True
        last = page[-1].get("id") if isinstance(page[-1], dict) else None
        if not isinstance(last, str) or token.get("page_token") == last:
            return False
        token = {"page_token": last}
    return False


def _submitted(order: Any) -> float | None:
    return created_at(order) if isinstance(order, dict) else None


def _rfc3339(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
