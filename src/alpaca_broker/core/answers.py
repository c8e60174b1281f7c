"""What bots are told about their registrations, and when: once Alpaca has confirmed or refused.

Owns the questions that are not yet answered. Bounded: the oldest is dropped, counted. While Alpaca
is not connected a question gets one answer at once, which says that it is pending and what is
decided all the same, another whenever that is more, and one when all is decided.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import Raw, Struct, field

from alpaca_broker.core.feeds import CONTENT, Feeds, Topic, at_alpaca
from alpaca_broker.core.messages import RegistrationAnswer, Rejected
from alpaca_broker.core.registration import Registration
from alpaca_broker.core.topics import NO_TOPICS, Topics

MOST_QUESTIONS = 10_000
MOST_LAST = 500  # last prices in one answer; whoever wants more reads `price:last`
MOST_REJECTED = 20_000  # named in one answer; how many more there are is told

REASONS = {
    400: "Alpaca does not take this symbol",
    405: "the symbol limit of the plan is reached",
    410: "the feed does not have this kind of data",
    413: "the feed does not allow the wildcard here",
}
UNKNOWN = Rejected(code="unknown_symbol", reason="no such asset at Alpaca")
NO_SUCH_KIND = 410


class FeedView(Struct, frozen=True):
    """What a feed has decided: a value that is handed from thread to thread."""

    feed: str
    live: bool
    ready: Topics  # confirmed, and the last price looked up
    refused: Mapping[Topic, int]
    last: Callable[[str], bytes | None]
    gone: str | None = None  # why Alpaca refuses the whole feed for good


class MarketView:
    """What all feeds have decided."""

    def __init__(self, feeds: Feeds) -> None:
        self._feeds = feeds
        self._views = {
            feed.name: FeedView(feed.name, False, NO_TOPICS, {}, lambda symbol: None)
            for feed in feeds
        }

    def see(self, view: FeedView) -> None:
        """A feed has decided something."""
        self._views[view.feed] = view

    def of(self, topic: Topic) -> FeedView:
        """The view of the feed that carries this."""
        return self._views[self._feeds.of(topic).name]

    def is_decided(self, wish: Topic) -> bool:
        """Whether Alpaca has confirmed or refused it, as things stand now."""
        view, topic = self.of(wish), at_alpaca(wish)
        if view.gone is not None:
            return True
        return view.live and (topic in view.ready or topic in view.refused)

    def rejection(self, wish: Topic) -> Rejected | None:
        """Why it will not come, where Alpaca refused it."""
        view = self.of(wish)
        code = view.refused.get(at_alpaca(wish))
        if code is not None:
            return rejected(wish, code, REASONS.get(code, "Alpaca refused it"))
        if view.gone is not None:
            return rejected(wish, "feed_refused", f"the {view.feed} feed is refused: {view.gone}")
        return None


def rejected(wish: Topic, code: int | str, reason: str) -> Rejected:
    """A kind of data of a symbol, in the words of the contract."""
    kind, symbol = wish
    channel = None if kind == "trades" else kind
    return Rejected(symbol=symbol, channel=channel, code=code, reason=reason)


def unavailable(wish: Topic) -> Rejected:
    """What the symbol's feed does not have at all."""
    return rejected(wish, NO_SUCH_KIND, REASONS[NO_SUCH_KIND])


class Reply(Struct, frozen=True):
    """An answer, and the channel it goes to."""

    channel: str
    answer: RegistrationAnswer


class Question(Struct):
    """A registration that somebody wants an answer to."""

    registration: Registration
    account_id: str | None  # the account's id, where the one that was named is ours
    wishes: tuple[Topic, ...] = ()  # what of it a feed has; the rest is rejected
    doubtful: tuple[str, ...] = ()  # symbols that are to be looked up among the assets
    unknown: frozenset[str] = frozenset()
    verified: bool = True
    told: int | None = None  # so many wishes were decided when it was last told that it waits
    rejected: list[Rejected] = field(default_factory=list)


class Answers:
    """Questions in, replies out."""

    def __init__(self) -> None:
        self._questions: list[Question] = []
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._questions)

    def ask(self, question: Question, view: MarketView, epoch: int) -> list[Reply]:
        """Take a question, and answer what can be answered now; `decide` answers the rest."""
        if is_decided(question, view):
            return [reply(question, view, epoch)]
        if len(self._questions) >= MOST_QUESTIONS:
            del self._questions[0]
            self.dropped += 1
        self._questions.append(question)
        return _pending(question, view, epoch)

    def clear(self) -> None:
        """Forget all questions: they were somebody else's to answer."""
        self._questions.clear()

    def decide(self, view: MarketView, epoch: int) -> list[Reply]:
        """Every answer that can be given, now that something was decided."""
        replies: list[Reply] = []
        waiting: list[Question] = []
        for question in self._questions:
            if is_decided(question, view):
                replies.append(reply(question, view, epoch))
                continue
            replies += _pending(question, view, epoch)
            waiting.append(question)
        self._questions = waiting
        return replies


def _pending(question: Question, view: MarketView, epoch: int) -> list[Reply]:
    """What is said while a feed that it waits for is not connected: at once, and of what others
    have decided since.
    """
    if not _waits_for_a_link(question, view):
        return []
    decided = sum(map(view.is_decided, question.wishes))
    if decided == question.told:
        return []
    question.told = decided
    return [reply(question, view, epoch, pending=True)]


def is_decided(question: Question, view: MarketView) -> bool:
    """Whether each wish is confirmed, refused or unknown; what is taken back is at once."""
    if not question.verified:
        return False
    if question.registration.action == "unregister":
        return True
    return all(w[1] in question.unknown or view.is_decided(w) for w in question.wishes)


def _waits_for_a_link(question: Question, view: MarketView) -> bool:
    if question.registration.action == "unregister":
        return False
    return any(not view.of(wish).live and not view.is_decided(wish) for wish in question.wishes)


def reply(question: Question, view: MarketView, epoch: int, *, pending: bool = False) -> Reply:
    """The answer as things stand."""
    asked = question.registration
    accepted: dict[str, None] = {}
    undecided: set[str] = set()
    refused = list(question.rejected)
    unknown = sorted(question.unknown)
    refused += [Rejected(symbol=s, code=UNKNOWN.code, reason=UNKNOWN.reason) for s in unknown]
    for wish in question.wishes:
        if wish[1] in question.unknown:
            continue
        why = view.rejection(wish) if asked.action == "register" else None
        if pending and not view.is_decided(wish):
            undecided.add(wish[1])
        elif why is None:
            accepted[wish[1]] = None
        elif wish[0] != CONTENT:  # its article is refused already
            refused.append(why)
    for symbol in undecided:
        accepted.pop(symbol, None)
    last: dict[str, Raw] = {}
    if asked.action == "register":
        for kind, symbol in question.wishes:
            if kind != "trades" or symbol not in accepted or len(last) >= MOST_LAST:
                continue
            if (price := view.of((kind, symbol)).last(symbol)) is not None:
                last[symbol] = Raw(price)
    useless = asked.action == "unregister" or not (accepted or undecided)
    answer = RegistrationAnswer(
        request_id=asked.request_id,
        status="ok" if not refused else "error" if useless else "partial",
        pending=pending,
        accepted=list(accepted),
        rejected=_bounded(refused),
        account_id=question.account_id,
        last=last,
        epoch=epoch,
    )
    return Reply(asked.reply_to or "", answer)


def _bounded(refused: list[Rejected]) -> list[Rejected]:
    more = len(refused) - MOST_REJECTED
    if more <= 0:
        return refused
    return [*refused[:MOST_REJECTED], Rejected(code="more", reason=f"and {more} more")]


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
