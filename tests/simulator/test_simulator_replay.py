"""Replays of tick files: every row, in order, with its own time and exact price."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from simulator_clients import MSGPACK, Client, Start, eventually, market, rest_of, write_ticks

from alpaca_broker.simulator import Simulator, SimulatorOptions, TickFileError

TRADES = {"trades": ["SPY", "IBM"]}
# 09:30:00.000, 09:30:00.464, 09:30:59.999 and 09:31:00 in New York on 2013-10-07 (UTC-4).
SPY = [
    "34200000,1674100,100,P,20002000,0",
    "34200464,1674101,1,D,1,1",
    "34259999,1670000,200,K,0,0",
    "34260000,1680000,300,T,0,0",
]
IBM = ["34200000,1815200,283,P,20002020,0", "34200500,1818000,500,P,2000,0"]
EXPECTED = [
    ("SPY", 1, "P", "167.41", 100, "2013-10-07T13:30:00Z", "B"),
    ("IBM", 1, "P", "181.52", 283, "2013-10-07T13:30:00Z", "A"),
    ("SPY", 2, "D", "167.4101", 1, "2013-10-07T13:30:00.464Z", "B"),
    ("IBM", 2, "P", "181.8", 500, "2013-10-07T13:30:00.5Z", "A"),
    ("SPY", 3, "K", "167.0", 200, "2013-10-07T13:30:59.999Z", "B"),
    ("SPY", 4, "T", "168.0", 300, "2013-10-07T13:31:00Z", "B"),
]


@pytest.fixture
def ticks(tmp_path: Path) -> list[Path]:
    return [
        write_ticks(tmp_path, "spy_20131007_trade.zip", SPY),
        write_ticks(tmp_path, "ibm_20131007_trade.zip", IBM),
    ]


async def trades(client: Client, count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while len(found) < count:
        found += [message for message in await client.receive() if message["T"] == "t"]
    return found


def shown(trade: dict[str, Any]) -> tuple[Any, ...]:
    assert trade["c"] == ["@"]
    return tuple(trade[key] for key in "Sixpstz")


async def test_every_row_is_sent_exactly(start: Start, ticks: list[Path]) -> None:
    """Ids are row numbers, prices exact, times UTC, suspicious rows included."""
    simulator = await start(ticks=ticks, speed="max")
    async with market(simulator) as client:
        await client.ask({"action": "subscribe"} | TRADES)
        found = [shown(trade) for trade in await trades(client, 6)]
        assert found == [(s, i, x, float(p), *rest) for s, i, x, p, *rest in EXPECTED]
        await simulator.replay_finished.wait()
    assert simulator.sent == {"SPY": 4, "IBM": 2}


async def test_json_prices_have_exact_digits(start: Start, ticks: list[Path]) -> None:
    """No floating-point residue in the text."""
    simulator = await start(ticks=ticks, speed="max")
    async with market(simulator) as client:
        await client.ask({"action": "subscribe", "trades": ["*"]})
        text = ""
        while "IBM" not in text:
            text += (await client.frame()).data
        assert '"p":167.41,' in text
        assert '"p":167.4101,' in text
        assert '"p":181.52,' in text


async def test_msgpack_carries_the_same(start: Start, ticks: list[Path]) -> None:
    """With extension timestamps instead of texts."""
    simulator = await start(ticks=ticks, speed="max")
    async with market(simulator, headers=MSGPACK) as client:
        await client.ask({"action": "subscribe"} | TRADES)
        found = await trades(client, 6)
        assert [trade["p"] for trade in found] == [float(row[3]) for row in EXPECTED]
        times = [trade["t"].isoformat().replace("000+00:00", "Z") for trade in found]
        assert times[2] == "2013-10-07T13:30:00.464Z"


async def test_full_speed_waits_for_a_complete_subscription(
    start: Start, ticks: list[Path]
) -> None:
    """Nothing is sent before one session has subscribed to every symbol."""
    simulator = await start(ticks=ticks, speed="max")
    async with market(simulator) as part, market(simulator, "/v2/sip") as whole:
        await part.ask({"action": "subscribe", "trades": ["SPY"]})
        await whole.ask({"action": "subscribe", "trades": ["IBM"]})
        await asyncio.sleep(0.03)
        assert simulator.sent.total() == 0
        await whole.ask({"action": "subscribe", "trades": ["SPY"]})
        assert len(await trades(whole, 6)) == 6
        assert [t["i"] for t in await trades(part, 4)] == [1, 2, 3, 4]
        await eventually(simulator.replay_finished.is_set)


async def test_full_speed_pauses_while_nobody_takes_everything(
    start: Start, tmp_path: Path
) -> None:
    """It goes on when a session is complete again, without sending a row twice."""
    rows = [f"{34200000 + n},{10000 + n},1,Q,0,0" for n in range(50_000)]
    path = write_ticks(tmp_path, "aaa_20131007_trade.zip", rows)
    simulator = await start(ticks=[path], speed="max", batch=10)
    ids: list[int] = []
    async with market(simulator) as client:
        await client.ask({"action": "subscribe", "trades": ["AAA"]})
        ids += [trade["i"] for trade in await trades(client, 100)]
        simulator.cut("market")
    await eventually(lambda: simulator.stats.market_open == 0)
    sent = simulator.sent.total()
    assert 100 <= sent < 50_000
    await asyncio.sleep(0.03)
    assert simulator.sent.total() == sent
    async with market(simulator) as client:
        await client.ask({"action": "subscribe", "trades": ["AAA"]})
        rest = [trade["i"] for trade in await trades(client, 50_000 - sent)]
    assert rest == list(range(sent + 1, 50_001))
    assert ids == list(range(1, len(ids) + 1))


async def test_a_slow_client_loses_nothing_in_a_replay(start: Start, tmp_path: Path) -> None:
    """The replay waits for it instead of cutting it."""
    rows = [f"{34200000 + n},{10000 + n},1,Q,0,0" for n in range(20_000)]
    path = write_ticks(tmp_path, "aaa_20131007_trade.zip", rows)
    simulator = await start(ticks=[path], speed="max", send_limit_bytes=64 * 1024)
    async with market(simulator) as client:
        await client.ask({"action": "subscribe", "trades": ["AAA"]})
        ids: list[int] = []
        while len(ids) < 20_000:
            ids += [trade["i"] for trade in await trades(client, 1)]
            await asyncio.sleep(0.001 if len(ids) % 500 < 50 else 0)
    assert ids == list(range(1, 20_001))
    assert simulator.stats.slow_clients == 0


async def test_frames_hold_at_most_a_batch(start: Start, ticks: list[Path]) -> None:
    """And never span a minute, so that bars come in between."""
    simulator = await start(ticks=ticks, speed="max", batch=2)
    async with market(simulator) as client:
        await client.ask({"action": "subscribe", "trades": ["*"], "bars": ["SPY"]})
        frames = [await client.receive() for _ in range(6)]
        kinds = [[message["T"] for message in frame] for frame in frames]
        assert kinds == [["t", "t"], ["t", "t"], ["t"], ["b"], ["t"], ["b"]]


async def test_minute_and_day_bars_are_built_from_the_trades(
    start: Start, ticks: list[Path]
) -> None:
    """Open, high, low, close, volume, average and count of each minute."""
    simulator = await start(ticks=ticks, speed="max")
    async with market(simulator) as client:
        request = {"action": "subscribe", "trades": ["*"], "bars": ["SPY"], "dailyBars": ["SPY"]}
        await client.ask(request)
        first, day = await client.receive_type("b"), await client.receive_type("d")
    low, total = 167.0, 167.41 * 100 + 167.4101 + 167.0 * 200
    assert first == {
        **{"T": "b", "S": "SPY", "o": 167.41, "h": 167.4101, "l": low, "c": 167.0, "v": 301},
        **{"vw": pytest.approx(total / 301, abs=1e-6), "n": 3, "t": "2013-10-07T13:30:00Z"},
    }
    assert day["n"] >= 3
    assert day["t"] == "2013-10-07T04:00:00Z"


async def test_quotes_carry_the_unchanged_side_forward(start: Start, tmp_path: Path) -> None:
    """A zero in the file means that this side stayed."""
    lines = [
        "34200000,0,0,1836300,100,Q,1,0",
        "34200241,1800100,300,0,0,P,1,0",
        "34200300,1800200,400,1836400,200,Z,1,1",
    ]
    path = write_ticks(tmp_path, "ibm_20131007_quote.zip", lines)
    simulator = await start(ticks=[path], speed="max")
    async with market(simulator) as client:
        await client.ask({"action": "subscribe", "quotes": ["IBM"]})
        found: list[dict[str, Any]] = []
        while len(found) < 3:
            found += await client.receive()
    keys = ("bx", "bp", "bs", "ax", "ap", "as")
    assert [tuple(quote[key] for key in keys) for quote in found] == [
        ("", 0.0, 0, "Q", 183.63, 100),
        ("P", 180.01, 300, "Q", 183.63, 100),
        ("Z", 180.02, 400, "Z", 183.64, 200),
    ]


async def test_paced_replay_keeps_the_files_distances(start: Start, ticks: list[Path]) -> None:
    """At 10 times the speed 464 ms take about 46 ms; it begins with any subscription."""
    simulator = await start(ticks=ticks, speed="10")
    loop = asyncio.get_running_loop()
    async with market(simulator) as client:
        began = loop.time()
        await client.ask({"action": "subscribe", "trades": ["SPY"]})
        first, second = await trades(client, 2)
        assert (first["i"], second["i"]) == (1, 2)
        assert loop.time() - began > 0.04
        assert simulator.sent["SPY"] == 2
        assert not simulator.replay_finished.is_set()


async def test_a_replay_survives_stop_and_start(start: Start, tmp_path: Path) -> None:
    """It goes on where it was, on the same port."""
    rows = [f"{34200000 + n},{10000 + n},1,Q,0,0" for n in range(50_000)]
    path = write_ticks(tmp_path, "aaa_20131007_trade.zip", rows)
    simulator = await start(ticks=[path], speed="max")
    async with market(simulator) as client:
        await client.ask({"action": "subscribe", "trades": ["AAA"]})
        await trades(client, 100)
        await simulator.stop()
    sent = simulator.sent.total()
    assert sent < 50_000
    await simulator.start()
    async with market(simulator) as client:
        await client.ask({"action": "subscribe", "trades": ["AAA"]})
        (first,) = (await trades(client, 1))[:1]
        assert first["i"] == sent + 1


@pytest.mark.parametrize(
    ("lines", "line"),
    [
        (["1,2,3,P,0,0", "1,2,3,P,0"], 2),
        (["x,2,3,P,0,0"], 1),
        (["-1,2,3,P,0,0"], 1),
        (["86400000,2,3,P,0,0"], 1),
        (["1,2,3,P,0,0", "", "1,2,3,P,0,0"], 2),
    ],
)
def test_bad_rows_name_file_and_line(tmp_path: Path, lines: list[str], line: int) -> None:
    """So that one can look at them."""
    path = write_ticks(tmp_path, "spy_20131007_trade.zip", lines)
    with pytest.raises(TickFileError) as caught:
        Simulator(SimulatorOptions(ticks=[path]))
    assert (caught.value.path, caught.value.line) == (path, line)
    assert f"{path}, line {line}: bad trade row" in str(caught.value)


@pytest.mark.parametrize("name", ["spy.zip", "spy_20131307_trade.zip", "spy_20131007_bars.zip"])
def test_bad_names_are_refused(tmp_path: Path, name: str) -> None:
    """Symbol, date and kind come from the name."""
    path = write_ticks(tmp_path, name, SPY)
    with pytest.raises(TickFileError, match="name"):
        Simulator(SimulatorOptions(ticks=[path]))


def test_broken_and_missing_files_are_refused(tmp_path: Path) -> None:
    """With the path in the error."""
    path = tmp_path / "spy_20131007_trade.zip"
    with pytest.raises(TickFileError, match=r"spy_20131007_trade\.zip: No such file"):
        Simulator(SimulatorOptions(ticks=[path]))
    write_ticks(tmp_path, path.name, [])
    with pytest.raises(TickFileError, match="holds no rows"):
        Simulator(SimulatorOptions(ticks=[path]))
    path.write_bytes(b"PK not really")
    with pytest.raises(TickFileError, match="not a readable zip"):
        Simulator(SimulatorOptions(ticks=[path]))


async def test_rest_knows_what_was_replayed(start: Start, ticks: list[Path]) -> None:
    """Latest prices and history follow the replay."""
    simulator = await start(ticks=ticks, speed="max")
    async with market(simulator) as client, rest_of(simulator) as rest:
        await client.ask({"action": "subscribe", "trades": ["*"]})
        await simulator.replay_finished.wait()
        _, latest = await rest("GET", "/v2/stocks/SPY/trades/latest")
        assert latest["trade"]["p"] == 168.0
        path = "/v2/stocks/trades?symbols=SPY,IBM&limit=4&start=2013-10-07&sort=asc"
        _, first = await rest("GET", path)
        _, second = await rest("GET", f"{path}&page_token={first['next_page_token']}")
        assert [t["i"] for t in first["trades"]["IBM"]] == [1, 2]
        assert [t["i"] for t in first["trades"]["SPY"]] == [1, 2]
        assert [t["i"] for t in second["trades"]["SPY"]] == [3, 4]
        assert second["next_page_token"] is None
        _, bars = await rest("GET", "/v2/stocks/SPY/bars?timeframe=1Min")
        assert [bar["n"] for bar in bars["bars"]] == [3, 1]
