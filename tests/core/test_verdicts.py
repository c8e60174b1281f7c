"""Every code of Alpaca has a verdict, and the table is decided on codes alone."""

from __future__ import annotations

import pytest

from alpaca_broker.core.verdicts import (
    ABOUT_A_SUBSCRIPTION,
    VERDICTS,
    Verdict,
    verdict,
    verdict_http,
)

DOCUMENTED = range(400, 414)


def test_every_documented_code_is_placed_once() -> None:
    """Either it ends the link, or it answers a subscription."""
    placed = set(VERDICTS) | ABOUT_A_SUBSCRIPTION
    assert set(DOCUMENTED) <= placed
    assert not set(VERDICTS) & ABOUT_A_SUBSCRIPTION


@pytest.mark.parametrize("code", [402, 408, 409, 411, 412])
def test_what_waiting_cannot_mend_is_given_up(code: int) -> None:
    """Wrong keys and missing plans need a person."""
    assert verdict(code) is Verdict.GIVE_UP


def test_a_taken_slot_is_waited_for_and_the_unknown_is_retried() -> None:
    """A dead session lingers; a new code is no reason to stop."""
    assert verdict(406) is Verdict.RETRY_SLOWLY
    assert verdict(599) is Verdict.RETRY


def test_http_statuses_have_their_own_table() -> None:
    """At an upgrade 404 is a path and 429 a rate; in a session they are something else."""
    assert verdict_http(401) is verdict_http(403) is Verdict.GIVE_UP
    assert verdict_http(429) is Verdict.RETRY_SLOWLY
    assert verdict_http(503) is Verdict.RETRY
    assert verdict(404) is Verdict.RETRY
