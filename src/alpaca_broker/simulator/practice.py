"""What runs beside a simulator that somebody practises with: orders, and faults.

Owns the two tasks. Invariant: both count from the first WebSocket of a client, for the broker may
be started at leisure. It is for the command line; tests call `fault_run` and `order_flow`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import count

from alpaca_broker.simulator.fault_run import Tell, play
from alpaca_broker.simulator.faults import Fault
from alpaca_broker.simulator.order_flow import Flow, plan
from alpaca_broker.simulator.server import Simulator

_LOOK_S = 0.02
_PLAN_EVENTS = 1_000


async def practise(
    simulator: Simulator,
    faults: Sequence[Fault] = (),
    tell: Tell | None = None,
    *,
    key_id: str = "",
    orders_per_s: float | None = None,
) -> None:
    """Play faults, and let orders happen, until cancelled.

    Args:
        simulator: A running one.
        faults: What goes wrong.
        tell: Hears of each fault as it begins.
        key_id: Whose orders.
        orders_per_s: How many order events a second; None: no orders but those a bot places.
    """
    stats = simulator.stats
    while not (stats.market_connections or stats.trading_connections):  # noqa: ASYNC110
        await asyncio.sleep(_LOOK_S)  # counters have no event
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(play(simulator, faults, tell), name="faults")
        if orders_per_s:
            endless = _orders(simulator, key_id, orders_per_s)
            tasks.create_task(endless, name="orders")


async def _orders(simulator: Simulator, key_id: str, per_second: float) -> None:
    hand = simulator.by_hand(key_id)
    for seed in count(simulator.options.seed):
        await Flow(hand, seed).run(plan(seed, _PLAN_EVENTS), per_second)
