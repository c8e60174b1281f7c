"""Tick files: one day of one symbol's real trades or quotes, as CSV in a zip.

Owns the file format. Invariant: every row of a file becomes exactly one record, in file order;
suspicious rows are rows too. It decides nothing about when records are sent.
"""

import io
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from operator import attrgetter
from pathlib import Path
from zoneinfo import ZoneInfo

from alpaca_broker.simulator.market import Quote, Trade, tape_of

_NAME = re.compile(r"(?P<symbol>[A-Za-z.]+)_(?P<date>\d{8})_(?P<kind>trade|quote)\.zip")
_MS = 10**6
_Row = Callable[[int, list[str]], Trade | Quote]
_DAY_MS = 24 * 3600 * 1000
_FILE_LIMIT_BYTES = 1024**3


class TickFileError(ValueError):
    """A tick file that cannot be read; says which file, and which line where there is one."""

    def __init__(self, path: Path, problem: str, line: int | None = None) -> None:
        super().__init__(path, problem, line)
        self.path, self.problem, self.line = path, problem, line

    def __str__(self) -> str:
        place = f"{self.path}, line {self.line}" if self.line else f"{self.path}"
        return f"{place}: {self.problem}"


def load(paths: Sequence[Path]) -> list[Trade | Quote]:
    """All files' records merged by time; equal times keep the order of the files.

    Raises `TickFileError`.
    """
    records: list[Trade | Quote] = []
    for path in paths:
        records.extend(read(path))
    records.sort(key=attrgetter("ns"))  # stable
    return records


def read(path: Path) -> Iterator[Trade | Quote]:
    """The records of one file, in file order. Raises `TickFileError`."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise TickFileError(path, "name is not like spy_20131007_trade.zip")
    try:
        midnight = datetime.strptime(match["date"], "%Y%m%d")
    except ValueError as error:
        raise TickFileError(path, f"name holds no date: {match['date']}") from error
    symbol = match["symbol"].upper()
    midnight_ns = int(midnight.replace(tzinfo=ZoneInfo("America/New_York")).timestamp()) * 10**9
    make_row = _trade_row if match["kind"] == "trade" else _quote_row
    row = make_row(symbol, midnight_ns)
    number = 0
    for number, line in enumerate(_lines(path), 1):
        try:
            yield row(number, line.rstrip("\r\n").split(","))
        except ValueError as error:
            raise TickFileError(path, f"bad {match['kind']} row: {error}", number) from error
    if not number:
        raise TickFileError(path, "holds no rows")


def _lines(path: Path) -> Iterator[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if len(names) != 1:
                raise TickFileError(path, f"holds {len(names)} files instead of one")
            if archive.getinfo(names[0]).file_size > _FILE_LIMIT_BYTES:
                raise TickFileError(path, "holds more than 1 GiB")
            with archive.open(names[0]) as member:
                yield from io.TextIOWrapper(member, encoding="ascii")
    except UnicodeDecodeError as error:
        raise TickFileError(path, "is not ASCII text") from error
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise TickFileError(path, f"is not a readable zip: {error}") from error
    except OSError as error:
        raise TickFileError(path, error.strerror or str(error)) from error


def _trade_row(symbol: str, midnight_ns: int) -> _Row:
    tape = tape_of(symbol)

    def row(number: int, cells: list[str]) -> Trade:
        ms, price, size, exchange, _, _ = cells
        ns = midnight_ns + _milliseconds(ms) * _MS
        return Trade(symbol, ns, number, exchange, _count(price), _count(size), tape)

    return row


def _quote_row(symbol: str, midnight_ns: int) -> _Row:
    tape = tape_of(symbol)
    bid: tuple[str, int, int] = ("", 0, 0)
    ask = bid

    def row(number: int, cells: list[str]) -> Quote:
        nonlocal bid, ask
        ms, bid_price, bid_size, ask_price, ask_size, exchange, _, _ = cells
        ns = midnight_ns + _milliseconds(ms) * _MS
        bid_now = (exchange, _count(bid_price), _count(bid_size))
        ask_now = (exchange, _count(ask_price), _count(ask_size))
        bid = bid_now if bid_now[1] else bid  # a price of 0: that side is unchanged
        ask = ask_now if ask_now[1] else ask
        return Quote(symbol, ns, *bid, *ask, tape)

    return row


def _milliseconds(text: str) -> int:
    if (value := _count(text)) >= _DAY_MS:
        raise ValueError(f"{value} ms is more than a day")
    return value


def _count(text: str) -> int:
    if (value := int(text)) < 0:
        raise ValueError(f"{value} is negative")
    return value
