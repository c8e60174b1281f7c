"""What Alpaca's documentation leaves open: the answers that the simulator can give instead.

Owns the switches. Invariant: the defaults are what the documentation and the official SDKs suggest;
a client has to survive every other answer, too. Pure.
"""

from dataclasses import dataclass

import msgspec

from alpaca_broker.simulator.codec import Codec

_MESSAGES = list[dict[str, msgspec.Raw]]


@dataclass(frozen=True, kw_only=True)
class Variants:
    """Which answers to give on the market-data WebSockets.

    Args:
        header_welcome: Whether `connected` comes before `authenticated` when the credentials came
            in headers.
        bad_header_status: The HTTP status of an upgrade with wrong credentials in headers; None
            is an upgrade, and 402 in the session.
        closing_errors: The error codes after which the socket is closed, say {402, 406, 409}.
        sparse_acks: Whether an acknowledgement leaves out the channels that nobody asked for.
        type_last: Whether `T` is the last key of every message instead of the first.
    """

    header_welcome: bool = True
    bad_header_status: int | None = None
    closing_errors: frozenset[int] = frozenset()
    sparse_acks: bool = False
    type_last: bool = False

    def shape(self, frame: bytes, codec: Codec) -> bytes:
        """A frame of messages with their keys in this variant's order."""
        if not self.type_last:
            return frame
        decode = msgspec.json.decode if codec is Codec.JSON else msgspec.msgpack.decode
        messages = decode(frame, type=_MESSAGES)
        for message in messages:
            if "T" in message:
                message["T"] = message.pop("T")
        return codec.encode(messages)
