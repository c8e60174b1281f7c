"""Messages as tests write them, and the records behind them.

Owns the way from a message to a record, and the messages that nobody subscribes to as such:
corrections, cancellations, halts, price bands [D RTS]. Pure: time is an argument.
"""

from collections.abc import Mapping
from typing import Any

from alpaca_broker.simulator.codec import nanoseconds, rfc3339
from alpaca_broker.simulator.feeds import Kind
from alpaca_broker.simulator.market import (
    COIN_UNIT,
    PRICE_UNIT,
    CryptoQuote,
    CryptoTrade,
    OptionQuote,
    OptionTrade,
    Quote,
    Trade,
    tape_of,
)

HALTED = ("H", "Trading Halt", "T12", "Trading Halted; For information requested by NASDAQ")
RESUMED = ("T", "Trading Resumption", "", "")
_BAND = 20  # a twentieth of the price to both sides, as for large stocks


def record_of(message: Mapping[str, Any], kind: Kind) -> Trade | Quote | None:
    """The trade or quote a ready-made message speaks of, None if of something else.

    Raises `ValueError`, `TypeError` or `KeyError` when it does so badly.
    """
    if message["T"] == "t":
        return trade_of(message, kind)
    return _quote_of(message, kind) if message["T"] == "q" else None


def trade_of(message: Mapping[str, Any], kind: Kind = Kind.STOCKS) -> Trade:
    """The trade of a `t`. Raises `ValueError`, `TypeError` or `KeyError`."""
    symbol, ns, number = str(message["S"]), nanoseconds(message["t"]), int(message.get("i", 0))
    price, size = float(message["p"]), message.get("s", 1)
    if kind is Kind.CRYPTO:
        units = (round(price * COIN_UNIT), round(size * COIN_UNIT))
        taker = str(message.get("tks", "B"))
        return CryptoTrade(symbol, ns, number, "", *units, "", conditions=(), taker=taker)
    exchange, units = str(message.get("x", "V")), (round(price * PRICE_UNIT), int(size))
    if kind is Kind.OPTIONS:
        return OptionTrade(symbol, ns, number, exchange, *units, "", (str(message.get("c", "")),))
    tape, conditions = str(message.get("z", tape_of(symbol))), message.get("c", ("@",))
    return Trade(symbol, ns, number, exchange, *units, tape, tuple(map(str, conditions or ())))


def correction(trade: Trade, corrected: Trade, now_ns: int) -> dict[str, Any]:
    """The `c` that replaces one trade by another."""
    return {
        **{"T": "c", "S": trade.symbol, "x": trade.exchange},
        **{"oi": trade.id, "op": trade.price / PRICE_UNIT, "os": trade.size},
        **{"oc": list(trade.conditions), "ci": corrected.id, "cp": corrected.price / PRICE_UNIT},
        **{"cs": corrected.size, "cc": list(corrected.conditions), "z": trade.tape},
        "t": rfc3339(now_ns),
    }


def cancellation(trade: Trade, action: str, now_ns: int) -> dict[str, Any]:
    """The `x` that takes a trade back: `C` cancelled, `E` an error."""
    return {
        **{"T": "x", "S": trade.symbol, "i": trade.id, "x": trade.exchange},
        **{"p": trade.price / PRICE_UNIT, "s": trade.size, "a": action, "z": trade.tape},
        "t": rfc3339(now_ns),
    }


def status(symbol: str, texts: tuple[str, str, str, str], now_ns: int) -> dict[str, Any]:
    """An `s`: status code and message, reason code and message."""
    values = dict(zip(("sc", "sm", "rc", "rm"), texts, strict=True))
    return {"T": "s", "S": symbol} | values | {"z": tape_of(symbol), "t": rfc3339(now_ns)}


def band(
    symbol: str, price: int, now_ns: int, up: float | None = None, down: float | None = None
) -> dict[str, Any]:
    """An `l`: the limits up and down, a twentieth around the price unless given."""
    cent = PRICE_UNIT // 100
    width = max(cent, price // _BAND // cent * cent)
    return {
        **{"T": "l", "S": symbol, "u": (price + width) / PRICE_UNIT if up is None else up},
        **{"d": max(cent, price - width) / PRICE_UNIT if down is None else down},
        **{"i": "B", "z": tape_of(symbol), "t": rfc3339(now_ns)},
    }


def _quote_of(message: Mapping[str, Any], kind: Kind) -> Quote:
    symbol, ns = str(message["S"]), nanoseconds(message["t"])
    bid, ask = float(message["bp"]), float(message["ap"])
    sizes = float(message.get("bs", 1)), float(message.get("as", 1))
    exchanges = str(message.get("bx", "V")), str(message.get("ax", "V"))
    if kind is Kind.CRYPTO:
        bid, ask, *lots = (round(value * COIN_UNIT) for value in (bid, ask, *sizes))
        return CryptoQuote(symbol, ns, "", bid, lots[0], "", ask, lots[1], "", conditions=())
    shape = OptionQuote if kind is Kind.OPTIONS else Quote
    conditions = message.get("c", ("R",)) or ()
    return shape(
        *(symbol, ns, exchanges[0], round(bid * PRICE_UNIT), int(sizes[0])),
        *(exchanges[1], round(ask * PRICE_UNIT), int(sizes[1])),
        tape="" if kind is Kind.OPTIONS else str(message.get("z", tape_of(symbol))),
        conditions=(conditions,) if isinstance(conditions, str) else tuple(conditions),
    )
