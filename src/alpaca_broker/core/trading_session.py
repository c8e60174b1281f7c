"""One conversation on Alpaca's order stream: who we are, what we listen to, what is an event.

Owns its state and nothing else. There is no welcome: we speak first (Alpaca's page "Websocket
Streaming"). Invariant: after `LISTENING` every order event counts, before it none is lost either:
whatever arrives early is handed out all the same.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

from msgspec import Struct

from alpaca_broker.core.verdicts import NO_CODE
from alpaca_broker.core.wire import json_object
from alpaca_broker.errors import RemoteProtocolError, UpstreamRefused, UpstreamUnavailable

ORDER_EVENTS = "trade_updates"


class State(Enum):
    """Where the conversation stands."""

    AUTHENTICATING = "waiting for the answer to the authentication"
    ASKING = "waiting for the answer to listen"
    LISTENING = "listening"


class SendListen(Struct, frozen=True):
    """Ask for order events."""


class Heard(Struct, frozen=True):
    """An order event: the `data` of a `trade_updates` message."""

    data: dict[str, Any]


class NotUnderstood(Struct, frozen=True):
    """A frame that is no message of this protocol: counted, and shown once in a while."""


Action = SendListen | Heard | NotUnderstood


class TradingSession:
    """The conversation of one link: frames in, actions out."""

    def __init__(self, url: str) -> None:
        self._url = url  # for messages
        self.state = State.AUTHENTICATING

    def receive(self, frame: bytes | str) -> Action | None:
        """Take one frame; returns what to do now.

        Raises:
            UpstreamRefused: Alpaca does not let us in, or has no order events for this key.
            UpstreamUnavailable: Alpaca says that the stream ends.
            RemoteProtocolError: it no longer listens for us.
        """
        message = json_object(frame)
        data = message.get("data") if message is not None else None
        fields = data if isinstance(data, dict) else {}
        match message:
            case {"action": "error"}:
                text = str(fields.get("error_message") or "an error")[:300]
                raise UpstreamUnavailable(self._url, f"the stream ends: {text}")
            case {"stream": "authorization"}:
                return self._authorized(fields)
            case {"stream": "listening"}:
                return self._listening(fields)
            case {"stream": "trade_updates"} if isinstance(data, dict):
                return Heard(data)
        if len(frame) <= 1:
            return None  # a heartbeat is one byte (JS SDK 3)
        return NotUnderstood()

    def _authorized(self, data: dict[str, Any]) -> Action | None:
        if data.get("status") != "authorized":
            text = str(data.get("message") or "unauthorized")[:300]
            raise UpstreamRefused(NO_CODE, f"{self._url}: {text}")
        if self.state is not State.AUTHENTICATING:
            return None
        self.state = State.ASKING
        return SendListen()

    def _listening(self, data: dict[str, Any]) -> Action | None:
        streams = data.get("streams")
        if isinstance(streams, list) and ORDER_EVENTS in streams:
            if self.state is State.ASKING:
                self.state = State.LISTENING
            return None
        if self.state is State.LISTENING:
            raise RemoteProtocolError(self.state.value, f"listening to {streams!r:.100}")
        raise UpstreamRefused(NO_CODE, f"{self._url}: no order events for this key")
