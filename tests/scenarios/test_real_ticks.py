"""Real ticks, exactly: every trade of the files reaches a plain subscriber, once and in order."""

from __future__ import annotations

import csv
import io
import json
import re
import time
import zipfile
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import redis
from processes import ROOT, Process, broker_environment, clean_environment
from support import eventually

from alpaca_broker.embedded import EmbeddedRedis
from alpaca_broker.market.trade_frames import PURE_PYTHON

TICKS = ROOT.parent / "shared" / "data" / "ticks"
ROWS = {"SPY": 250_601, "BAC": 88_172, "AIG": 25_351, "IBM": 24_293}

Print = tuple[float, int, float]


def trades_of(path: Path) -> list[Print]:
    """(price, size, epoch seconds) of each row, read by no code of ours."""
    midnight = datetime(2013, 10, 7, tzinfo=ZoneInfo("America/New_York"))
    with zipfile.ZipFile(path) as archive, archive.open(archive.namelist()[0]) as raw:
        rows = list(csv.reader(io.TextIOWrapper(raw, "ascii")))
    base = midnight.timestamp()
    return [(int(p) / 10_000, int(s), base + int(ms) / 1_000) for ms, p, s, *_ in rows]


@pytest.mark.skipif(not TICKS.is_dir(), reason="the tick files are not beside this checkout")
@pytest.mark.parametrize("way", ["compiled", "python"])
@pytest.mark.soak
def test_every_trade_of_the_files_arrives_once_and_in_order(
    own_valkey: EmbeddedRedis, soak: bool, way: str
) -> None:
    """Per symbol the sequence of (price, size, time) equals the file's; all four under --soak."""
    few = ("AIG", "IBM") if way == "compiled" else ("IBM",)
    rows = ROWS if soak else {symbol: ROWS[symbol] for symbol in few}
    files = {s: TICKS / f"{s.lower()}_20131007_trade.zip" for s in rows}
    ticks = [word for path in files.values() for word in ("--ticks", str(path))]
    simulate = Process("simulate", "--port", "0", "--speed", "max", *ticks, env=clean_environment())
    with simulate:
        url = re.search(r"http://[0-9.:]+", simulate.says("http://")).group()  # type: ignore[union-attr]
        pure = {PURE_PYTHON: "1"} if way == "python" else {}
        environment = broker_environment(url, own_valkey.port, PRICES_WHEN_BEHIND="wait", **pure)
        with Process("run", env=environment) as broker:
            got = receive(own_valkey.port, rows)
            assert not [line for line in broker.lines if " ERROR " in line], broker.output
    assert {symbol: len(messages) for symbol, messages in got.items()} == rows
    print(f"{sum(rows.values())} trades")
    for symbol, path in files.items():
        messages = [json.loads(raw) for raw in got[symbol]]
        assert [(m["price"], m["size"], m["timestamp"]) for m in messages] == trades_of(path)
        assert [m["seq"] for m in messages] == list(range(1, rows[symbol] + 1))
        assert {m["symbol"] for m in messages} == {symbol}


def receive(port: int, rows: dict[str, int]) -> dict[str, list[bytes]]:
    """Register, and take every message as plain redis-py gives it."""
    client = redis.Redis(port=port)
    pubsub = client.pubsub(ignore_subscribe_messages=True)
    pubsub.subscribe(*(f"price:{symbol}" for symbol in rows))
    wish = json.dumps({"action": "register", "symbols": list(rows), "bot_id": "ticks"})
    eventually(lambda: client.publish("broker:registration", wish), why="no broker listens")
    got: dict[str, list[bytes]] = {symbol: [] for symbol in rows}
    count, until = 0, time.monotonic() + 240
    while count < sum(rows.values()) and time.monotonic() < until:
        message = pubsub.get_message(timeout=1)
        if message is not None and message["type"] == "message":
            got[message["channel"].decode().removeprefix("price:")].append(message["data"])
            count += 1
    extra = pubsub.get_message(timeout=0.3)
    assert extra is None or extra["type"] != "message", f"one too many: {extra}"
    pubsub.close()
    client.close()
    return got


def test_the_time_zone_of_the_files_is_read_as_written() -> None:
    """14400464 is 04:00:00.464 in New York, which was 08:00 UTC on that day."""
    midnight = datetime(2013, 10, 7, tzinfo=ZoneInfo("America/New_York"))
    assert (midnight + timedelta(hours=4)).timestamp() == 1381132800
