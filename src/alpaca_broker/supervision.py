"""Keeping one upstream link alive, for ever.

Owns the answer to "it ended: what now?": the verdict on a refusal, the earned patience before the
next attempt, and what the status says meanwhile. It knows nothing of what goes over the link.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from time import monotonic, time

from alpaca_broker.core.backoff import Jitter, Patience
from alpaca_broker.core.messages import FeedState
from alpaca_broker.core.verdicts import ABOUT_THE_KEYS, Verdict, verdict, verdict_http
from alpaca_broker.errors import BrokerError, UpstreamRefused, UpstreamUnavailable, first

log = logging.getLogger(__name__)

SLOT_TAKEN = 406


class LinkState:
    """What is said of one link: its state, since when, and what is wrong."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self.changed = changed
        self.state: FeedState = "connecting"
        self.since = time()
        self.live_since: float | None = None  # monotonic, of the current link
        self.ever_live = False
        self.error: str | None = None

    def set(self, state: FeedState, error: str | None = None) -> None:
        """Enter a state; tells the owner where it is a new one."""
        if (state, error) == (self.state, self.error):
            return
        if state != self.state:
            self.since = time()
        self.live_since = monotonic() if state == "live" else None
        self.ever_live = self.ever_live or state == "live"
        self.state, self.error = state, error
        self.changed()


class Supervisor:
    """Runs one conversation after another until cancelled, or until Alpaca refuses for good."""

    def __init__(
        self,
        name: str,
        state: LinkState,
        *,
        advice: Callable[[UpstreamRefused], str] = lambda refusal: "",
        keys_are_good: Callable[[], bool] = lambda: False,
        jitter: Jitter = random.uniform,
    ) -> None:
        self._name, self._state, self._advice = name, state, advice
        self._keys_are_good = keys_are_good
        self._patience = Patience(jitter)

    async def run(self, converse: Callable[[], Awaitable[None]]) -> None:
        """Returns only where Alpaca refused in a way that waiting cannot mend."""
        try:
            await self._run(converse)
        finally:
            if self._state.state != "refused":
                self._state.set("idle")

    async def _run(self, converse: Callable[[], Awaitable[None]]) -> None:
        while True:
            self._state.set("connecting", self._state.error)
            ended: BrokerError | None = None
            lasted = 0.0
            try:
                await converse()
            except* BrokerError as group:
                ended = first(group)
            except* Exception as group:
                # The one place for what nobody foresaw: say it, and go on with the next link.
                log.exception("%s: the link failed", self._name, exc_info=group)
            if (task := asyncio.current_task()) is not None and task.cancelling():
                # Up to Python 3.12 a task group lets an error in its ranks stand for a
                # cancellation that came at the same time: we were told to end all the same.
                raise asyncio.CancelledError
            if self._state.live_since is not None:
                lasted = monotonic() - self._state.live_since
            text = explain(ended)
            what = judge(ended)
            # A key that was good before does not become wrong: Alpaca has bad minutes, too.
            if what is Verdict.GIVE_UP and not self._was_good(ended):
                if isinstance(ended, UpstreamRefused) and (advice := self._advice(ended)):
                    text = f"{text}: {advice}"
                log.error("%s: %s. Not trying again.", self._name, text)
                self._state.set("refused", text)
                return
            delay = self._patience.after(lasted, slowly=what is not Verdict.RETRY)
            log.warning("%s: %s. Next attempt in %.1f s.", self._name, text, delay)
            self._state.set("backoff", text)
            await asyncio.sleep(delay)

    def _was_good(self, ended: BrokerError | None) -> bool:
        """Whether what is refused was good before: here, or elsewhere with the same keys."""
        if self._state.ever_live:
            return True
        about_keys = isinstance(ended, UpstreamRefused) and (
            ended.http or ended.code in ABOUT_THE_KEYS
        )
        return about_keys and self._keys_are_good()


def why_ended(error: BaseException) -> str:
    """`: ` and why a link ended, in short; empty where nothing is to be said of it."""
    if isinstance(error, BaseExceptionGroup):
        known, _ = error.split(BrokerError)
        return "" if known is None else why_ended(first(known))
    if isinstance(error, UpstreamUnavailable):
        return f": {error.reason}"
    return f": {error}" if isinstance(error, BrokerError) else ""


def judge(error: BrokerError | None) -> Verdict:
    """What follows from the end of a link."""
    if not isinstance(error, UpstreamRefused):
        return Verdict.RETRY
    # HTTP statuses and market-data codes overlap at 4xx: the shells mark HTTP ones as such.
    return verdict_http(error.code) if error.http else verdict(error.code)


def explain(error: BrokerError | None) -> str:
    """The end of a link in a person's words."""
    if isinstance(error, UpstreamRefused) and error.code == SLOT_TAKEN and not error.http:
        return f"another session holds the slot of this key: {error}"
    return str(error) if error else "the link ended"
