"""The lease of the leadership: what its key says, and when a stand-by may take it.

Owns the decisions and the numbers that belong together: a leader whose own clock says that its
lease is over stops writing at least ABSENT_FOR_S before anybody else may begin. Times are seconds
of one process's monotonic clock, and arguments.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from hashlib import sha256
from typing import NamedTuple

import msgspec
from msgspec import Struct

LASTS_S = 1.5  # after a SIGKILL: at most this, ABSENT_FOR_S and a look until the next one leads
RENEW_EVERY_S = 0.3
LOOK_EVERY_S = 0.1
ABSENT_FOR_S = 1.0  # a leader that Redis had forgotten, or frozen out, renews in less
BREAK_S = 0.5  # longer without a question on its way: what was in between was not seen

MOST_CONNECTIONS = 100  # that a value of somebody else may name
MOST_NUMBER = 2**63 - 1
MOST_EPOCH = 2**53 - 2  # one more is still a whole number to every bot


class Link(NamedTuple):
    """A connection by Redis' number of it and by its own end's address.

    A server that was restarted counts anew: only both together are one connection for good.
    """

    number: int = 0  # 0 where Redis does not tell
    address: str = ""


class Holder(Struct, kw_only=True):
    """The value of `broker:leader`: who holds the lease, or left it in order."""

    epoch: int = 0
    leader: str = ""
    connections: list[int] = []
    keys: list[str] = []
    left: bool = False


class Deployment(Struct, kw_only=True):
    """The value of `broker:deployment`: whose channels and keys these are.

    It outlives the lease, so that whoever leads next can cut the last leader's connections, and
    those that the last leader could not cut itself.
    """

    leader: str = ""
    keys: list[str] = []
    connections: list[int] = []
    addresses: list[str] = []

    @property
    def links(self) -> list[Link]:
        """The connections with their addresses."""
        links = map(Link, self.connections[:MOST_CONNECTIONS], self.addresses)
        return [link for link in links if 0 < link.number <= MOST_NUMBER]


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


def link_of(info: object) -> Link:
    """A connection as Redis' answer to CLIENT INFO describes it.

    Over a Unix socket all have the same address, which tells nobody apart: such a one stays
    unknown, and is not cut.
    """
    text = info.decode("utf-8", "replace") if isinstance(info, bytes) else ""
    fields = dict(word.partition("=")[::2] for word in text.split())
    number, address = fields.get("id", ""), fields.get("addr", "")
    if not number.isdecimal() or not address or address.endswith(":0"):
        return Link()
    return Link(int(number), address)


def is_epoch(value: bytes | None) -> bool:
    """Whether an epoch, or none yet, is kept there: what scripts then take it for, too."""
    return value is None or (value.isdigit() and len(value) < 20 and int(value) <= MOST_EPOCH)


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
        self._slowest = 0.0

    def saw(self, *, present: bool, asked: float, now: float) -> bool:
        """Take one look's answer; whether the lease has been absent for long enough.

        A stand-by that was suspended asks nothing for too long; a Redis that was frozen answers
        later than any lease lasts. Meanwhile the key may have expired under a leader that is well,
        so the count starts over. A Redis that is only slow is slow for the leader, too: who is well
        has its time, and two answers more.
        """
        took = now - asked
        unseen = asked - self._answered_at > BREAK_S or took > LASTS_S
        self._answered_at = now
        if present:
            self._since = None
        elif self._since is None or unseen:
            self._since, self._slowest = now, 0.0
        else:
            self._slowest = max(self._slowest, took)
        return self._since is not None and now - self._since >= ABSENT_FOR_S + 2 * self._slowest


def may_take(held: Holder | None, *, absent: bool, ever_led: bool) -> bool:
    """Whether the lease may be taken now.

    At once where the last leader left in order, or nobody has ever led here as far as Redis and we
    know; else once it has been `absent` for long enough.
    """
    if held is not None:
        return held.left
    return absent or not ever_led
