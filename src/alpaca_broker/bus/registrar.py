"""Hears what bots want, on `broker:registration`, and answers them.

Owns the registry, the demand that follows from it, and the questions that are not yet answered. A
bad message changes nothing and costs one rate-limited log line; good ones that come together are
one line, too. What is decided about symbols elsewhere (confirmed, refused, unknown, listened to)
comes in as values; out go the wanted topics, the bots whose wishes must be kept, and replies.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection

from msgspec import Struct

from alpaca_broker.core.allowance import Allowance
from alpaca_broker.core.answers import (
    Answers,
    FeedView,
    MarketView,
    Question,
    Reply,
    refusal,
    unavailable,
)
from alpaca_broker.core.channels import ORDERBOOK
from alpaca_broker.core.demand import Demand, Heard
from alpaca_broker.core.feeds import CONTENT, EVERY, Feeds, Topic, family
from alpaca_broker.core.messages import Rejected
from alpaca_broker.core.registration import (
    BadRegistration,
    Limits,
    Registration,
    parse,
    return_address,
)
from alpaca_broker.core.registry import Registry
from alpaca_broker.telemetry import Seldom, fields

log = logging.getLogger(__name__)

MOST_UNVERIFIED = 1_000  # questions whose symbols wait to be looked up; beyond: taken unchecked
MOST_REPLIES = 10_000

# The wanted topics, whoever came first coming first; the account names that bots gave.
OnChange = Callable[[tuple[Topic, ...], frozenset[str]], None]


class Rules(Struct, frozen=True, kw_only=True):
    """What bots may do, and how long they are remembered (settings)."""

    limits: Limits = Limits()
    symbols_per_bot: int = 20_000
    messages_per_second: float = 50.0
    linger_s: float = 5.0
    idle_s: float = 600.0
    discover: bool = True
    verify: bool = True


class Registrar:
    """Keeps the registry in step with what bots say. No I/O: its shell is `bus/desk.py`."""

    def __init__(
        self,
        on_change: OnChange,
        *,
        rules: Rules = Rules(),  # noqa: B008 - immutable
        feeds: Feeds | None = None,
        account: Callable[[str], str | None] = lambda name: None,
        on_books: Callable[[frozenset[str]], None] = lambda symbols: None,
    ) -> None:
        self._on_change, self._rules, self._account = on_change, rules, account
        self._on_books = on_books  # somebody new listens to these: they have to be told whole
        self._complaints = Seldom(1.0)
        self._taken = Taken()
        self._allowance = Allowance(rules.messages_per_second)
        self._answers = Answers()
        self._demand = Demand(linger_s=rules.linger_s, discover=rules.discover)
        self._feeds = feeds or Feeds()
        self._handed_on: tuple[tuple[Topic, ...], frozenset[str]] = ((), frozenset())
        self._listened: frozenset[Heard] | None = None
        self._view = MarketView(self._feeds)
        self.registry = Registry(rules.symbols_per_bot)
        self.changed: set[str] = set()  # bots whose wishes are not yet kept
        self.replies: list[Reply] = []  # not yet sent
        self._held: list[Reply] = []  # not to be sent before what they confirm is in force
        self.unverified: list[Question] = []  # whose symbols are not yet looked up
        self.epoch = 0
        self.unsettled = False  # what bots want has changed since `settle`

    def begin(self, epoch: int) -> None:
        """We lead: what was asked before was the former leader's to answer."""
        self.epoch = epoch
        self.replies.clear()
        self._held.clear()
        self._answers.clear()

    def hear(self, payload: bytes, now: float) -> None:
        """Take one registration message; `settle` comes later. Never raises for what a bot sent."""
        try:
            registration = parse(payload, self._rules.limits)
            if not self._allowance.take(registration.bot, now):
                most = self._rules.messages_per_second
                raise BadRegistration(f"{registration.bot or 'a bot'}: over {most:g} messages/s")
            self._apply(registration, now)
        except BadRegistration as error:
            self._complain("a registration was not understood: %s", str(error))
            if address := return_address(payload, self._rules.limits):
                self._reply(refusal(*address, "bad_message", str(error), self.epoch))

    def view(self, view: FeedView) -> None:
        """A feed has decided something."""
        self._view.see(view)
        self._decide()

    def listened(self, channels: frozenset[Heard], now: float) -> None:
        """These channels have subscribers, as Redis says."""
        new = channels - (self._listened or frozenset())
        if books := frozenset(symbol for channel, symbol in new if channel == ORDERBOOK):
            self._on_books(books)
        self._listened = channels
        if gone := self.registry.forget_unheard(channels, now, self._rules.idle_s):
            whose = _some([bot or "the pool" for bot in gone])
            log.info("nobody listens any more for %s: what was registered is forgotten", whose)
            self.changed.update(gone)
        self.settle(now)

    def verified(self, question: Question, unknown: frozenset[str]) -> None:
        """The symbols of a question were looked up among the assets."""
        question.unknown, question.verified = unknown, True
        if unknown:
            bot = question.registration.bot
            self.registry.take(bot, unknown)
            self.changed.add(bot)
            names = _some(tuple(sorted(unknown)))
            self._complain("%s: no such asset at Alpaca: %s", bot or "a bot", names)
            self.unsettled = True
        self._decide()

    def expire(self, now: float) -> None:
        """Forget whose lease has run out."""
        if gone := self.registry.expire(now):
            log.info("%s did not renew in time and is forgotten", _some(tuple(gone)))
            self.changed.update(gone)
            self.unsettled = True

    def settle(self, now: float) -> None:
        """Tell what is wanted now, where that is something else than before.

        This looks at everything that anybody wants: once for many messages, not for each.
        """
        self._taken.say()
        wanted = self._demand.settle(self.registry.topics(), self._listened, now)
        before = self._handed_on
        self._handed_on = (wanted, self.registry.account_names())
        if self._handed_on != before:
            self._on_change(*self._handed_on)
        self.unsettled = False
        self.replies += self._held
        self._held.clear()

    def _apply(self, registration: Registration, now: float) -> None:
        if registration.action == "unregister" and not registration.bot:
            raise BadRegistration('whose? name "bot_id" or "account_id": the pool is everyone\'s')
        rejected = list(registration.rejected)
        if rejected:
            self._complain_of(registration)
        account_id = None
        if registration.account_id is not None:
            account_id = self._account(registration.account_id)
            if account_id is None:
                rejected.append(_unknown_account(registration.account_id))
                self._complain(
                    "%s: account %s is none of this broker's: no orders will come for it",
                    *(registration.bot, registration.account_id),
                )
        question = self._question(registration, account_id, rejected)
        if registration.symbols or not registration.rejected:
            changed = self.registry.apply(registration, now, question.wishes)
            books = frozenset(symbol for kind, symbol in question.wishes if kind == "orderbooks")
            if books and registration.action == "register":
                self._on_books(books)
            if changed or registration.ttl is not None:
                self.changed.add(registration.bot)
            if question.doubtful and len(self.unverified) < MOST_UNVERIFIED:
                question.verified = False
                self.unverified.append(question)
            if changed:
                self.unsettled = True
                self._taken.add(registration)
        if registration.reply_to is not None:
            for reply in self._answers.ask(question, self._view, self.epoch):
                self._reply(reply)

    def _question(
        self, registration: Registration, account_id: str | None, rejected: list[Rejected]
    ) -> Question:
        """What of it some feed has, and which symbols are to be looked up."""
        question = Question(registration, account_id, rejected=rejected)
        question.wishes = registration.topics
        if registration.action == "unregister":
            return question
        question.wishes = tuple(filter(self._feeds.have, registration.topics))
        if len(question.wishes) < len(registration.topics):
            without = [
                topic
                for topic in registration.topics
                if not self._feeds.have(topic) and topic[0] != CONTENT
            ]
            rejected += map(unavailable, without)
            self._complain(
                "%s: not to be had: %s",
                registration.bot or "a bot",
                _some([f"{kind} of {symbol}" for kind, symbol in without]),
            )
        if self._rules.verify:
            doubtful = {s: None for kind, s in question.wishes if self._is_doubtful(kind, s)}
            question.doubtful = tuple(doubtful)
        return question

    def _is_doubtful(self, kind: str, symbol: str) -> bool:
        """Whether the list of assets can say if there is such a symbol: it has no options."""
        known = family(kind, symbol)
        if symbol == EVERY or known in ("options", "news"):
            return False
        return known == "crypto" or self._feeds.stocks.name != "test"

    def _decide(self) -> None:
        for reply in self._answers.decide(self._view, self.epoch):
            self._reply(reply)

    def _reply(self, reply: Reply) -> None:
        if len(self.replies) + len(self._held) < MOST_REPLIES:  # else: whoever asked asks again
            (self._held if self.unsettled else self.replies).append(reply)

    def _complain_of(self, registration: Registration) -> None:
        first, more = registration.rejected[0], len(registration.rejected) - 1
        self._complain(
            "%s: %s is not registered: %s%s",
            registration.bot or "a bot",
            first.symbol,
            first.reason,
            f" (and {more} more of the same message)" if more else "",
        )

    def _complain(self, text: str, *args: object) -> None:
        if self._complaints.may_say():
            log.warning(f"{text}%s", *args, self._complaints.more())


class Taken:
    """The registrations that changed something since it was last said: one line for all of them.

    A flood would push everything else out of the log, and the lines cost more than what they tell.
    """

    def __init__(self) -> None:
        self._first: Registration | None = None
        self._messages = self._symbols = 0

    def add(self, registration: Registration) -> None:
        """One more."""
        self._messages += 1
        self._symbols += len(registration.symbols)
        if self._first is None:
            self._first = registration
        elif log.isEnabledFor(logging.DEBUG):
            log.debug("%s", _told(registration))

    def say(self) -> None:
        """Say what was taken, and begin anew."""
        if (first := self._first) is None:
            return
        told, messages, symbols = _told(first), self._messages, self._symbols
        self._first, self._messages, self._symbols = None, 0, 0
        if messages == 1:
            log.info("%s", told, extra=fields(bot=first.bot, symbols=symbols))
            return
        log.info(
            "%s (and %d more messages, of %d symbols in all)",
            *(told, messages - 1, symbols),
            extra=fields(messages=messages, symbols=symbols),
        )


def _told(registration: Registration) -> str:
    done = "registered" if registration.action == "register" else "unregistered"
    what = _some(registration.symbols) or _other_than_symbols(registration)
    return f"{registration.bot or 'a bot'} {done} {what}"


def _other_than_symbols(registration: Registration) -> str:
    if registration.action == "register" and registration.account_id is not None:
        return f"for the orders of {registration.account_id}"
    return "everything"


def _unknown_account(name: str) -> Rejected:
    reason = "not an account of this broker's: its orders cannot be followed here"
    return Rejected(account_id=name, code="unknown_account", reason=reason)


def _some(names: Collection[str], most: int = 10) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(list(names)[:most]) + more
