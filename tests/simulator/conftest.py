"""Simulators to test against, stopped when the test is over."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from simulator_clients import Start, write_ticks

from alpaca_broker.simulator import Simulator, SimulatorOptions


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Start simulators that are stopped after the test."""
    running: list[Simulator] = []

    async def make(**options: Any) -> Simulator:
        simulator = Simulator(SimulatorOptions(**options))
        await simulator.start()
        running.append(simulator)
        return simulator

    yield make
    for simulator in running:
        await simulator.stop()


@pytest.fixture
async def quiet(tmp_path: Path, start: Start) -> Simulator:
    """A simulator whose market is silent but for what the test emits."""
    ticks = write_ticks(tmp_path, "zzz_20131007_trade.zip", ["34200000,10000,1,Q,1,0"])
    # At full speed a replay waits for a subscriber to ZZZ, which never comes.
    return await start(ticks=[ticks], speed="max")
