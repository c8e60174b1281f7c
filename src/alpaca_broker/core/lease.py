"""The lease of the leadership: what its key says, and when a stand-by may take it.

Owns the decisions and the numbers that belong together: a leader whose own clock says that its
lease is over stops writing at least ABSENT_FOR_S before anybody else may begin. Times are seconds
of one process's monotonic clock, and arguments.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from hashlib import sha256

import msgspec
from msgspec import Struct

LASTS_S = 1.5  # after a SIGKILL: at most this, ABSENT_FOR_S and a look until the next one leads
RENEW_EVERY_S = 0.3
LOOK_EVERY_S = 0.1
ABSENT_FOR_S = 1.0  # a leader that Redis had forgotten, or frozen out, renews in less
BREAK_S = 0.5  # longer from one answer to the next: what was in between was not seen

MOST_CONNECTIONS = 100  # that a value of somebody else may name


class Holder(Struct, kw_only=True):
    """The value of `broker:leader`: who holds the lease, or left it in order."""

    epoch: int = 0
    leader: str = ""
    connections: list[int] = []
    keys: list[str] = []
    left: bool = False


class Deployment(Struct, kw_only=True):
    """The value of `broker:deployment`: whose channels and keys these are."""

    leader: str = ""
    keys: list[str] = []


def holder(value: bytes | None) -> Holder | None:
    """Who holds the lease; None where nobody does, or nobody of ours wrote the value."""
    try:
        found = msgspec.json.decode(value or b"", type=Holder)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    del found.connections[MOST_CONNECTIONS:]
    return found if found.leader else None


def deployment(value: bytes | None) -> Deployment | None:
    """Whose channels and keys these are; None where that is not known."""
    try:
        return msgspec.json.decode(value or b"", type=Deployment)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def fingerprints(key_ids: Iterable[str]) -> list[str]:
    """What tells deployments apart without telling a key: a hash of each key's id."""
    return sorted(
        sha256(b"alpaca-broker deployment:" + k.encode()).hexdigest()[:16] for k in key_ids
    )


def is_another(theirs: Collection[str], ours: Collection[str]) -> bool:
    """Whether these are another deployment's keys: not one of them is ours."""
    return bool(theirs) and set(theirs).isdisjoint(ours)


class Absence:
    """For how long the lease has been seen absent, over a connection that answers."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._answered_at = float("-inf")

    def saw(self, *, present: bool, now: float) -> bool:
        """Take one look's answer; whether the lease has been absent for long enough.

        A Redis that was frozen, or a stand-by that was, lets too much time pass between two
        answers: meanwhile the key may have expired under a leader that is well, so the count starts
        over.
        """
        unseen = now - self._answered_at > BREAK_S
        self._answered_at = now
        if present:
            self._since = None
        elif self._since is None or unseen:
            self._since = now
        return self._since is not None and now - self._since >= ABSENT_FOR_S


def may_take(held: Holder | None, *, absent: bool, ever_led: bool) -> bool:
    """Whether the lease may be taken now.

    At once where the last leader left in order, or nobody has ever led here as far as Redis and we
    know; else once it has been `absent` for long enough.
    """
    if held is not None:
        return held.left
    return absent or not ever_led
