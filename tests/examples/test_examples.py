"""The programs in examples/, each in a process of its own, against a real broker."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from support import Rig, buy, eventually

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PROGRAMS = ["price_bot.py", "order_bot.py", "asyncio_bot.py", "plain_redis_bot.py"]
PROGRAMS += ["market_data_bot.py", "redis_cli_bot.sh"]
HAS_REDIS_CLI = shutil.which("redis-cli") is not None


class Program:
    """A running example."""

    def __init__(self, folder: Path, rig: Rig, name: str, arguments: tuple[str, ...]) -> None:
        program = ["bash"] if name.endswith(".sh") else [sys.executable, "-W", "error"]
        places = {"REDIS_PORT": str(rig.valkey.port), "CHANNEL_PREFIX": rig.channels.prefix}
        self._path = folder / f"{name}.{len(list(folder.iterdir()))}.out"
        with self._path.open("wb") as out:
            self.process = subprocess.Popen(
                [*program, str(EXAMPLES / name), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=os.environ | places,
            )

    @property
    def said(self) -> str:
        """All of its output so far."""
        return self._path.read_text()

    def says(self, pattern: str) -> str:
        """Wait for a line that matches; returns its first group, or all of it."""

        def found() -> re.Match[str] | None:
            match = re.search(pattern, self.said, re.MULTILINE)
            assert match or self.process.poll() is None, f"it ended: {self.said}"
            return match

        match = eventually(found, why=f"{pattern} did not come: {self.said}")
        assert match is not None
        return str(match[match.lastindex or 0])

    def ends(self, number: signal.Signals = signal.SIGINT) -> None:
        """Ctrl-C ends it with 0, and without a word of complaint."""
        self.process.send_signal(number)
        assert self.process.wait(90) == 0, self.said
        assert "Traceback" not in self.said


Start = Callable[..., Program]


@pytest.fixture
def start(tmp_path: Path, rig: Rig) -> Iterator[Start]:
    """Starts examples in an empty folder; none outlives the test."""
    programs: list[Program] = []

    def start_one(name: str, *arguments: str) -> Program:
        programs.append(Program(tmp_path, rig, name, arguments))
        return programs[-1]

    yield start_one
    for program in programs:
        if program.process.poll() is None:
            program.process.kill()
            program.process.wait(60)


def bots(rig: Rig) -> set[str]:
    """Who is registered."""
    with redis.Redis(port=rig.valkey.port, decode_responses=True) as client:
        return set(client.hkeys(rig.channels.registry))


def test_the_price_bot_shows_fresh_prices(rig: Rig, start: Start) -> None:
    """Registered and ready, then prices; a cut shows as something missed; Ctrl-C unregisters."""
    program = start("price_bot.py", "AAPL", "MSFT")
    program.says("^ready; refused: nothing$")
    program.says(r"^AAPL \d+\.\d+ fresh \(number \d+\)$")
    program.says(r"^MSFT \d+\.\d+ fresh")
    assert bots(rig) == {"example-price-bot"}
    rig.simulator.call(rig.simulator.simulator.cut, "market")
    program.says("^missed: AAPL, MSFT: ")
    program.ends()
    eventually(lambda: bots(rig) == set())


def test_the_order_bot_survives_kill_9(rig: Rig, start: Start) -> None:
    """What happened while it was dead comes first, each event once, and then what is live."""
    (account_id,) = rig.broker.status().accounts
    first = start("order_bot.py", "--state", "place.json")
    first.says(f"^account {account_id}, after number none yet$")
    buy(rig.simulator.url)
    first.says(r"^number 2: fill \S+ filled 1$")
    eventually(lambda: '"since": 2' in (first._path.parent / "place.json").read_text())
    first.process.kill()
    first.process.wait(60)
    missed = buy(rig.simulator.url, qty=3)["id"]
    with rig.bot() as bot:
        eventually(lambda: bot._client.xlen(rig.channels.journal(account_id)) == 4)
    second = start("order_bot.py", "--state", "place.json")
    second.says(f"^number 4: fill {missed} filled 3$")
    live = buy(rig.simulator.url)["id"]
    second.says(f"^number 6: fill {live} filled 1$")
    assert re.findall(r"^number (\d+)", second.said, re.MULTILINE) == ["3", "4", "5", "6"]
    second.ends()


def test_the_market_data_bot_shows_every_feed(rig: Rig, start: Start) -> None:
    """Of each its own data; a cut of one feed, and what came back of it."""
    program = start("market_data_bot.py", "AAPL", "BTC/USD")
    program.says("^ready; refused: nothing$")
    program.says(r"^AAPL \d+\.\d+ to \d+\.\d+$")
    program.says(r"^BTC/USD \d+\.?\d* to \d+\.?\d*$")
    simulator = rig.simulator.simulator
    rig.simulator.call(simulator.data.publish, ["TSLA"], "Up")
    program.says("^news of TSLA: Up$")
    bar = {"T": "b", "S": "AAPL", "o": 1, "h": 2, "l": 1, "c": 1.5, "v": 1, "vw": 1, "n": 1}
    rig.simulator.call(simulator.emit, "iex", bar)
    program.says(r"^AAPL closed at 1\.5, 1Min$")

    def cut_amid_trades() -> None:
        simulator.cut("crypto/us")
        simulator.emit("crypto/us", {"T": "t", "S": "BTC/USD", "p": 64_000.5, "s": 1})

    rig.simulator.call(cut_amid_trades)
    program.says("^missed: BTC/USD: the market-data link ended")
    program.says(r"^BTC/USD \d+\.\d+ \(backfill\)$")
    program.says("^recovered: True: ")
    assert "missed: AAPL: the market-data link" not in program.said
    program.ends()


def test_the_asyncio_bot_shows_prices_and_orders(rig: Rig, start: Start) -> None:
    """Side by side; an order that was open before comes first."""
    far = buy(rig.simulator.url, type="limit", limit_price="1.00")["id"]
    (account_id,) = rig.broker.status().accounts
    with rig.bot() as bot:
        eventually(lambda: bot._client.hlen(rig.channels.open_orders(account_id)))
    program = start("asyncio_bot.py", "AAPL")
    program.says(r"^AAPL \d+\.\d+$")
    program.says(f"^order {far} new$")
    near = buy(rig.simulator.url)["id"]
    program.says(f"^order {near} filled$")
    program.ends()


def test_the_plain_bot_tells_holes_and_silence(rig: Rig, start: Start) -> None:
    """It needs nothing of ours: registers with a lease, counts, and watches the heartbeat."""
    program = start("plain_redis_bot.py", "AAPL")
    number = int(program.says(r"^AAPL \d+\.\d+ \(number (\d+)\)$"))
    program.says(rf"^AAPL \d+\.\d+ \(number {number + 20}\)$")
    assert "missed" not in program.said
    with redis.Redis(port=rig.valkey.port, decode_responses=True) as client:
        kept = client.hget(rig.channels.registry, "example-plain-bot")
    assert json.loads(kept)["until"] > 0
    assert rig.broker.stop()
    program.says("^stale: no heartbeat$")
    program.ends()


@pytest.mark.skipif(not HAS_REDIS_CLI, reason="redis-cli is not installed here")
def test_the_redis_cli_bot_shows_messages(rig: Rig, start: Start) -> None:
    """Whole messages, one a line; it renews nothing that it does not want any more."""
    program = start("redis_cli_bot.sh", "MSFT")
    message = json.loads(program.says(r"^\{.*\}$"))
    assert (message["type"], message["symbol"]) == ("price_update", "MSFT")
    assert bots(rig) == {"example-cli-bot"}
    program.ends()
    eventually(lambda: bots(rig) == set())


def test_each_ends_by_itself(start: Start) -> None:
    """`--seconds` is there for trying out; the exit code is 0."""
    programs = [
        start(name, "--seconds", "1") for name in PROGRAMS if HAS_REDIS_CLI or ".sh" not in name
    ]
    for program in programs:
        assert program.process.wait(120) == 0, program.said
        assert "Traceback" not in program.said


def test_each_is_short_and_in_the_list() -> None:
    """Below 60 lines, with how to run it in its first lines, and a line in the README."""
    readme = (EXAMPLES / "README.md").read_text()
    found = {path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".sh")}
    assert found == set(PROGRAMS)
    for name in PROGRAMS:
        lines = (EXAMPLES / name).read_text().splitlines()
        assert len(lines) < 60, name
        assert any(f"examples/{name}" in line for line in lines[:6]), name
        assert f"[{name}]({name})" in readme
