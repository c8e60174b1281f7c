"""Taking a snapshot of an account's orders by REST: the open ones, the recent ones, the fills.

Owns the paging and which questions are asked. It retries nothing, and what it could not ask leaves
the snapshot incomplete. `after` of `GET /v2/orders` looks at the submission time: so an order from
yesterday that was filled meanwhile is asked for by its id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

from alpaca_broker.alpaca.rest import MOST_FILLS, MOST_ORDERS, TradingRest
from alpaca_broker.core.orders import created_at
from alpaca_broker.core.snapshot import Snapshot

MOST_PAGES = 200
MOST_SINGLE = 10  # orders asked for by id in one look; where there are more, a list is asked first

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
    questions = [_orders(rest, snapshot, status="open")]
    if orders_since is not None:
        questions.append(_orders(rest, snapshot, since=orders_since, status="all"))
    if fills_since is not None:
        questions.append(_fills(rest, snapshot, fills_since))
    whole = await _all(questions)
    ids = unexplained(snapshot)
    if len(ids) > MOST_SINGLE:
        whole &= await _orders(rest, snapshot, since=min(ids.values()) - 1.0, status="all")
        ids = unexplained(snapshot)
    for order_id in list(ids)[:MOST_SINGLE]:  # the others have their turn at the next look
        await _one(rest, snapshot, order_id)
    snapshot.complete = whole and len(ids) <= MOST_SINGLE


async def look_closely(
    rest: TradingRest, snapshot: Snapshot, orders: dict[str, float], *, fills_since: float
) -> None:
    """Add a few orders, by id or, where they are many, by when the first was submitted; and fills.

    Raises:
        UpstreamRefused, UpstreamUnavailable: Alpaca did not answer one of the questions.
    """
    questions = [_fills(rest, snapshot, fills_since)]
    if len(orders) > MOST_SINGLE:
        questions.append(_orders(rest, snapshot, since=min(orders.values()) - 1.0, status="all"))
    else:
        questions += [_one(rest, snapshot, order_id) for order_id in orders]
    await _all(questions)


async def _one(rest: TradingRest, snapshot: Snapshot, order_id: str) -> bool:
    """One order by its id; whether Alpaca knows it."""
    order = await rest.order(order_id)
    snapshot.looked_up.add(order_id)
    if order is None:
        snapshot.gone.add(order_id)
    else:
        snapshot.add_orders([order])
    return order is not None


async def _all(questions: list[Coroutine[Any, Any, bool]]) -> bool:
    """Ask side by side, since live events may be waiting; whether every answer was whole.

    By `gather`: up to Python 3.12 a task group whose member fails while it waits for them leaves
    its caller marked as cancelled, and a time limit around it would then be lost.
    """
    answers = await asyncio.gather(*questions, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return all(answers)


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
        if since is not None and reached <= since:
            return False  # a whole page within a millisecond
        since = reached
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
