"""One client's conversation on a market-data WebSocket.

Owns the answers: authentication, subscriptions, error codes. Invariant: every client message
gets exactly one answer, a control message alone in its array [D WSS]. It moves no market data
and opens no socket; what it has to say goes into its `Outbox`.
"""

import enum
import logging
from collections.abc import Mapping
from typing import Any, Protocol

from alpaca_broker.simulator.codec import Codec
from alpaca_broker.simulator.feeds import Feed
from alpaca_broker.simulator.outbox import Outbox
from alpaca_broker.simulator.stats import Stats
from alpaca_broker.simulator.subscriptions import Refused, Subscriptions
from alpaca_broker.simulator.variants import Variants

Topic = tuple[str, str]
log = logging.getLogger(__name__)

ERRORS = {
    400: "invalid syntax",
    401: "not authenticated",
    402: "auth failed",
    403: "already authenticated",
    404: "auth timeout",
    405: "symbol limit exceeded",
    406: "connection limit exceeded",
    407: "slow client",
    409: "insufficient subscription",
    410: "invalid subscribe action for this feed",
    412: "option messages are only available in MsgPack format",
    413: "star subscription is not allowed for option quotes",
    500: "internal error",
}
"""Error texts, part of the contract: some clients decide on them [S JAVA, PY44]."""


class State(enum.Enum):
    """Where a conversation stands."""

    GREETING = "greeting"
    LIVE = "live"
    ENDED = "ended"


class Door(Protocol):
    """What decides whether a session may be authenticated."""

    def owner(self, key: object, secret: object) -> str | None:
        """The owner behind a key pair, None if it is wrong."""

    def admit(self, session: "MarketSession", owner: str) -> int | None:
        """Take the connection slot, or the error code that forbids it."""

    def changed(self, session: "MarketSession", added: frozenset[Topic]) -> None:
        """Hear that a session's subscriptions changed, and what is new in them."""


class MarketSession:
    """What one client said and is owed."""

    def __init__(
        self,
        feed: Feed,
        codec: Codec,
        outbox: Outbox,
        door: Door,
        stats: Stats,
        subscriptions: Subscriptions,
        variants: Variants,
    ) -> None:
        self.feed = feed
        self.codec = codec
        self.outbox = outbox
        self.state = State.GREETING
        self.over = False
        self.owner: str | None = None
        self.subscriptions = subscriptions
        self._door = door
        self._stats = stats
        self._variants = variants

    def welcome(self) -> None:
        """Greet a new connection [D WSS]."""
        self._say({"T": "success", "msg": "connected"})

    def receive(self, frame: bytes) -> None:
        """Answer one client message. Raises nothing: our own bugs are answered 500."""
        try:
            # By codec, not by opcode: the C# client sends JSON in binary frames [S CS].
            request = self.codec.decode(frame)
        except ValueError:
            self.refuse(412 if self.feed.packed_only and frame.startswith(b"{") else 400)
            return
        try:
            self._answer(request)
        except Refused as refusal:
            self.refuse(refusal.code)
        except Exception:
            log.exception("answering a client message failed")
            self.refuse(500)

    def authenticate(self, owner: str | None) -> None:
        """Decide on credentials; an owner of None means they were wrong."""
        if self.state is State.LIVE:
            raise Refused(403)
        if owner is None:
            raise Refused(402)
        # After 406 the client may try again on the same socket [S GO flow.go].
        if (code := self._door.admit(self, owner)) is not None:
            raise Refused(code)
        self.owner = owner
        self.state = State.LIVE
        self._stats.market_sessions += 1
        self._say({"T": "success", "msg": "authenticated"})

    def refuse(self, code: int) -> None:
        """Answer with an error; after some, if a variant says so, the session is over."""
        self.over = self.over or code in self._variants.closing_errors
        self._stats.errors_sent[code] += 1
        self._say({"T": "error", "code": code, "msg": ERRORS[code]})

    def _answer(self, request: object) -> None:
        if not isinstance(request, Mapping):
            raise Refused(400)
        match request.get("action"):
            case "auth":
                self.authenticate(self._door.owner(request.get("key"), request.get("secret")))
            case "subscribe":
                self._change(request, subscribe=True)
            case "unsubscribe":
                self._change(request, subscribe=False)
            case _:
                raise Refused(400)

    def _change(self, request: Mapping[Any, Any], *, subscribe: bool) -> None:
        if self.state is not State.LIVE:
            raise Refused(401)
        added: frozenset[Topic] = frozenset()
        if subscribe:
            self._stats.subscribe_messages += 1
            added = self.subscriptions.subscribe(request)
        else:
            self._stats.unsubscribe_messages += 1
            self.subscriptions.unsubscribe(request)
        # The answer first: the next message after a subscribe must be it [S GO flow.go].
        self._say(self.subscriptions.acknowledgement(sparse=self._variants.sparse_acks))
        self._door.changed(self, added)

    def _say(self, message: Mapping[str, Any]) -> None:
        frame = self.codec.encode([message])
        self.outbox.control(self._variants.shape(frame, self.codec))
