"""What each of Alpaca's error codes means for the link: one table, decided on codes alone.

Codes and texts: Alpaca's page "WebSocket Stream"; 411 from the Go SDK's errors.go.
Which of them close the socket is documented nowhere, so nothing here relies on it.
"""

from __future__ import annotations

from enum import Enum


class Verdict(Enum):
    """What to do after a refusal."""

    RETRY = "retry"
    RETRY_SLOWLY = "retry slowly"
    GIVE_UP = "give up until the configuration changes"


NOT_IN_THE_PLAN = 409
NO_CODE = 0  # the order stream says no without one

VERDICTS = {
    NO_CODE: Verdict.GIVE_UP,
    401: Verdict.RETRY,  # not authenticated: our session is confused, begin a new one
    402: Verdict.GIVE_UP,  # auth failed
    403: Verdict.RETRY,  # already authenticated: as 401
    404: Verdict.RETRY,  # auth timeout
    406: Verdict.RETRY_SLOWLY,  # connection limit: a dead session holds the slot for ~90 s
    407: Verdict.RETRY,  # slow client; a disconnect follows
    408: Verdict.GIVE_UP,  # v2 not enabled (old)
    NOT_IN_THE_PLAN: Verdict.GIVE_UP,  # insufficient subscription
    411: Verdict.GIVE_UP,  # insufficient scope
    412: Verdict.GIVE_UP,  # options are MessagePack only
    429: Verdict.RETRY_SLOWLY,  # HTTP at the upgrade: reconnected too quickly
    500: Verdict.RETRY,
}

# These answer a subscription and leave the session as it was (Go SDK flow.go, [D] for 405).
ABOUT_A_SUBSCRIPTION = frozenset({400, 405, 410, 413})

# Whatever they say of the keys, a session that these had elsewhere proves more.
ABOUT_THE_KEYS = frozenset({402, 408, 411})

NO_WILDCARD = 413
ABOUT_THE_KIND = frozenset({410, NO_WILDCARD})  # no symbol of this kind will be taken


def verdict(code: int) -> Verdict:
    """What to do after Alpaca refused with `code`; unknown codes are retried."""
    return VERDICTS.get(code, Verdict.RETRY)


def verdict_http(status: int) -> Verdict:
    """What to do after an HTTP status, at a WebSocket upgrade or from REST."""
    if status in (401, 403):
        return Verdict.GIVE_UP
    return Verdict.RETRY_SLOWLY if status in (404, 429) else Verdict.RETRY
