"""Every fault the simulator can play: its name, what it means, and what does it.

Owns the table and the value of a planned fault. Invariant: an existing `Fault` is one that can be
played. It reads no text (`fault_script` does) and plays nothing (`fault_run` does).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from alpaca_broker.simulator import fault_acts as acts

Takes = Literal["", "count", "stream", "path"]
Stream = Literal["market", "trading", "all"]
STREAMS: tuple[Stream, ...] = ("market", "trading", "all")
LONGEST_MS = 24 * 3_600_000
MOST = 100_000


@dataclass(frozen=True)
class Kind:
    """One row of the table."""

    meaning: str
    act: acts.Act
    takes: Takes = "stream"
    """What may follow the colon."""
    usual: str = "all"
    """What it is when nothing follows."""
    lasts_ms: int | None = None
    """How long it usually lasts; None: it happens at once."""
    in_storms: bool = True


KINDS: dict[str, Kind] = {
    "cut": Kind("the sockets break without a close frame", acts.cut),
    "half-open": Kind(
        "the sockets stay up, nothing is read or written, not even pings; reaped at the end",
        *(acts.half_open, "stream", "all", 30_000),
    ),
    "mute": Kind(
        "the sockets stay up and answer pings, and say nothing more",
        *(acts.silence("muted"), "stream", "all", 300_000),
    ),
    "no-data": Kind(
        "the sockets stay up and answer pings and subscriptions, but bring no data and no events",
        *(acts.silence("withholding"), "stream", "all", 300_000),
        in_storms=False,  # `mute` is the same to whoever asks nothing
    ),
    "server-error": Kind("an internal error is said, then the sockets close", acts.server_error),
    "slow-client": Kind("error 407 (orders: an internal error), then a cut", acts.slow_client),
    "406": Kind(
        "market data breaks, and its slot stays taken: 406 to every authentication",
        *(acts.slot_taken, "", "", 30_000),
    ),
    "ghost": Kind(
        "the order stream breaks, and its only place stays taken: HTTP 429 at the upgrade",
        *(acts.ghost, "", "", 30_000),
    ),
    "away": Kind(
        "nothing listens: connections break and are refused, REST's, too",
        *(acts.away, "", "", 10_000),
    ),
    "stall": Kind(
        "the sockets break, and upgrades stay without an answer until the end",
        *(acts.stall, "stream", "all", 30_000),
    ),
    "refuse-429": Kind(
        "the sockets break, and HTTP 429 answers every upgrade",
        *(acts.refuse(429), "stream", "all", 30_000),
    ),
    "refuse-500": Kind(
        "the sockets break, and HTTP 500 answers every upgrade",
        *(acts.refuse(500), "stream", "all", 30_000),
    ),
    "refuse-503": Kind(
        "the sockets break, and HTTP 503 answers every upgrade",
        *(acts.refuse(503), "stream", "all", 30_000),
    ),
    "auth-refused": Kind(
        "the sockets break, and right keys are called wrong (402, unauthorized)",
        *(acts.auth_refused, "stream", "all", 30_000),
        in_storms=False,  # a broker may rightly give up
    ),
    "accept-then-refuse": Kind(
        "the sockets break, and new ones are let in, told an error and closed",
        *(acts.accept_then_refuse, "stream", "all", 30_000),
    ),
    "drop-order": Kind(
        "the next COUNT order events reach nobody, on healthy sockets",
        *(acts.drop_order, "count", "1"),
    ),
    "duplicate-order": Kind(
        "the next COUNT order events come twice", acts.duplicate_order, "count", "1"
    ),
    "reorder-orders": Kind(
        "the next COUNT order events come after the one that followed each",
        *(acts.reorder_orders, "count", "1"),
    ),
    "delay-order": Kind(
        "the next COUNT order events come DURATION late",
        *(acts.delay_order, "count", "1", 2_000),
    ),
    "null-data": Kind("a message whose data is null", acts.null_data),
    "garbage": Kind("a frame that is neither JSON nor MessagePack", acts.garbage),
    "truncated": Kind("the next data frame comes without its second half", acts.truncated),
    "unknown-type": Kind("a message of a type, and an event of a name, new", acts.unknown_type),
    "big-frame": Kind("a frame of 1 MB", acts.big_frame),
    "rest-429": Kind(
        "REST answers 429 with Retry-After",
        *(acts.rest(status=429, headers={"Retry-After": "5"}), "path", "/", 30_000),
    ),
    "rest-500": Kind("REST answers 500", acts.rest(status=500), "path", "/", 30_000),
    "rest-slow": Kind(
        f"REST answers {acts.SLOW_S:g} s late",
        *(acts.rest(delay_s=acts.SLOW_S), "path", "/", 30_000),
    ),
    "rest-cut": Kind(
        "REST answers break off in the middle", acts.rest(cut=True), "path", "/", 30_000
    ),
    "rest-empty": Kind(
        "REST answers 500 with an empty list for a body",
        *(acts.rest(status=500, body=b"[]"), "path", "/", 30_000),
    ),
}

_ONE = {
    "COUNT order events": "order event",
    " reach ": " reaches ",
    " come ": " comes ",
    "followed each": "followed it",
}


@dataclass(frozen=True, order=True)
class Fault:
    """One fault at its time. Raises `ValueError` where no such fault can be played.

    Args:
        at_ms: Milliseconds after the beginning.
        name: A key of `KINDS`.
        lasts_ms: Milliseconds; the usual length if it is left out.
        what: The count, stream or path of it; the usual one if it is left out.
    """

    at_ms: int
    name: str
    lasts_ms: int | None = None
    what: str = ""

    def __post_init__(self) -> None:
        if self.name not in KINDS:
            raise ValueError(f"no such fault: {self.name!r}")
        if self.lasts_ms is None:
            object.__setattr__(self, "lasts_ms", self.kind.lasts_ms)
        object.__setattr__(self, "what", self.what or self.kind.usual)
        if not 0 <= self.at_ms <= LONGEST_MS or not 0 <= (self.lasts_ms or 0) <= LONGEST_MS:
            raise ValueError(f"{self.name}: a time is at most {LONGEST_MS // 3_600_000}h")
        if self.kind.lasts_ms is None and self.lasts_ms is not None:
            raise ValueError(f"{self.name} happens at once: it takes no +DURATION")
        self._check_what()

    def _check_what(self) -> None:
        what, takes = self.what, self.kind.takes
        if takes == "" and what:
            raise ValueError(f"{self.name} takes nothing after a colon")
        if takes == "stream" and what not in STREAMS:
            raise ValueError(f"{self.name} takes one of {', '.join(STREAMS)}, not {what!r}")
        if takes == "path" and not (what.startswith("/") and what.isprintable()):
            raise ValueError(f"{self.name} takes a path such as /v2/orders, not {what!r}")
        is_number = what.isascii() and what.isdigit() and len(what) <= len(str(MOST))
        if takes == "count" and not (is_number and 1 <= int(what) <= MOST):
            raise ValueError(f"{self.name} takes a count from 1 to {MOST}, not {what!r}")

    def __str__(self) -> str:
        lasts = "" if self.lasts_ms is None else f"+{span(self.lasts_ms)}"
        return f"{self.name}@{span(self.at_ms)}{lasts}{self.what and ':'}{self.what}"

    @property
    def kind(self) -> Kind:
        """Its row of the table."""
        return KINDS[self.name]

    @property
    def meaning(self) -> str:
        """What happens, with the numbers for the words that stand in the table."""
        told = self.kind.meaning.replace("DURATION", span(self.lasts_ms or 0))
        if self.kind.takes != "count":
            return told
        if self.count == 1:
            for many, one in _ONE.items():
                told = told.replace(many, one)
        return told.replace("COUNT", self.what)

    @property
    def lasts_s(self) -> float:
        """Seconds from its begin to its end."""
        return (self.lasts_ms or 0) / 1000

    @property
    def stream(self) -> Stream:
        """The sockets it is for."""
        return next((stream for stream in STREAMS if stream == self.what), "all")

    @property
    def path(self) -> str:
        """What the REST calls that it is for begin with."""
        return self.what

    @property
    def count(self) -> int:
        """How many events it is for."""
        return int(self.what)


def span(milliseconds: int) -> str:
    """A time as it is written in a script."""
    whole, rest = divmod(milliseconds, 1000)
    return f"{milliseconds}ms" if rest else f"{whole}s"
