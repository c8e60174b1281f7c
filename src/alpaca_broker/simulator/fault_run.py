"""Playing a script of faults on a running simulator.

Owns the tasks of the faults under way. Invariant: when `play` ends, however it ends, each fault has
ended and taken back what it switched. It decides nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from alpaca_broker.simulator.faults import Fault

if TYPE_CHECKING:
    from alpaca_broker.simulator.server import Simulator

Tell = Callable[[Fault], None]
_LOOK_S = 0.02


async def play(simulator: Simulator, faults: Iterable[Fault], tell: Tell | None = None) -> None:
    """Play faults at their times, counted from now, until the last one has ended.

    Args:
        simulator: What they happen to.
        faults: In any order; they may overlap.
        tell: Hears of each as it begins.
    """
    began = asyncio.get_running_loop().time()
    async with asyncio.TaskGroup() as tasks:
        for fault in faults:
            one = _in_time(simulator, fault, began, tell)
            tasks.create_task(one, name=f"fault {fault}")


async def play_for_clients(
    simulator: Simulator, faults: Iterable[Fault], tell: Tell | None = None
) -> None:
    """The same, counted from the first WebSocket of a client."""
    faults, stats = list(faults), simulator.stats
    if not faults:
        return
    while not (stats.market_connections or stats.trading_connections):  # noqa: ASYNC110
        await asyncio.sleep(_LOOK_S)  # counters have no event
    await play(simulator, faults, tell)


async def _in_time(simulator: Simulator, fault: Fault, began: float, tell: Tell | None) -> None:
    await asyncio.sleep(began + fault.at_ms / 1000 - asyncio.get_running_loop().time())
    if tell is not None:
        tell(fault)
    await fault.kind.act(simulator, fault)
