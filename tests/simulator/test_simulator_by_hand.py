"""Orders moved by hand, whole days of them, and finding them again by REST."""

from __future__ import annotations

import time
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulator_clients import Rest, rest_of

from alpaca_broker.simulator import Simulator, SimulatorOptions, SimulatorThread, account_id_of
from alpaca_broker.simulator.by_hand import ByHand
from alpaca_broker.simulator.exchange import Exchange
from alpaca_broker.simulator.order_flow import Flow, Move, plan

ME = account_id_of("PK1")
EVENTS = {"new", "held", "partial_fill", "fill", "canceled", "replaced", "expired", "rejected"}


def floor() -> tuple[Exchange, ByHand, list[dict[str, Any]]]:
    heard: list[dict[str, Any]] = []
    exchange = Exchange(
        SimulatorOptions(), time.time_ns, lambda symbol: 100_000, lambda _, u: heard.append(u)
    )
    return exchange, ByHand(exchange, exchange.account("PK1")), heard


def test_the_market_leaves_such_orders_alone() -> None:
    """They fill in the parts, at the prices and to the end that the hand decides."""
    exchange, hand, heard = floor()
    order = hand.place("AAPL", 10)
    exchange.work()
    hand.fill(order, 4, "9.5")
    exchange.work()
    hand.fill(order)
    assert [u["event"] for u in heard] == ["new", "partial_fill", "fill"]
    assert [u.get("price") for u in heard] == [None, "9.5", "100"]
    with pytest.raises(ValueError, match="filled already"):
        hand.cancel(order)
    with pytest.raises(ValueError, match="6 shares"):
        hand.fill(hand.place("AAPL", 5), 6)


def test_every_end_has_its_time() -> None:
    """expired_at, failed_at, canceled_at: one each, as the status says."""
    _, hand, heard = floor()
    for end in (hand.cancel, hand.expire, hand.reject):
        end(hand.place("AAPL", 1))
    ends = {u["event"]: u["order"] for u in heard if u["event"] != "new"}
    times = {"canceled": "canceled_at", "expired": "expired_at", "rejected": "failed_at"}
    assert ends.keys() == times.keys()
    for event, order in ends.items():
        assert order["status"] == event
        assert {name for name in times.values() if order[name]} == {times[event]}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 300))
def test_a_flow_is_its_seed_and_makes_exactly_so_many_events(seed: int, events: int) -> None:
    """And each order's events are a life that could be: new first, nothing after its end."""
    moves = plan(seed, events)
    assert moves == plan(seed, events)
    _, hand, heard = floor()
    flow = Flow(hand, seed)
    for move in moves:
        flow.do(move)
    assert flow.events == len(heard) == events
    by_order: dict[str, list[dict[str, Any]]] = {}
    for update in heard:
        by_order.setdefault(update["order"]["id"], []).append(update)
    for life in by_order.values():
        names = [update["event"] for update in life]
        assert names[0] in {"new", "held"}
        assert not {"fill", "canceled", "expired", "rejected", "replaced"} & set(names[:-1])
        filled = [float(update["order"]["filled_qty"]) for update in life]
        assert filled == sorted(filled)


def test_a_flow_is_mixed() -> None:
    """Every kind of event is in a few hundred."""
    _, hand, heard = floor()
    flow = Flow(hand)
    for move in plan(1, 600):
        flow.do(move)
    seen = Counter(update["event"] for update in heard)
    assert seen.keys() == EVENTS
    assert min(seen.values()) > 3


def test_a_flow_from_another_thread_at_its_rate() -> None:
    """It goes on while the server is stopped; leaving the context ends what is not done."""
    with SimulatorThread() as thread:
        began = time.monotonic()
        flow = thread.order_flow("PK1", events=100, per_second=500)
        thread.stop_server()
        assert flow.result(60) == 100
        assert time.monotonic() - began > 0.15
        assert len(thread.call(thread.simulator.ledger, ME)) == 100
        endless = thread.order_flow("PK2", events=10_000, per_second=1)
    assert endless.cancelled()


async def pages(rest: Rest, path: str, step: Any) -> list[dict[str, Any]]:
    """Everything, page by page, each asked for with what `step` makes of the last item."""
    found: list[dict[str, Any]] = []
    more = ""
    while True:
        status, page = await rest("GET", path + more)
        assert status == 200, page
        if not page:
            return found
        found += page
        more = step(page[-1])


async def test_all_orders_and_fills_are_found_again_page_by_page(quiet: Simulator) -> None:
    """Both ways through the list, though more came than any page holds."""
    flow = Flow(quiet.by_hand("PK1"))
    for move in plan(5, 900):
        flow.do(move)
    ledger = quiet.ledger(ME)
    last = {update["order"]["id"]: update["order"] for update in ledger}
    fills = [update for update in ledger if update["event"] in {"fill", "partial_fill"}]
    async with rest_of(quiet) as rest:
        for direction, bound in (("asc", "after"), ("desc", "until")):
            path = f"/v2/orders?status=all&limit=97&direction={direction}"
            found = await pages(rest, path, lambda o, b=bound: f"&{b}={o['submitted_at']}")
            assert {order["id"]: order for order in found} == last
            assert len(found) == len(last)
        path = "/v2/account/activities/FILL?page_size=100&direction=asc"
        done = await pages(rest, path, lambda a: f"&page_token={a['id']}")
    assert [(a["order_id"], a["qty"], a["price"]) for a in done] == [
        (u["order"]["id"], u["qty"], u["price"]) for u in fills
    ]
    for activity, update in zip(done, fills, strict=True):
        order = update["order"]
        assert activity["cum_qty"] == order["filled_qty"]
        left = float(order["qty"]) - float(order["filled_qty"])
        assert float(activity["leaves_qty"]) == left
        assert activity["type"] == update["event"]
        assert {type(activity[n]) for n in ("price", "qty", "cum_qty", "leaves_qty")} == {str}


async def test_an_order_from_yesterday_fills_now(quiet: Simulator) -> None:
    """By submission it lies before everything of today; its fill is an activity of now."""
    hand = quiet.by_hand("PK1")
    today = hand.place("AAPL", 1)
    old = hand.place("AAPL", 2, days_ago=1)
    began = quiet.ledger(ME)[0]["timestamp"]
    hand.fill(old, 1)
    async with rest_of(quiet) as rest:
        _, listed = await rest("GET", "/v2/orders?status=all&direction=asc")
        assert [order["id"] for order in listed] == [old, today]
        assert listed[0]["submitted_at"] < listed[1]["submitted_at"]
        _, recent = await rest("GET", f"/v2/orders?status=all&after={listed[0]['submitted_at']}")
        assert [order["id"] for order in recent] == [today]
        _, fills = await rest("GET", f"/v2/account/activities/FILL?after={began}")
        assert [(f["order_id"], f["leaves_qty"]) for f in fills] == [(old, "1")]


async def test_orders_between_ids(quiet: Simulator) -> None:
    """The cursors by id; wrong parameters are 422."""
    hand = quiet.by_hand("PK1")
    ids = [hand.place("AAPL", 1) for _ in range(4)]
    async with rest_of(quiet) as rest:

        async def listed(query: str) -> Any:
            status, found = await rest("GET", f"/v2/orders?{query}")
            return [o["id"] for o in found] if status == 200 else status

        assert await listed(f"direction=asc&after_order_id={ids[1]}") == ids[2:]
        assert await listed(f"direction=asc&before_order_id={ids[1]}") == ids[:1]
        assert await listed("asset_class=crypto") == []
        assert await listed("asset_class=us_equity&limit=1") == ids[-1:]
        for wrong in (
            f"after_order_id={ids[0]}&before_order_id={ids[1]}",
            f"after_order_id={ids[0]}&after=2024-01-01",
            *("after_order_id=nope", "direction=up", "side=hold"),
        ):
            assert await listed(wrong) == 422
        for wrong in ("page_token=nope", "direction=up", "page_size=101"):
            assert (await rest("GET", f"/v2/account/activities/FILL?{wrong}"))[0] == 422


def test_submission_times_tell_orders_apart() -> None:
    """Even on a clock that stands still."""
    exchange = Exchange(SimulatorOptions(), lambda: 10**18, lambda symbol: None, lambda _, u: None)
    hand = ByHand(exchange, exchange.account("PK1"))
    orders = [exchange.account("PK1").orders[hand.place("A", 1)] for _ in range(5)]
    assert all(a.created_ns < b.created_ns for a, b in pairwise(orders))


def test_a_clock_that_is_set_back_is_believed() -> None:
    """Orders of a pretended yesterday are from yesterday."""
    now = [10**18]
    exchange = Exchange(SimulatorOptions(), lambda: now[0], lambda symbol: None, lambda _, u: None)
    hand = ByHand(exchange, exchange.account("PK1"))
    hand.place("A", 1)
    now[0] -= 86_400 * 10**9
    hand.place("A", 1)
    late, early = exchange.account("PK1").orders.values()
    assert late.created_ns - early.created_ns == 86_400 * 10**9


def test_moves_are_values() -> None:
    """They can be compared and printed."""
    assert Move("place", 1, "A") == Move("place", 1, "A")
