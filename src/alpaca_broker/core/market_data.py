"""Alpaca's market data as values, with Alpaca's own short names.

Owns the shape of every message that carries data. What is not needed is not read; what may be
absent may be null.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

# What is read can always be written again: no time without a zone, no integer over 64 bits.
Instant = Annotated[datetime, Meta(tz=True)]
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


Symbol = Annotated[str, Meta(min_length=1, max_length=64)]
Finite = Annotated[float, Meta(ge=-1e300, le=1e300)]  # MessagePack could carry NaN
Number = Int64 | Finite


class Trade(Struct, tag_field="T", tag="t", gc=False):
    """One print: `S` symbol, `p` price, `s` size, `x` exchange, `c` conditions, `i` id."""

    S: Symbol
    p: float
    t: Instant
    s: Int64 | float | None = None
    x: str | None = None
    c: list[str] | None = None
    i: Int64 | None = None


class Quote(Struct, tag_field="T", tag="q", gc=False):
    """The best bid and ask: price, size and exchange of each; `c` conditions."""

    S: Symbol
    t: Instant
    bp: float | None = None
    bs: Int64 | float | None = None
    bx: str | None = None
    ap: float | None = None
    as_: Int64 | float | None = msgspec.field(default=None, name="as")
    ax: str | None = None
    c: list[str] | None = None


class OptionTrade(Struct, tag_field="T", tag="t", gc=False):
    """A print of an option: without an id, and with one condition."""

    S: Symbol
    p: Finite
    t: Instant
    s: Number | None = None
    x: str | None = None
    condition: str | list[str] | None = msgspec.field(default=None, name="c")

    @property
    def c(self) -> list[str] | None:
        """Its condition, as stock trades have theirs."""
        return [self.condition] if isinstance(self.condition, str) else self.condition

    @property
    def i(self) -> None:
        """Options have no trade ids."""


class OptionQuote(Struct, tag_field="T", tag="q", gc=False):
    """The best bid and ask of an option, with one condition."""

    S: Symbol
    t: Instant
    bp: Finite | None = None
    bs: Number | None = None
    bx: str | None = None
    ap: Finite | None = None
    as_: Number | None = msgspec.field(default=None, name="as")
    ax: str | None = None
    condition: str | list[str] | None = msgspec.field(default=None, name="c")

    @property
    def c(self) -> list[str] | None:
        """Its condition, as stock quotes have theirs."""
        return [self.condition] if isinstance(self.condition, str) else self.condition


class Bar(Struct, tag_field="T", tag="b", gc=False):
    """A minute bar: `v` volume, `vw` its average price, `n` how many trades."""

    S: Symbol
    t: Instant
    o: float
    h: float
    l: float  # noqa: E741 - Alpaca's name
    c: float
    v: Int64 | float | None = None
    vw: float | None = None
    n: Int64 | None = None


class UpdatedBar(Bar, tag="u", gc=False):
    """A minute bar that was sent before, and that a late trade changed."""


class DailyBar(Bar, tag="d", gc=False):
    """The day's bar so far."""


class HaltStatus(Struct, tag_field="T", tag="s", gc=False):
    """Halted, resumed, …: `sc`, `sm` the status' code and text, `rc`, `rm` the reason's."""

    S: Symbol
    t: Instant
    sc: str | None = None
    sm: str | None = None
    rc: str | None = None
    rm: str | None = None


class Band(Struct, tag_field="T", tag="l", gc=False):
    """The limits between which it may trade (LULD): `u` up, `d` down, `i` indicator."""

    S: Symbol
    t: Instant
    u: float | None = None
    d: float | None = None
    i: str | None = None


class Correction(Struct, tag_field="T", tag="c", gc=False):
    """A trade that was reported wrongly: `oi`, `op`, … as it was, `ci`, `cp`, … as it is."""

    S: Symbol
    t: Instant
    x: str | None = None
    oi: Int64 | None = None
    op: float | None = None
    os: Int64 | float | None = None
    oc: list[str] | None = None
    ci: Int64 | None = None
    cp: float | None = None
    cs: Int64 | float | None = None
    cc: list[str] | None = None


class Cancel(Struct, tag_field="T", tag="x", gc=False):
    """A trade that is taken back; `a` says whether it was cancelled (C) or an error (E)."""

    S: Symbol
    t: Instant
    i: Int64 | None = None
    p: float | None = None
    s: Int64 | float | None = None
    x: str | None = None
    a: str | None = None


class Level(Struct, gc=False):
    """A price of an order book, and how much is there; 0 takes the level away."""

    p: float
    s: Int64 | float


class Orderbook(Struct, tag_field="T", tag="o", gc=False):
    """Changes of a book; with `r` all of it, anew."""

    S: Symbol
    t: Instant
    b: list[Level] | None = None
    a: list[Level] | None = None
    r: bool = False


class News(Struct, tag_field="T", tag="n", gc=False):
    """An article, with the symbols that it is about."""

    id: Int64
    created_at: Instant
    updated_at: Instant | None = None
    headline: str | None = None
    summary: str | None = None
    author: str | None = None
    url: str | None = None
    content: str | None = None
    source: str | None = None
    symbols: list[str] | None = None


# Beside trades, of which each family of feeds has its own kind.
StockData = (
    Quote | Bar | UpdatedBar | DailyBar | HaltStatus | Band | Correction | Cancel | Orderbook | News
)
Data = StockData | OptionQuote
