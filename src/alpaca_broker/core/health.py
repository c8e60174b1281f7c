"""Whether a link that is connected and silent is quiet or mute.

Owns the judgement over one whole link: any data counts, pings do not. Silence alone never
condemns: it raises a question to REST, and only a trade that REST shows and the link did not bring
does. Where REST cannot be asked, a link that was lively is called stale, and hung up on much later;
a market that is closed is not asked about at all. Pure: times are monotonic seconds, arguments.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import Enum
from typing import TypeVar

from msgspec import Struct

from alpaca_broker.core.budget import PerMinute
from alpaca_broker.core.market_hours import Phase
from alpaca_broker.core.session import SYMBOL_LIMIT

T = TypeVar("T")

ARRIVES_WITHIN_S = 2.0  # what REST shows may still be on its way to us
SLACK_S = 2.0  # what traded so soon after the last data may have come before it
TOLD_FOR_S = 1.0  # so long the status says `stale` before the link is hung up on
QUESTIONS_PER_MINUTE = 4
AFTER_A_FAILURE_S = 15.0
RECORD_S = 300.0
RECORD_AT_LEAST_S = 60.0  # before that a link's own record proves nothing
LIVELY_SYMBOLS = 100  # so many are never silent together in the regular session


class Limits(Struct, frozen=True):
    """The patience of one phase, in seconds."""

    ask_after: float  # silence that is worth a question
    ask_at_latest: float  # the same for a link that was quiet before
    ask_again: float  # the longest pause between questions about one silence
    blind_hang_up: float | None  # silence that condemns a lively link while REST cannot be asked


LIMITS: dict[Phase, Limits | None] = {
    Phase.REGULAR: Limits(8.0, 60.0, 60.0, 90.0),
    Phase.ALWAYS: Limits(8.0, 60.0, 60.0, 180.0),
    Phase.EXTENDED: Limits(30.0, 300.0, 300.0, None),
    Phase.UNKNOWN: Limits(30.0, 300.0, 300.0, None),
    Phase.CLOSED: None,
}


class Health(Enum):
    """What is to be said of the link, and done about it."""

    FINE = "fine"
    STALE = "stale"
    MUTE = "mute: hang up"


class Finding(Struct, frozen=True):
    """One look at a link: how it is, why, and whether REST should be asked now."""

    health: Health
    reason: str | None = None
    ask: bool = False


class Watch:
    """The judge of one link, from the moment it is live."""

    def __init__(self, now: float, limits: Mapping[Phase, Limits | None] = LIMITS) -> None:
        self._limits = limits
        self._phase: Phase | None = None
        self._mark: float | None = None  # of the last data
        self._since = now  # the silence began
        self._began = self._window = now  # the record, and its newer half, began
        self._longest = self._longest_before = 0.0
        self._spoke = False  # in this phase
        self._questions = PerMinute(QUESTIONS_PER_MINUTE)
        # Of the present silence: who has traded during it, whether REST could not be asked, the
        # pause after its last answer, and when to ask next.
        self._accused: tuple[float, str] | None = None
        self._failed = False
        self._pause, self._ask_at = 0.0, now

    def look(
        self, now: float, mark: float | None, phase: Phase, *, lively: bool = False
    ) -> Finding:
        """Judge the link; `mark` is another one whenever data has come since the last look.

        `lively` says that, in the regular session, silence is out of the question: a canary is
        subscribed, or a great many symbols are.
        """
        if phase is not self._phase:
            self._enter(now, phase)
        if mark != self._mark:
            self._heard(now, mark)
        limits = self._limits[phase]
        if limits is None:
            return _FINE
        silent = now - self._since
        if self._accused is not None:
            return self._accuse(now, silent, self._accused)
        due = silent >= self._patience(limits) and now >= self._ask_at
        ask = due and self._questions.has_room(now)
        return self._judge_blindly(silent, phase, limits, ask, lively=lively)

    def asked(self, now: float) -> None:
        """REST is being asked."""
        self._questions.spend(now)
        self._ask_at = now + AFTER_A_FAILURE_S

    def answered(self, now: float, witness: str | None) -> None:
        """REST's answer: a symbol that has traded since the link fell silent, or None."""
        self._failed = False
        if witness is not None:
            self._accused = (now, witness)
            return
        limits = self._limits[self._phase] if self._phase else None
        self._pause = self._pause * 2 or (limits.ask_after if limits else 0.0)
        if limits:
            self._pause = min(self._pause, limits.ask_again)
        self._ask_at = now + self._pause

    def unanswered(self) -> None:
        """REST could not be asked, or has nothing to say about this feed."""
        self._failed = True

    def excuse(self, now: float) -> None:
        """The silence so far was our own doing, or nothing is subscribed."""
        self._since = now
        self._clear(now)

    def _enter(self, now: float, phase: Phase) -> None:
        self._phase = phase
        self._since = self._began = self._window = now
        self._longest = self._longest_before = 0.0
        self._spoke = False
        self._clear(now)

    def _heard(self, now: float, mark: float | None) -> None:
        silent, self._since, self._mark = now - self._since, now, mark
        self._clear(now)
        if not self._spoke:
            self._spoke, self._began, self._window = True, now, now
            return
        if now - self._window >= RECORD_S:
            self._window, self._longest_before, self._longest = now, self._longest, 0.0
        self._longest = max(self._longest, silent)

    def _clear(self, now: float) -> None:
        self._accused, self._failed = None, False
        self._pause, self._ask_at = 0.0, now

    def _usual(self) -> float:
        """The longest silence of the last minutes."""
        return max(self._longest, self._longest_before)

    def _patience(self, limits: Limits) -> float:
        return min(max(2 * self._usual(), limits.ask_after), limits.ask_at_latest)

    def _accuse(self, now: float, silent: float, accused: tuple[float, str]) -> Finding:
        since, witness = accused
        late = now - since
        if late < ARRIVES_WITHIN_S:
            return _FINE
        reason = (
            f"connected, but mute: nothing for {silent:.0f} s, while Alpaca's REST shows "
            f"that {witness} has traded"
        )
        told = late >= ARRIVES_WITHIN_S + TOLD_FOR_S
        return Finding(Health.MUTE if told else Health.STALE, reason)

    def _judge_blindly(
        self, silent: float, phase: Phase, limits: Limits, ask: bool, *, lively: bool
    ) -> Finding:
        """While REST cannot be asked: stale against its own record, hung up on much later."""
        if limits.blind_hang_up is None or not self._failed:
            return Finding(Health.FINE, ask=ask)
        usual = self._usual()
        if lively and phase is Phase.REGULAR:
            usual = min(usual, limits.ask_after / 3)
        elif self._since - self._began < RECORD_AT_LEAST_S or 2 * usual > limits.ask_at_latest:
            return Finding(Health.FINE, ask=ask)  # it never was lively, as far as we know
        if silent < max(limits.ask_after, 3 * usual):
            return Finding(Health.FINE, ask=ask)
        reason = (
            f"connected, but mute: nothing for {silent:.0f} s in {phase.value}, "
            "and Alpaca's REST cannot be asked"
        )
        if silent >= max(limits.blind_hang_up, 10 * usual):
            return Finding(Health.MUTE, reason)
        return Finding(Health.STALE, reason, ask)


_FINE = Finding(Health.FINE)


def witness(
    found: Mapping[str, float],
    known: Mapping[str, float],
    since: Mapping[str, float],
    delay_s: tuple[float, float] = (0.0, 0.0),
) -> str | None:
    """A symbol whose last trade REST shows and the link did not bring, or None.

    All times are epoch seconds by the exchange's clock: the last trades that REST shows, those that
    the link brought, and since when each symbol should have come while nothing at all did.
    `delay_s` is how late the feed is, at the least and at the most.
    """
    never, (least, _) = float("-inf"), delay_s
    for symbol, at in found.items():
        silent_since = since.get(symbol)
        if silent_since is None or at <= known.get(symbol, never):
            continue
        if at + least > silent_since + SLACK_S:
            return symbol
    return None


def are_due(
    found: Mapping[str, float], now: float, delay_s: tuple[float, float]
) -> dict[str, float]:
    """Those last trades that a feed so late must have brought by now; the exchange's times."""
    _, most = delay_s
    return {s: at for s, at in found.items() if not most or at + most <= now}


def takes_canary(wanted: Collection[T], canary: T, refused: Mapping[T, int]) -> bool:
    """Whether to ask Alpaca for the canary, too: it gives way to whoever has no place.

    `refused` are the codes of Alpaca's refusals. A link that nobody wants anything of needs none.
    """
    in_the_way = any(code == SYMBOL_LIMIT and one != canary for one, code in refused.items())
    return bool(wanted) and canary not in wanted and not in_the_way
