"""What a bot has told the broker that it wants, and what the broker answered.

Owns the registration: its lease, its renewal, what was acknowledged and what refused. Pure: says
which messages are due, takes answers; time is an argument. A bot that follows several accounts
registers once for each, for the broker remembers one account per bot.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from alpaca_broker.client.updates import Answer
from alpaca_broker.core.feeds import CONTENT, Topic, shown

ANSWER_WITHIN_S = 2.0  # a broker that does not answer by then is one that never does
AGAIN_AFTER_S = 1.0  # where no broker listened
MOST_REJECTED = 20_000
MOST_ASKED = 50
TRADES = "trades"


class Wishes:
    """One bot's registrations."""

    def __init__(self, bot_id: str, reply_to: str, ttl: float, *, register: bool) -> None:
        self._bot_id, self._reply_to, self._ttl = bot_id, reply_to, ttl
        self.registers = register
        self._symbols: frozenset[str] = frozenset()
        self._others: frozenset[Topic] = frozenset()
        self._accounts: tuple[str, ...] = ()
        self._due_at = float("-inf")
        self._told: set[str] = set()  # bot ids under which something is registered
        self._number = 0
        self._asked: dict[str, tuple[str, frozenset[str]]] = {}  # by request_id, the newest few
        self._asked_at: float | None = None  # the first registration that nobody has answered
        self.answered = False
        self.accepted: set[str] = set()  # as `name_of` has it
        self.rejected: dict[str, str] = {}

    def want(
        self,
        symbols: frozenset[str],
        accounts: tuple[str, ...],
        others: frozenset[Topic] = frozenset(),
    ) -> list[dict[str, Any]]:
        """From now on this is wanted; returns what to say at once: what is no longer."""
        if (symbols, accounts, others) == (self._symbols, self._accounts, self._others):
            return []
        messages: list[dict[str, Any]] = []
        kept = {name_of(*topic) for topic in _topics(symbols, others)}
        gone = _topics(self._symbols, self._others)
        for kind, names in _by_kind(t for t in gone if name_of(*t) not in kept).items():
            if self._told:
                messages.append(self._message("unregister", self._bot_id, names, kind))
            for name in (name_of(kind, symbol) for symbol in names):
                self.accepted.discard(name)
                self.rejected.pop(name, None)
        self._symbols, self._accounts, self._others = symbols, accounts, others
        ids = {self._id(n) for n in range(max(1, len(accounts)))}
        for bot_id in sorted(self._told - ids):
            messages.append(self._message("unregister", bot_id, []))
            self._told.discard(bot_id)
        self.again()
        return messages if self.registers else []

    def due(self, now: float) -> list[dict[str, Any]]:
        """The registrations to send now: new ones, and renewals after a third of the lease."""
        wants = self._symbols or self._accounts or self._others
        if not self.registers or now < self._due_at or not wants:
            return []
        self._due_at = now + self._ttl / 3
        self._asked_at = now if self._asked_at is None else self._asked_at
        messages = []
        own = bool(self._symbols or self._accounts)
        for n in range(max(own, len(self._accounts))):
            message = self._message("register", self._id(n), sorted(self._symbols) if not n else [])
            if self._accounts:
                message["account_id"] = self._accounts[n]
            self._told.add(self._id(n))
            messages.append(message)
        for kind, names in _by_kind(self._others).items():
            messages.append(self._message("register", self._bot_id, names, kind))
            self._told.add(self._bot_id)
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
        kind, asked = self._asked.get(answer.request_id or "", (TRADES, None))
        if asked is None:
            return {}
        self.answered = True
        known = self._symbols if kind == TRADES else {s for k, s in self._others if k == kind}
        accepted = {name_of(kind, s) for s in known & asked & set(answer.accepted)}
        self.accepted |= accepted
        for name in accepted:
            self.rejected.pop(name, None)
        new: dict[str, str] = {}
        if answer.pending:  # the rest is not decided yet
            return new
        for one in answer.rejected:
            if one.channel is not None and one.channel != _at_broker(kind):
                continue  # another kind of data, which somebody else asked for under this name
            text = f"{one.reason} ({one.code})" if one.reason else str(one.code)
            symbols = (one.symbol,) if one.symbol is not None else asked
            names = [name_of(kind, symbol) for symbol in symbols]
            if one.account_id is not None and one.symbol is None:
                names = [one.account_id]
            for name in names:
                if len(self.rejected) < MOST_REJECTED and name not in self.rejected:
                    new[name] = text
                self.accepted.discard(name)
        self.rejected |= new
        return new

    def is_decided(self, name: str, heard: bool, broker_is_live: bool, now: float) -> bool:
        """Whether it is acknowledged or refused, as far as this broker ever says; see `name_of`."""
        if heard or name in self.accepted or name in self.rejected:
            return True
        waited = self._asked_at is not None and now - self._asked_at >= ANSWER_WITHIN_S
        silent = not self.answered and (waited or not self.registers)
        return silent and broker_is_live

    def farewell(self) -> list[dict[str, Any]]:
        """What to say on leaving."""
        return [self._message("unregister", bot_id, []) for bot_id in sorted(self._told)]

    def _id(self, number: int) -> str:
        return self._bot_id if not number else f"{self._bot_id[:58]}.{number + 1}"

    def _message(
        self, action: str, bot_id: str, symbols: list[str], kind: str = TRADES
    ) -> dict[str, Any]:
        message: dict[str, Any] = {"action": action, "symbols": symbols, "bot_id": bot_id}
        if kind != TRADES:  # which is what is meant where nothing is said
            message["channels"] = [_at_broker(kind)]
        if action == "register":
            if kind == CONTENT:
                message["content"] = True
            self._number += 1
            request_id = f"r{self._number}"
            self._asked[request_id] = (kind, frozenset(symbols))
            while len(self._asked) > MOST_ASKED:
                del self._asked[next(iter(self._asked))]
            message |= {"ttl": self._ttl, "reply_to": self._reply_to, "request_id": request_id}
        return message


def name_of(kind: str, symbol: str) -> str:
    """How a bot is told of it: a symbol stands for its trades, and whole articles are news."""
    return shown((_at_broker(kind), symbol))


def _at_broker(kind: str) -> str:
    return "news" if kind == CONTENT else kind


def _topics(symbols: frozenset[str], others: frozenset[Topic]) -> frozenset[Topic]:
    return others.union((TRADES, symbol) for symbol in symbols)


def _by_kind(topics: Iterable[Topic]) -> dict[str, list[str]]:
    """The symbols of each kind of data: a registration is about some kinds of all its symbols."""
    grouped: dict[str, list[str]] = {}
    for kind, symbol in sorted(topics):
        grouped.setdefault(kind, []).append(symbol)
    return grouped
