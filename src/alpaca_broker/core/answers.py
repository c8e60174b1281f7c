"""What bots are told about their registrations, and when: once Alpaca has confirmed or refused.

Owns the questions that are not yet answered. Bounded: the oldest is dropped, counted. While Alpaca
is not connected a question gets one answer at once, which says that it is pending, and one when it
is decided.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import Raw, Struct, field

from alpaca_broker.core.messages import RegistrationAnswer, Rejected
from alpaca_broker.core.registration import SERVED_KINDS, Registration

MOST_QUESTIONS = 10_000
MOST_LAST = 500  # last prices in one answer; whoever wants more reads `price:last`

REASONS = {
    400: "Alpaca does not take this symbol",
    405: "the symbol limit of the plan is reached",
    410: "the feed does not have this kind of data",
    413: "the feed does not allow the wildcard here",
}
UNKNOWN = Rejected(code="unknown_symbol", reason="no such asset at Alpaca")


class FeedView(Struct, frozen=True):
    """What a feed has decided: a value that is handed from thread to thread."""

    live: bool
    ready: frozenset[str]  # confirmed, and the last price looked up
    refused: Mapping[str, int]
    last: Callable[[str], bytes | None]


class Reply(Struct, frozen=True):
    """An answer, and the channel it goes to."""

    channel: str
    answer: RegistrationAnswer


class Question(Struct):
    """A registration that somebody wants an answer to."""

    registration: Registration
    account_id: str | None  # the account's id, where the one that was named is ours
    unknown: frozenset[str] = frozenset()
    verified: bool = True
    told_pending: bool = False
    rejected: list[Rejected] = field(default_factory=list)


class Answers:
    """Questions in, replies out."""

    def __init__(self) -> None:
        self._questions: list[Question] = []
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._questions)

    def ask(self, question: Question) -> None:
        """Take a question; `decide` answers it."""
        if len(self._questions) >= MOST_QUESTIONS:
            del self._questions[0]
            self.dropped += 1
        self._questions.append(question)

    def clear(self) -> None:
        """Forget all questions: they were somebody else's to answer."""
        self._questions.clear()

    def decide(self, view: FeedView, epoch: int) -> list[Reply]:
        """Every answer that can be given now."""
        replies: list[Reply] = []
        waiting: list[Question] = []
        for question in self._questions:
            if is_decided(question, view):
                replies.append(reply(question, view, epoch))
                continue
            if not view.live and not question.told_pending:
                question.told_pending = True
                replies.append(reply(question, view, epoch, pending=True))
            waiting.append(question)
        self._questions = waiting
        return replies


def is_decided(question: Question, view: FeedView) -> bool:
    """Whether each symbol is confirmed, refused or unknown; what is taken back is at once."""
    if not question.verified:
        return False
    if question.registration.action == "unregister" or not _is_served(question):
        return True
    return view.live and all(
        s in view.ready or s in view.refused or s in question.unknown
        for s in question.registration.symbols
    )


def reply(question: Question, view: FeedView, epoch: int, *, pending: bool = False) -> Reply:
    """The answer as things stand."""
    asked = question.registration
    accepted, rejected = [], list(question.rejected)
    for symbol in asked.symbols:
        if symbol in question.unknown:
            rejected.append(Rejected(symbol=symbol, code=UNKNOWN.code, reason=UNKNOWN.reason))
        elif not _is_served(question):
            continue  # what is not served is said once, not symbol by symbol
        elif asked.action == "register" and (code := view.refused.get(symbol)) is not None:
            reason = REASONS.get(code, "Alpaca refused it")
            rejected.append(Rejected(symbol=symbol, code=code, reason=reason))
        else:
            accepted.append(symbol)
    last: dict[str, Raw] = {}
    if asked.action == "register" and not pending:
        for symbol in accepted[:MOST_LAST]:
            if (price := view.last(symbol)) is not None:
                last[symbol] = Raw(price)
    useless = asked.action == "unregister" or not accepted
    answer = RegistrationAnswer(
        request_id=asked.request_id,
        status="ok" if not rejected else "error" if useless else "partial",
        pending=pending,
        accepted=accepted,
        rejected=rejected,
        account_id=question.account_id,
        last=last,
        epoch=epoch,
    )
    return Reply(asked.reply_to or "", answer)


def _is_served(question: Question) -> bool:
    return not set(SERVED_KINDS).isdisjoint(question.registration.channels)


def refusal(reply_to: str, request_id: str | None, code: str, reason: str, epoch: int) -> Reply:
    """The answer to a message that could not be followed at all."""
    answer = RegistrationAnswer(
        request_id=request_id,
        status="error",
        accepted=[],
        rejected=[Rejected(code=code, reason=reason)],
        account_id=None,
        epoch=epoch,
    )
    return Reply(reply_to, answer)
