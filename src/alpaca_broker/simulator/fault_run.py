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


async def _in_time(simulator: Simulator, fault: Fault, began: float, tell: Tell | None) -> None:
    await asyncio.sleep(began + fault.at_ms / 1000 - asyncio.get_running_loop().time())
    if tell is not None:
        tell(fault)
    await fault.kind.act(simulator, fault)
