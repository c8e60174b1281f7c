"""Records as the maps that go over the wire, one type per message shape.

Owns the keys and their order. Invariant: `T` comes first, and whole numbers stay integers
[S GO marketdata/stream/message.go]. It encodes nothing: how times look is the caller's choice.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from alpaca_broker.simulator.market import (
    COIN_UNIT,
    PRICE_UNIT,
    Bar,
    CryptoBar,
    CryptoQuote,
    CryptoTrade,
    OptionQuote,
    OptionTrade,
    Quote,
    Trade,
)

Stamp = str | msgspec.msgpack.Ext


class _TradeMessage(msgspec.Struct, tag_field="T", tag="t", gc=False):  # fields in wire order
    S: str
    i: int
    x: str
    p: float
    s: int
    c: tuple[str, ...]
    z: str
    t: Stamp


class _QuoteMessage(msgspec.Struct, tag_field="T", tag="q", gc=False, rename={"asked": "as"}):
    S: str
    bx: str
    bp: float
    bs: int
    ax: str
    ap: float
    asked: int
    c: tuple[str, ...]
    z: str
    t: Stamp


class _BarMessage(msgspec.Struct, tag_field="T", tag="b", gc=False):
    S: str
    o: float
    h: float
    l: float  # noqa: E741 - the wire's name
    c: float
    v: int
    vw: float
    n: int
    t: Stamp


class _DayBarMessage(_BarMessage, tag_field="T", tag="d", gc=False):
    pass


class _UpdatedBarMessage(_BarMessage, tag_field="T", tag="u", gc=False):
    pass


class _CryptoTradeMessage(msgspec.Struct, tag_field="T", tag="t", gc=False):
    S: str
    p: float
    s: float
    t: Stamp
    i: int
    tks: str


class _CryptoQuoteMessage(msgspec.Struct, tag_field="T", tag="q", gc=False, rename={"asked": "as"}):
    S: str
    bp: float
    bs: float
    ap: float
    asked: float
    t: Stamp


class _CryptoBarMessage(msgspec.Struct, tag_field="T", tag="b", gc=False):
    S: str
    o: float
    h: float
    l: float  # noqa: E741 - the wire's name
    c: float
    v: float
    vw: float
    n: int
    t: Stamp


class _CryptoDayBarMessage(_CryptoBarMessage, tag_field="T", tag="d", gc=False):
    pass


class _CryptoUpdatedBarMessage(_CryptoBarMessage, tag_field="T", tag="u", gc=False):
    pass


class _OptionTradeMessage(msgspec.Struct, tag_field="T", tag="t", gc=False):
    S: str
    t: Stamp
    p: float
    s: int
    x: str
    c: str  # one text, not a list [D RTO]


class _OptionQuoteMessage(msgspec.Struct, tag_field="T", tag="q", gc=False, rename={"asked": "as"}):
    S: str
    t: Stamp
    bx: str
    bp: float
    bs: int
    ax: str
    ap: float
    asked: int
    c: str


def _trade(record: Trade, stamp: Callable[[int], Stamp]) -> _TradeMessage:
    return _TradeMessage(
        record.symbol,
        record.id,
        record.exchange,
        # Correctly rounded, so its shortest decimal form has exactly the price's digits.
        record.price / PRICE_UNIT,
        record.size,
        record.conditions,
        record.tape,
        stamp(record.ns),
    )


def _quote(record: Quote, stamp: Callable[[int], Stamp]) -> _QuoteMessage:
    return _QuoteMessage(
        record.symbol,
        record.bid_exchange,
        record.bid / PRICE_UNIT,
        record.bid_size,
        record.ask_exchange,
        record.ask / PRICE_UNIT,
        record.ask_size,
        record.conditions,
        record.tape,
        stamp(record.ns),
    )


def _bar(record: Bar, stamp: Callable[[int], Stamp]) -> _BarMessage:
    shape = _BARS[record.kind]
    average = record.turnover / record.volume if record.volume else record.close
    return shape(
        record.symbol,
        record.open / PRICE_UNIT,
        record.high / PRICE_UNIT,
        record.low / PRICE_UNIT,
        record.close / PRICE_UNIT,
        record.volume,
        round(average / PRICE_UNIT, 6),
        record.trades,
        stamp(record.ns),
    )


def _crypto_trade(record: CryptoTrade, stamp: Callable[[int], Stamp]) -> _CryptoTradeMessage:
    return _CryptoTradeMessage(
        record.symbol,
        record.price / COIN_UNIT,
        record.size / COIN_UNIT,
        stamp(record.ns),
        record.id,
        record.taker,
    )


def _crypto_quote(record: Quote, stamp: Callable[[int], Stamp]) -> _CryptoQuoteMessage:
    return _CryptoQuoteMessage(
        record.symbol,
        record.bid / COIN_UNIT,
        record.bid_size / COIN_UNIT,
        record.ask / COIN_UNIT,
        record.ask_size / COIN_UNIT,
        stamp(record.ns),
    )


def _crypto_bar(record: Bar, stamp: Callable[[int], Stamp]) -> _CryptoBarMessage:
    average = record.turnover / record.volume if record.volume else record.close
    return _CRYPTO_BARS[record.kind](
        record.symbol,
        record.open / COIN_UNIT,
        record.high / COIN_UNIT,
        record.low / COIN_UNIT,
        record.close / COIN_UNIT,
        record.volume / COIN_UNIT,
        round(average / COIN_UNIT, 9),
        record.trades,
        stamp(record.ns),
    )


def _option_trade(record: Trade, stamp: Callable[[int], Stamp]) -> _OptionTradeMessage:
    return _OptionTradeMessage(
        record.symbol,
        stamp(record.ns),
        record.price / PRICE_UNIT,
        record.size,
        record.exchange,
        "".join(record.conditions),
    )


def _option_quote(record: Quote, stamp: Callable[[int], Stamp]) -> _OptionQuoteMessage:
    return _OptionQuoteMessage(
        record.symbol,
        stamp(record.ns),
        record.bid_exchange,
        record.bid / PRICE_UNIT,
        record.bid_size,
        record.ask_exchange,
        record.ask / PRICE_UNIT,
        record.ask_size,
        "".join(record.conditions),
    )


_BARS = {"b": _BarMessage, "u": _UpdatedBarMessage, "d": _DayBarMessage}
_CRYPTO_BARS = {"b": _CryptoBarMessage, "u": _CryptoUpdatedBarMessage, "d": _CryptoDayBarMessage}
WIRE: dict[type, Callable[[Any, Callable[[int], Stamp]], Any]] = {
    Trade: _trade,
    Quote: _quote,
    Bar: _bar,
    CryptoTrade: _crypto_trade,
    CryptoQuote: _crypto_quote,
    CryptoBar: _crypto_bar,
    OptionTrade: _option_trade,
    OptionQuote: _option_quote,
}
"""The message of a record, by the record's very type."""
