"""What may happen to order events between the exchange and a healthy socket.

Owns the counters of what is to come and the events it holds back. Invariant: an event is lost only
where that was asked for; the ledger has all of them, untouched. It knows no sockets.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from alpaca_broker.simulator.accounts import Account

Update = dict[str, Any]
Deliver = Callable[[Account, Update], None]
_PATIENCE_S = 1.0


class Tampering:
    """Passes order events on; set a counter, and the next ones fare badly."""

    def __init__(self, deliver: Deliver) -> None:
        self._deliver = deliver
        self._held: dict[str, tuple[Account, Update, asyncio.TimerHandle]] = {}
        self._late: set[asyncio.TimerHandle] = set()
        self.lose = 0
        """So many events reach no socket."""
        self.duplicate = 0
        """So many events come twice."""
        self.reorder = 0
        """So many events come after the one that followed them, or after a second."""
        self.delay = 0
        """So many events come `delay_s` late, and what happens meanwhile before them."""
        self.delay_s = 1.0
        self.lost = 0

    def pass_on(self, account: Account, update: Update) -> None:
        """Hand an event on, as far as nothing happens to it."""
        if self.lose:
            self.lose -= 1
            self.lost += 1
        elif self.delay:
            self.delay -= 1
            self._later(account, update)
        elif self.reorder and account.id not in self._held:
            self.reorder -= 1
            loop = asyncio.get_running_loop()
            timer = loop.call_later(_PATIENCE_S, self._release, account.id)
            self._held[account.id] = (account, update, timer)
        else:
            self._deliver(account, update)
            if self.duplicate:
                self.duplicate -= 1
                self._deliver(account, update)
            self._release(account.id)

    def close(self) -> None:
        """Forget what is held back, as the connections it was meant for are gone."""
        for handle in (*self._late, *(timer for _, _, timer in self._held.values())):
            handle.cancel()
        self._late.clear()
        self._held.clear()

    def _release(self, account_id: str) -> None:
        if account_id in self._held:
            account, update, timer = self._held.pop(account_id)
            timer.cancel()
            self._deliver(account, update)

    def _later(self, account: Account, update: Update) -> None:
        def arrive() -> None:
            self._late.discard(handle)
            self._deliver(account, update)

        handle = asyncio.get_running_loop().call_later(self.delay_s, arrive)
        self._late.add(handle)
