"""A bot's registration message: bytes in, a checked value or a clear refusal out.

Owns the reading of `broker:registration` (contract, section 2). Everything in it is hostile until
it has passed here: a bad message raises `BadRegistration` and changes nothing; a bad symbol is set
aside with a code and a reason, and its neighbours stand.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta, Struct

from alpaca_broker.core.feeds import CONTENT, Topic
from alpaca_broker.core.messages import Rejected
from alpaca_broker.errors import UsageError

# Alpaca's spelling: AAPL, BRK.B, BTC/USD, AAPL251219C00150000. Also what is safe in a channel name.
_SYMBOL = re.compile(r"[A-Z0-9][A-Z0-9./-]{0,31}\Z")

# The contract's own channels, under whatever prefix: an answer there would be a forged price.
_OURS = re.compile(
    r"(^|:)(price|order|broker|quote|bar|trading_status|correction|backfill|news|orderbook):"
)

Kind = Literal[
    "trades",
    "quotes",
    "bars",
    "updatedBars",
    "dailyBars",
    "statuses",
    "lulds",
    "corrections",
    "backfill",
    "news",
    "orderbooks",
]


class BadRegistration(UsageError):
    """A registration message that cannot be followed; the text says what to change."""


class Limits(Struct, frozen=True):
    """What one message may hold."""

    bytes: int = 1_000_000
    symbols: int = 20_000


class RegistrationMessage(Struct):
    """The message as bots send it; `parse` makes a `Registration` of it."""

    action: Literal["register", "unregister"]
    symbols: list[str] | None = None
    account_id: Annotated[str, Meta(max_length=128)] | None = None
    bot_id: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}\Z")] | None = None
    channels: list[Kind] | None = None
    content: bool = False  # of news: with the whole article
    ttl: Annotated[float, Meta(ge=5, le=86_400)] | None = None
    reply_to: Annotated[str, Meta(max_length=128)] | None = None
    request_id: Annotated[str, Meta(max_length=64)] | None = None


class Registration(Struct, frozen=True):
    """A checked wish: what to add for, or take from, one bot."""

    action: Literal["register", "unregister"]
    symbols: tuple[str, ...]
    everything: bool  # unregister without symbols: all of these channels
    account_id: str | None
    bot: str  # `bot_id`, else `account_id`, else "" for the shared pool
    channels: tuple[str, ...]  # none: every kind of data, and the orders
    ttl: float | None
    reply_to: str | None
    request_id: str | None
    rejected: tuple[Rejected, ...] = ()

    @property
    def topics(self) -> tuple[Topic, ...]:
        """Each kind of data of each symbol: what comes first goes first under a limit."""
        return tuple((kind, symbol) for symbol in self.symbols for kind in self.channels)


_decode = msgspec.json.Decoder(RegistrationMessage).decode


def parse(payload: bytes, limits: Limits = Limits()) -> Registration:  # noqa: B008 - immutable
    """Read one registration message.

    Raises:
        BadRegistration: it is too large, no JSON object, or a field is missing or wrong.
    """
    if len(payload) > limits.bytes:
        raise BadRegistration(f"message of {len(payload)} bytes: at most {limits.bytes} are taken")
    try:
        message = _decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadRegistration(_what_is_wrong(error)) from error
    names = message.symbols or []
    if len(names) > limits.symbols:
        raise BadRegistration(f"{len(names)} symbols: at most {limits.symbols} in one message")
    account_id = message.account_id or None
    if message.action == "register" and not names and account_id is None:
        raise BadRegistration('no symbol: name some in "symbols", or an "account_id" for orders')
    if message.reply_to is not None and not _may_reply_to(message.reply_to):
        raise BadRegistration('"reply_to" names a channel of the broker\'s own: choose another')
    accepted: dict[str, None] = {}
    rejected: list[Rejected] = []
    for name in names:
        if name == "*" or _SYMBOL.match(name):
            accepted[name] = None
        else:
            rejected.append(_reject(name))
    everything = message.action == "unregister" and not names
    return Registration(
        action=message.action,
        symbols=tuple(accepted),
        everything=everything,
        account_id=account_id,
        bot=message.bot_id or account_id or "",
        channels=_channels(message, everything),
        ttl=message.ttl,
        reply_to=message.reply_to,
        request_id=message.request_id,
        rejected=tuple(rejected),
    )


def _channels(message: RegistrationMessage, everything: bool) -> tuple[str, ...]:
    """The kinds of data that it speaks of, each once."""
    if everything and not message.channels:
        return ()
    kinds: dict[str, None] = dict.fromkeys(message.channels or ("trades",))
    if "news" in kinds and (message.content or message.action == "unregister"):
        kinds[CONTENT] = None
    return tuple(kinds)


def _reject(name: str) -> Rejected:
    shown = name if len(name) <= 40 else f"{name[:40]}…"
    if _SYMBOL.match(name.upper()):
        reason = f"symbols are upper case: {name.upper()}"
    else:
        reason = "not a symbol such as AAPL, BRK.B or BTC/USD"
    return Rejected(symbol=shown, code="bad_symbol", reason=reason)


def is_symbol(name: str) -> bool:
    """Whether it has the shape of one of Alpaca's symbols."""
    return _SYMBOL.match(name) is not None


class _ReturnAddress(Struct):
    reply_to: Annotated[str, Meta(max_length=128)]
    request_id: str | None = None


def return_address(payload: bytes, limits: Limits) -> tuple[str, str | None] | None:
    """(`reply_to`, `request_id`) of a message that is otherwise bad, or None."""
    if len(payload) > limits.bytes:
        return None
    try:
        found = msgspec.json.decode(payload, type=_ReturnAddress)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if not _may_reply_to(found.reply_to):
        return None
    return found.reply_to, (found.request_id or "")[:64] or None


def _may_reply_to(channel: str) -> bool:
    """Whether an answer there cannot be taken for something else that the broker says."""
    return channel != "" and channel.isprintable() and not _OURS.search(channel)


def _what_is_wrong(error: Exception) -> str:
    if isinstance(error, msgspec.ValidationError):
        text = str(error)  # names the field: "Expected `array`, got `str` - at `$.symbols`"
        if text.startswith("Invalid enum value"):
            allowed = ("register", "unregister") if "$.action" in text else get_args(Kind)
            text = f"{text}: one of {', '.join(allowed)}"
        return text
    return f"not a JSON object: {error}"
