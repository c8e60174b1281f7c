"""Quiet or mute: hours of links in fake time, judged look by look."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec import Struct, field

from alpaca_broker.core.health import (
    LIMITS,
    QUESTIONS_PER_MINUTE,
    Health,
    Limits,
    Watch,
    takes_canary,
    witness,
)
from alpaca_broker.core.market_hours import Phase

LOOK_S = 0.5
HOUR = 3600.0
Rest = Callable[[float], str | None]


class Course(Struct):
    """What a watched link went through: the first moments of each finding, and the questions."""

    stale_at: float | None = None
    mute_at: float | None = None
    fine_again: bool = False
    questions: list[float] = field(default_factory=list)
    reason: str = ""


class NoAnswer(Exception):
    """REST does not answer."""


def acquits(now: float) -> str | None:
    """REST shows nothing that the link did not bring."""
    return None


def convicts(now: float) -> str | None:
    """REST shows a trade that the link did not bring."""
    return "SPY"


def is_away(now: float) -> str | None:
    """REST does not answer."""
    raise NoAnswer


def live_through(
    seconds: float,
    talks: Callable[[float], bool],
    rest: Rest,
    phase: Phase | Callable[[float], Phase] = Phase.REGULAR,
    *,
    answers_after: float = 3.0,
    lively: bool = False,
) -> Course:
    """Watch a link from second 0 until it is hung up on, or the time is over."""
    watch, course = Watch(0.0), Course()
    mark, pending, now = 0.0, None, 0.0
    while now < seconds:
        now += LOOK_S
        if talks(now):
            mark = now
        if pending is not None and now >= pending:
            pending = None
            try:
                watch.answered(now, rest(now))
            except NoAnswer:
                watch.unanswered()
        here = phase(now) if callable(phase) else phase
        finding = watch.look(now, mark, here, lively=lively)
        if finding.ask and pending is None:
            watch.asked(now)
            course.questions.append(now)
            pending = now + answers_after
        if finding.health is Health.STALE:
            course.stale_at = course.stale_at or now
            course.reason = finding.reason or ""
        elif finding.health is Health.FINE and course.stale_at:
            course.fine_again = True
        if finding.health is Health.MUTE:
            course.mute_at = now
            break
    assert all(
        sum(1 for other in course.questions if 0 <= other - at < 60) <= QUESTIONS_PER_MINUTE
        for at in course.questions
    )
    return course


def until(end: float, every: float = LOOK_S) -> Callable[[float], bool]:
    """Talks until `end`, once every so many seconds."""
    return lambda now: now <= end and now % every < LOOK_S


@pytest.mark.parametrize("phase", [Phase.REGULAR, Phase.ALWAYS])
def test_a_mute_link_in_session_is_stale_within_15_s(phase: Phase) -> None:
    """REST shows a trade that it did not bring: told, then hung up on, with the cause."""
    course = live_through(HOUR, until(600), convicts, phase)
    assert course.stale_at is not None
    assert course.stale_at - 600 <= 15
    assert course.mute_at is not None
    assert 1.0 <= course.mute_at - course.stale_at <= 2.0
    assert course.reason.startswith("connected, but mute: nothing for 1")
    assert "SPY has traded" in course.reason


def test_a_link_that_was_mute_from_its_first_second_is_found_too() -> None:
    """It has no record, so REST alone decides."""
    course = live_through(HOUR, lambda now: False, convicts)
    assert course.stale_at is not None
    assert course.stale_at <= 15


@pytest.mark.parametrize("rest", [convicts, is_away])
def test_a_closed_market_is_never_asked_about(rest: Rest) -> None:
    """Ten hours of silence at night: no question, no word, no hang-up, whatever REST says."""
    course = live_through(10 * HOUR, until(5), rest, Phase.CLOSED, lively=True)
    assert course == Course()


@pytest.mark.parametrize("phase", [Phase.REGULAR, Phase.EXTENDED, Phase.UNKNOWN, Phase.ALWAYS])
def test_an_illiquid_symbol_is_never_hung_up_on(phase: Phase) -> None:
    """One print in twenty minutes: REST acquits, less than twice a minute."""
    course = live_through(6 * HOUR, until(6 * HOUR, every=1200), acquits, phase)
    assert course.stale_at is course.mute_at is None
    assert 0 < len(course.questions) < 2 * 6 * 60


def test_a_lively_link_costs_no_question() -> None:
    """Something every two seconds, for a day."""
    assert live_through(6.5 * HOUR, until(6.5 * HOUR, every=2), convicts) == Course()


def test_a_link_that_is_quiet_by_its_own_record_is_asked_about_later() -> None:
    """Frames every 20 s: after the first silences the patience is twice the longest."""
    course = live_through(HOUR, until(HOUR, every=20), acquits)
    assert len(course.questions) <= 2
    assert course.stale_at is None
    rest = lambda now: "SPY" if now > HOUR else None  # noqa: E731
    mute = live_through(2 * HOUR, until(HOUR, every=20), rest)
    assert mute.stale_at is not None
    assert 40 <= mute.stale_at - HOUR <= 50


def test_what_is_still_on_its_way_acquits() -> None:
    """REST shows a trade a moment before the stream brings it: nothing is said."""
    for late in (0.5, 1.0, 1.5):
        course = live_through(
            60, lambda now, late=late: now == 20 + late, lambda now: "IBM" if now == 20 else None,
            answers_after=0.0,
        )  # fmt: skip
        assert course.stale_at is None


@pytest.mark.parametrize("phase", [Phase.REGULAR, Phase.ALWAYS])
def test_without_rest_a_lively_link_is_stale_at_once_and_hung_up_on_later(phase: Phase) -> None:
    """By its own record of ten minutes; the stated time is that of the phase."""
    course = live_through(HOUR, until(600), is_away, phase)
    limits = LIMITS[phase]
    assert limits is not None
    assert limits.blind_hang_up is not None
    assert course.stale_at is not None
    assert course.stale_at - 600 <= 15
    assert course.mute_at is not None
    assert limits.blind_hang_up <= course.mute_at - 600 <= limits.blind_hang_up + 1
    assert "REST cannot be asked" in course.reason


@pytest.mark.parametrize(
    ("talks", "phase"),
    [
        (until(600), Phase.UNKNOWN),  # ignorance alone
        (until(600), Phase.EXTENDED),
        (until(HOUR, every=1200), Phase.REGULAR),  # illiquid
        (until(30), Phase.REGULAR),  # its record is too short
        (lambda now: False, Phase.REGULAR),
    ],
    ids=["unknown hours", "extended", "illiquid", "short record", "no record"],
)
def test_without_rest_nothing_is_hung_up_on_ignorance_alone(
    talks: Callable[[float], bool], phase: Phase
) -> None:
    """No REST, and no reason to expect anything: the link is left alone."""
    course = live_through(4 * HOUR, talks, is_away, phase)
    assert course.stale_at is course.mute_at is None


def test_a_canary_makes_silence_in_session_suspicious_without_a_record() -> None:
    """Mute from the first second, REST away: told, and hung up on in the stated time."""
    course = live_through(HOUR, lambda now: False, is_away, lively=True)
    assert course.stale_at is not None
    assert course.stale_at <= 15
    assert course.mute_at is not None
    assert course.mute_at >= 90
    assert live_through(HOUR, until(5), is_away, Phase.UNKNOWN, lively=True).stale_at is None


def test_a_stale_link_that_speaks_again_is_fine() -> None:
    """REST is away; after 40 s of silence the link goes on."""
    course = live_through(700, lambda now: now <= 600 or now > 640, is_away)
    assert course.stale_at is not None
    assert course.fine_again
    assert course.mute_at is None


def test_unknown_hours_do_not_protect_a_link_that_rest_convicts() -> None:
    """A trade on the feed is proof, whatever the hour; it only takes longer to ask."""
    course = live_through(HOUR, until(600), convicts, Phase.UNKNOWN)
    assert course.stale_at is not None
    assert 30 <= course.stale_at - 600 <= 40


def test_the_silence_before_the_open_does_not_count() -> None:
    """Nothing in the pre-market: at 09:30 the patience begins anew."""
    opens = 600.0
    phase = lambda now: Phase.EXTENDED if now < opens else Phase.REGULAR  # noqa: E731
    course = live_through(900, lambda now: now > opens + 7, acquits, phase)
    assert all(at < opens for at in course.questions)


def test_questions_are_few_whatever_the_limits_are() -> None:
    """A link that speaks every four seconds, watched by somebody who waits for one."""
    impatient = Limits(1.0, 1.0, 1.0, 90.0)
    watch = Watch(0.0, {Phase.REGULAR: impatient})
    asked: list[float] = []
    for half in range(1200):
        now = half / 2
        finding = watch.look(now, now // 4, Phase.REGULAR)
        if finding.ask:
            watch.asked(now)
            asked.append(now)
            watch.answered(now, None)
    assert len(asked) == QUESTIONS_PER_MINUTE * 10


def test_our_own_silence_is_excused() -> None:
    """While we do not read, nothing is held against the link."""
    watch = Watch(0.0)
    watch.look(0.5, 1.0, Phase.REGULAR)
    for tenth in range(10, 6000):
        watch.excuse(tenth / 10)
        assert not watch.look(tenth / 10, 1.0, Phase.REGULAR).ask


@pytest.mark.parametrize(
    ("found", "known", "expected"),
    [
        ({"IBM": 109.0}, {}, "IBM"),
        ({"IBM": 101.9}, {}, None),  # within the slack of the last data
        ({"IBM": 99.0}, {}, None),  # from before it
        ({"IBM": 109.0}, {"IBM": 109.0}, None),  # it is the one that we have: our clock is late
        ({"IBM": 109.0}, {"IBM": 108.0}, "IBM"),
        ({"IBM": 99.0, "SPY": 104.0}, {"IBM": 99.0}, "SPY"),
        ({"NEW": 109.0}, {}, None),  # subscribed only after that trade
        ({"NEW": 113.0}, {}, "NEW"),
        ({"OTHER": 109.0}, {}, None),  # not asked for
        ({}, {}, None),
    ],
)
def test_a_witness_has_traded_while_it_should_have_come(
    found: dict[str, float], known: dict[str, float], expected: str | None
) -> None:
    """The last data of any kind came at second 100; NEW was subscribed at 110."""
    assert witness(found, known, {"IBM": 100.0, "SPY": 100.0, "NEW": 110.0}) == expected


@pytest.mark.parametrize(
    ("wanted", "refused", "expected"),
    [
        (("IBM",), {}, True),
        ((), {}, False),
        (("SPY", "IBM"), {}, False),
        (("IBM", "AIG"), {"AIG": 405}, False),
        (("IBM", "AIG"), {"AIG": 400}, True),
        (("IBM",), {"SPY": 405}, True),
    ],
    ids=["last", "nobody wants", "wanted anyway", "gives way", "no matter of places", "no place"],
)
def test_the_canary_gives_way(
    wanted: tuple[str, ...], refused: dict[str, int], expected: bool
) -> None:
    """A plan with thirty symbols has thirty for the bots."""
    assert takes_canary(wanted, "SPY", refused) is expected
