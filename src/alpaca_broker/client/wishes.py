"""What a bot has told the broker that it wants, and what the broker answered.

Owns the registration: its lease, its renewal, what was acknowledged and what refused. Pure: says
which messages are due, takes answers; time is an argument. A bot that follows several accounts
registers once for each, for the broker remembers one account per bot.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from alpaca_broker.client.updates import Answer

ANSWER_WITHIN_S = 2.0  # a broker that does not answer by then is one that never does
AGAIN_AFTER_S = 1.0  # where no broker listened
MOST_REJECTED = 20_000


class Wishes:
    """One bot's registrations."""

    def __init__(self, bot_id: str, reply_to: str, ttl: float, *, register: bool) -> None:
        self._bot_id, self._reply_to, self._ttl = bot_id, reply_to, ttl
        self.registers = register
        self._symbols: frozenset[str] = frozenset()
        self._accounts: tuple[str, ...] = ()
        self._due_at = float("-inf")
        self._told: set[str] = set()  # bot ids under which something is registered
        self._number = 0
        self._asked: dict[str, frozenset[str]] = {}  # by request_id, the newest few
        self._asked_at: float | None = None  # the first registration that nobody has answered
        self.answered = False
        self.accepted: set[str] = set()
        self.rejected: dict[str, str] = {}

    def want(self, symbols: frozenset[str], accounts: tuple[str, ...]) -> list[dict[str, Any]]:
        """From now on this is wanted; returns what to say at once: what is no longer."""
        if (symbols, accounts) == (self._symbols, self._accounts):
            return []
        messages: list[dict[str, Any]] = []
        gone = self._symbols - symbols
        if self._told and gone:
            messages.append(self._message("unregister", self._bot_id, sorted(gone)))
        self.accepted -= gone
        for symbol in gone:
            self.rejected.pop(symbol, None)
        self._symbols, self._accounts = symbols, accounts
        ids = {self._id(n) for n in range(max(1, len(accounts)))}
        for bot_id in sorted(self._told - ids):
            messages.append(self._message("unregister", bot_id, []))
            self._told.discard(bot_id)
        self.again()
        return messages if self.registers else []

    def due(self, now: float) -> list[dict[str, Any]]:
        """The registrations to send now: new ones, and renewals after a third of the lease."""
        if not self.registers or now < self._due_at or not (self._symbols or self._accounts):
            return []
        self._due_at = now + self._ttl / 3
        self._asked_at = now if self._asked_at is None else self._asked_at
        messages = []
        for n in range(max(1, len(self._accounts))):
            message = self._message("register", self._id(n), sorted(self._symbols) if not n else [])
            if self._accounts:
                message["account_id"] = self._accounts[n]
            self._told.add(self._id(n))
            messages.append(message)
        return messages

    def again(self) -> None:
        """Register at once: the connection is a new one."""
        self._due_at = float("-inf")
        self._asked_at = None

    def nobody_listened(self, now: float) -> None:
        """A registration reached no broker: try again soon."""
        self._due_at = min(self._due_at, now + AGAIN_AFTER_S)

    def forget(self) -> None:
        """A new epoch: what was acknowledged was so by another broker."""
        self.accepted.clear()
        self.answered = False
        self.again()

    def take(self, answer: Answer) -> dict[str, str]:
        """The broker's answer; returns what was refused that was not before, and why."""
        asked = self._asked.get(answer.request_id or "")
        if asked is None:
            return {}
        self.answered = True
        if answer.pending:
            return {}
        accepted = self._symbols & asked & set(answer.accepted)
        self.accepted |= accepted
        for symbol in accepted:
            self.rejected.pop(symbol, None)
        new: dict[str, str] = {}
        for one in answer.rejected:
            text = f"{one.reason} ({one.code})" if one.reason else str(one.code)
            names: Iterable[str] = (one.symbol,) if one.symbol is not None else asked
            if one.account_id is not None and one.symbol is None:
                names = (one.account_id,)
            for name in names:
                if len(self.rejected) < MOST_REJECTED and name not in self.rejected:
                    new[name] = text
                self.accepted.discard(name)
        self.rejected |= new
        return new

    def is_decided(self, symbol: str, heard: bool, broker_is_live: bool, now: float) -> bool:
        """Whether the symbol is acknowledged or refused, as far as this broker ever says."""
        if heard or symbol in self.accepted or symbol in self.rejected:
            return True
        waited = self._asked_at is not None and now - self._asked_at >= ANSWER_WITHIN_S
        silent = not self.answered and (waited or not self.registers)
        return silent and broker_is_live

    def farewell(self) -> list[dict[str, Any]]:
        """What to say on leaving."""
        return [self._message("unregister", bot_id, []) for bot_id in sorted(self._told)]

    def _id(self, number: int) -> str:
        return self._bot_id if not number else f"{self._bot_id[:58]}.{number + 1}"

    def _message(self, action: str, bot_id: str, symbols: list[str]) -> dict[str, Any]:
        message: dict[str, Any] = {"action": action, "symbols": symbols, "bot_id": bot_id}
        if action == "register":
            self._number += 1
            request_id = f"r{self._number}"
            self._asked[request_id] = frozenset(symbols)
            while len(self._asked) > 20:
                del self._asked[next(iter(self._asked))]
            message |= {"ttl": self._ttl, "reply_to": self._reply_to, "request_id": request_id}
        return message
