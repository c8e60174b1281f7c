"""One link after the other, in fake time: how often Alpaca is asked, and what is said meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from alpaca_broker import supervision
from alpaca_broker.errors import BrokerError, UpstreamRefused, UpstreamUnavailable
from alpaca_broker.supervision import LinkState, Supervisor


class FakeTime:
    """A clock that only sleeping moves on; the end of the story cancels it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, story_s: float) -> None:
        self.now, self._story_s = 0.0, story_s
        monkeypatch.setattr(supervision, "monotonic", lambda: self.now)
        monkeypatch.setattr(supervision.asyncio, "sleep", self.sleep)

    async def sleep(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds
        if self.now >= self._story_s:
            raise asyncio.CancelledError


def refused(code: int) -> BrokerError:
    """Alpaca's own code."""
    return UpstreamRefused(code, "no")


async def story(
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
    ends: Callable[[float], BrokerError | None],
    *,
    lives_for: float = 0.1,
) -> tuple[list[float], list[tuple[str, str | None]]]:
    """Attempts and states of a link; a conversation lives as long as `ends` has no error."""
    time = FakeTime(monkeypatch, seconds)
    attempts: list[float] = []
    states: list[tuple[str, str | None]] = []
    state = LinkState(lambda: states.append((state.state, state.error)))

    async def converse() -> None:
        attempts.append(time.now)
        if (error := ends(time.now)) is not None:
            if lives_for:
                state.set("live")
                await time.sleep(lives_for)
            raise error
        state.set("live")
        await time.sleep(seconds)

    supervisor = Supervisor("iex feed", state, jitter=lambda low, high: low)
    with pytest.raises(asyncio.CancelledError):
        await supervisor.run(converse)
    return attempts, states


@pytest.mark.parametrize("code", [500, 406, 407, 429, 999])
@pytest.mark.parametrize("lives_for", [0.0, 0.1, 29.0])
async def test_a_server_that_accepts_and_then_refuses_for_ever(
    monkeypatch: pytest.MonkeyPatch, code: int, lives_for: float
) -> None:
    """At most 15 attempts in the first five minutes; and on it goes."""
    attempts, _ = await story(monkeypatch, 3600, lambda at: refused(code), lives_for=lives_for)
    assert sum(at <= 300 for at in attempts) <= 15
    assert attempts[-1] > 3500


async def test_406_for_90_s_is_survived_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cut link, then a slot that the dead session holds: told, asked for seldom, had again."""
    cut_at = 100.0

    def ends(at: float) -> BrokerError | None:
        if at == 0.0:
            return UpstreamUnavailable("wss://alpaca", "the connection was cut")
        return refused(406) if at < cut_at + 90 else None

    time = FakeTime(monkeypatch, 600)
    attempts: list[float] = []
    told: list[str | None] = []
    state = LinkState(lambda: told.append(state.error))

    async def converse() -> None:
        attempts.append(time.now)
        error = ends(time.now)
        if time.now == 0.0 or error is None:
            state.set("live", None)
            await time.sleep(cut_at if time.now == 0.0 else 600)
        assert error is not None
        raise error

    supervisor = Supervisor("iex feed", state, jitter=lambda low, high: low)
    with pytest.raises(asyncio.CancelledError):
        await supervisor.run(converse)
    assert 1 < sum(cut_at < at <= cut_at + 90 for at in attempts) <= 12
    assert attempts[-1] - (cut_at + 90) <= 13
    assert any(text and "another session holds the slot" in text for text in told)


async def test_a_long_life_is_forgiven(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an hour the first attempt comes at once again; one that was stale, too."""
    attempts, _ = await story(monkeypatch, 8000, lambda at: refused(500), lives_for=3600.0)
    assert attempts[1] - 3600 < 1
    assert attempts[2] - attempts[1] - 3600 < 1


async def test_a_right_key_does_not_become_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """402 after a link was live: Alpaca has bad minutes, and is asked slowly."""
    attempts, states = await story(monkeypatch, 600, lambda at: refused(402))
    assert 1 < len(attempts) <= 25
    assert ("refused", "no (402)") not in states


@pytest.mark.parametrize(
    ("code", "goes_on"), [(402, True), (408, True), (411, True), (409, False), (412, False)]
)
async def test_keys_that_are_good_elsewhere_are_not_taken_for_wrong(
    monkeypatch: pytest.MonkeyPatch, code: int, goes_on: bool
) -> None:
    """A feed that is wanted for the first time hears it once; the plan is another matter."""
    FakeTime(monkeypatch, 600)
    attempts = 0

    async def converse() -> None:
        nonlocal attempts
        attempts += 1
        raise refused(code)

    state = LinkState(lambda: None)
    supervisor = Supervisor(
        "crypto feed", state, jitter=lambda low, high: low, keys_are_good=lambda: True
    )
    if goes_on:
        with pytest.raises(asyncio.CancelledError):
            await supervisor.run(converse)
        assert attempts > 3
    else:
        await supervisor.run(converse)
        assert (attempts, state.state) == (1, "refused")
