"""A stream whose waiting thread may read for itself, and what tests ask of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from support import eventually

from alpaca_broker import Client
from alpaca_broker.client import PriceUpdate


def seqs(items: list[Any]) -> list[int]:
    """The numbers of the prices."""
    return [item.seq for item in items if isinstance(item, PriceUpdate)]


def lends(client: Client) -> bool:
    """Whether a waiting bot may read."""
    return client._engine.lending._offer is not None


def polls(client: Client) -> bool:
    """Whether one does."""
    return client._engine.lending._polls


def lent(client: Client, symbol: str = "AAPL") -> Any:
    """A stream whose waiting thread does the reading."""
    prices = client.prices(symbol)
    assert client.wait_ready()
    eventually(lambda: lends(client))
    return prices


class Elsewhere:
    """Something done in another thread; what came of it, or what it raised."""

    def __init__(self, do: Callable[[], Any]) -> None:
        self._do, self._result, self._error = do, None, None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._do()
        except Exception as error:
            self._error = error

    def result(self) -> Any:
        """What came of it, within ten seconds."""
        self._thread.join(10)
        assert not self._thread.is_alive(), "it still waits"
        if self._error is not None:
            raise self._error
        return self._result
