"""A loop whose time is pretended: nobody waits, and the same seed is the same storm."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from lives import BEGAN

from alpaca_broker.trading import reconciliation

T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    """Where a loop would wait, its time goes on."""

    passed = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "everybody waits for somebody else"
        self.passed += timeout
        return super().select(0)


class PretendedLoop(asyncio.SelectorEventLoop):
    """Its `time()` is the monotonic clock of the reconciler, and, from `BEGAN` on, Alpaca's."""

    def __init__(self) -> None:
        self._pretended = _Selector()
        super().__init__(self._pretended)

    def time(self) -> float:
        return self._pretended.passed


def run(work: Coroutine[Any, Any, T], monkeypatch: pytest.MonkeyPatch) -> T:
    """Do it in pretended time."""
    loop = PretendedLoop()
    monkeypatch.setattr(reconciliation, "monotonic", loop.time)
    monkeypatch.setattr(reconciliation, "time", lambda: BEGAN + loop.time())
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()


def now() -> float:
    """Alpaca's time, and ours."""
    return BEGAN + asyncio.get_running_loop().time()
