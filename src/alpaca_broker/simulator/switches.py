"""What goes wrong right now: the switches that the doors of the simulator look at.

Owns the switches. Invariant: each is a list, for troubles overlap; the one thrown last counts, and
whoever threw one takes it back. It does nothing by itself.
"""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class RestTrouble:
    """What happens to the REST calls under a path."""

    status: int | None = None
    """Answered with this status instead; 200 is no trouble."""
    body: bytes | None = None
    """With this body, say `[]` by mistake; Alpaca's error shape if it is left out."""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    """Answered so much later."""
    cut: bool = False
    """The true answer, broken off in the middle of its body."""
    prefix: str = "/"
    """Only paths that begin with it."""


@dataclass
class Switches:
    """By stream ("market", "trading") where they differ."""

    upgrade_status: dict[str, list[int]] = field(
        default_factory=lambda: {"market": [], "trading": []}
    )
    """WebSocket upgrades are answered with this HTTP status."""
    stalled: dict[str, list[asyncio.Event]] = field(
        default_factory=lambda: {"market": [], "trading": []}
    )
    """WebSocket upgrades are not answered before this is set, and then refused."""
    slam: dict[str, list[int]] = field(default_factory=lambda: {"market": [], "trading": []})
    """Sockets are accepted, told this error, and closed."""
    auth_error: dict[str, list[int]] = field(default_factory=lambda: {"market": [], "trading": []})
    """Right keys are answered with this error all the same; trading has one refusal only."""
    rest: list[RestTrouble] = field(default_factory=list)
    """REST calls meet the last one of these whose prefix fits."""

    def rest_trouble(self, path: str) -> RestTrouble | None:
        """What a call of this path meets."""
        fitting = (t for t in reversed(self.rest) if path.startswith(t.prefix))
        return next(fitting, None)


@contextmanager
def thrown(switch: list[T], value: T) -> Iterator[None]:
    """Throw a switch for as long as the block runs."""
    switch.append(value)
    try:
        yield
    finally:
        # The last equal one: of equal values it does not matter which goes.
        del switch[len(switch) - 1 - switch[::-1].index(value)]
