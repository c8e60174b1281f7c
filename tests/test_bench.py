"""The benchmark runs and writes what it should; how fast anything is, is no test's business."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import hiredis
import msgspec
import pytest
from processes import ROOT, clean_environment

from alpaca_broker.core.market_data import Trade
from alpaca_broker.core.wire import MarketDecoder
from bench import report
from bench.figures import Spread, Times, ratios
from bench.frames import TEXT_PLACE, commands, cycle, symbols
from bench.measures import NAMES
from bench.plan import FULL, SHORT, TINY
from bench.plots import svg
from bench.results import Plot, Result
from bench.targets import TARGETS, table

NS = 1_700_000_000_123_456_789


def payload(frame: bytes) -> bytes:
    """What a WebSocket frame of the server holds."""
    return frame[{126: 4, 127: 10}.get(frame[1], 2) :]


@pytest.mark.parametrize("batch", [1, 10, 700])
def test_a_prepared_frame_is_what_the_broker_reads(batch: int) -> None:
    """Every frame holds `batch` trades, each symbol in turn, all of the moment of sending."""
    made, decoder = cycle(symbols(3), batch, packed=False), MarketDecoder()
    frames = [made.stamped(number, NS) for number in range(len(made.frames))]
    assert b"".join(made.blocks(NS)) == b"".join(frames)
    read = [message for frame in frames for message in decoder.decode(payload(frame))]
    assert decoder.malformed == 0
    assert len(read) == made.messages == len(frames) * batch
    trades = [message for message in read if isinstance(message, Trade)]
    assert [trade.S for trade in trades] == [symbols(3)[n % 3] for n in range(len(read))]
    assert {trade.t.timestamp() for trade in trades} == {1_700_000_000.123457}


def test_a_packed_frame_says_the_same_as_a_text_one() -> None:
    """So that no rival gets other trades than the broker."""
    text = msgspec.json.decode(payload(cycle(symbols(2), 10, packed=False).frames[0]))
    packed = msgspec.msgpack.decode(payload(cycle(symbols(2), 10, packed=True).stamped(0, NS)))
    for one, other in zip(text, packed, strict=True):
        assert one.pop("t") == TEXT_PLACE.decode()
        assert abs(other.pop("t").timestamp() - NS / 1e9) < 1e-5
        assert one == other


def test_the_ceiling_s_commands_are_the_broker_s() -> None:
    """PUBLISH of a price update on the symbol's channel; `seq` has no hole in any of them."""
    reader, seen = hiredis.Reader(), dict[str, list[int]]()
    for one in commands(symbols(3), 10, prefix="p:", epoch=7, ns=NS):
        reader.feed(one)
        word, channel, data = reader.gets()
        message = json.loads(data)
        assert (word, message["type"], message["epoch"]) == (b"PUBLISH", "price_update", 7)
        assert channel == f"p:price:{message['symbol']}".encode()
        seen.setdefault(message["symbol"], []).append(message["seq"])
    assert seen == {"AAAA": [1, 2, 3, 4], "AAAB": [1, 2, 3], "AAAC": [1, 2, 3]}


def test_quantiles_are_right_to_one_percent() -> None:
    """Also of distributions that were sent and added up."""
    total = Times()
    for first in (1, 501):
        part = Times.of(number / 1e3 for number in range(first, first + 500))
        total.add(Times.from_json(json.loads(json.dumps(part.as_json()))))
    assert (total.n, total.most) == (1_000, 1.0)
    for share in (0.5, 0.99, 0.999):
        assert total.at(share) == pytest.approx(share, rel=0.011)
    assert total.shares()[-1][1] == 1.0


def test_a_ratio_is_taken_within_a_round() -> None:
    """Not of two medians, which may be of different rounds."""
    assert ratios([10.0, 30.0, 20.0], [1.0, 10.0, 4.0]) == Spread(5.0, 3.0, 10.0, 3)


def test_every_target_names_a_measurement_that_exists() -> None:
    """And is judged in its direction."""
    assert {target.measurement for target in TARGETS} <= set(NAMES)
    figures = {"b10_l1_to_rival": Spread.of([50.0]), "b10_l1_to_ceiling": Spread.of([0.3])}
    rows = table({"throughput": Result(figures=figures)}).rows
    assert [row[-1] for row in rows] == ["reached", "**not reached**"]


def test_a_plot_is_well_formed_and_shows_each_line() -> None:
    """Names are escaped; a plot without lines is no file."""
    lines = {"a & b": [(1.0, 10.0), (10.0, 2_000.0)], "c": [(1.0, 1.0)]}
    for log_y in (False, True):
        drawn = svg(Plot("p", "<t>", "x", "y", lines, log_y))
        root = ElementTree.fromstring(drawn)  # noqa: S314 - our own
        assert len([e for e in root.iter() if e.tag.endswith("polyline")]) == 2
        assert {"<t>", "a & b", "c"} <= {e.text for e in root.iter()}
    assert svg(Plot("p", "t", "x", "y")) == ""


def test_the_modes_measure_the_same_things() -> None:
    """The short mode leaves out rounds, seconds and pairs; never what a target needs."""
    assert len(SHORT.pairs()) < len(FULL.pairs())
    assert {(1, 1), (10, 1)} <= set(SHORT.pairs())
    assert {1, 1_000} <= set(SHORT.bots)
    assert {10, 10_000} <= set(SHORT.symbols)
    assert 2_000 in SHORT.rates


def test_bench_runs_and_writes_its_page(tmp_path: Path) -> None:
    """One measurement, with broker, rivals and ceiling in it, as `make bench` does."""
    words = ["--tiny", "--only", "throughput", "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "bench", *words],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "results.json").read_text())
    figures = found["measurements"]["throughput"]["figures"]
    assert found["mode"] == TINY.name
    for arm in ("ours", "publish", "empty", "ceiling"):
        assert figures[f"b10_l1_{arm}"]["median"] > 0
    page = (tmp_path / "results.md").read_text()
    assert "| 10 | 1 |" in page
    assert report.HOW in page
    assert "Take it as a sketch" in page
    ElementTree.parse(tmp_path / "throughput_batch.svg")  # noqa: S314 - our own
