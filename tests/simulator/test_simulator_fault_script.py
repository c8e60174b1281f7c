"""Fault scripts and storms: pure, and strict about what people write."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alpaca_broker.simulator import Fault, script, storm
from alpaca_broker.simulator.fault_script import listing, parse
from alpaca_broker.simulator.faults import KINDS, LONGEST_MS, MOST, STREAMS

TIMES = st.integers(0, LONGEST_MS)


@st.composite
def faults(draw: st.DrawFn) -> Fault:
    name = draw(st.sampled_from(sorted(KINDS)))
    kind = KINDS[name]
    lasts = None if kind.lasts_ms is None else draw(st.none() | TIMES)
    what = {
        "": st.just(""),
        "count": st.integers(1, MOST).map(str),
        "stream": st.sampled_from(("", *STREAMS)),
        "path": st.sampled_from(("", "/", "/v2/orders", "/v2/a:b@c+d")),
    }[kind.takes]
    return Fault(draw(TIMES), name, lasts, draw(what))


@given(faults())
def test_what_is_written_is_read_as_the_same_fault(fault: Fault) -> None:
    """So a storm can be printed and played again."""
    assert parse(str(fault)) == fault
    assert script([str(fault)]) == [fault]


@pytest.mark.parametrize(
    ("word", "meaning"),
    [
        ("duplicate-order@3s:2", "the next 2 order events come twice"),
        ("duplicate-order@3s", "the next order event comes twice"),
        ("drop-order@3s", "the next order event reaches nobody, on healthy sockets"),
        ("reorder-orders@3s:1", "the next order event comes after the one that followed it"),
        ("delay-order@3s+5s:3", "the next 3 order events come 5s late"),
    ],
)
def test_what_is_said_of_a_fault_has_its_own_numbers(word: str, meaning: str) -> None:
    """COUNT and DURATION are for the table."""
    assert parse(word).meaning == meaning


@given(faults())
def test_no_fault_is_told_with_the_words_of_the_table(fault: Fault) -> None:
    """Whichever it is."""
    assert not {"COUNT", "DURATION", "STREAM"}.intersection(fault.meaning.split())


@given(st.text(max_size=30) | st.from_regex(r"[a-z-]+@[0-9.]+[a-z]+(\+[0-9]+s)?(:.+)?"))
def test_whatever_is_written_is_read_or_refused_in_one_line(text: str) -> None:
    """Nothing but a ValueError, with something to read."""
    said = "fine"
    try:
        script([text])
    except ValueError as error:
        said = str(error)
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("word", "fault"),
    [
        ("mute@10s", Fault(10_000, "mute", 300_000, "all")),
        ("cut@1.5m:market", Fault(90_000, "cut", None, "market")),
        ("406@30s+90s", Fault(30_000, "406", 90_000)),
        ("drop-order@500ms:3", Fault(500, "drop-order", None, "3")),
        ("rest-500@0s+0.25s:/v2/orders", Fault(0, "rest-500", 250, "/v2/orders")),
        ("delay-order@1h+100ms", Fault(3_600_000, "delay-order", 100, "1")),
    ],
)
def test_the_grammar(word: str, fault: Fault) -> None:
    """NAME@WHEN[+DURATION][:COUNT, STREAM or PATH]."""
    assert parse(word) == fault


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("mute", "is no fault: a fault is NAME@WHEN"),
        ("mute@10", "is no fault"),
        ("mute@-1s", "is no fault"),
        ("mute@10s+", "is no fault"),
        ("mute@10s:", "is no fault"),
        ("mute @10s", "is no fault"),
        ("mut@10s", "no such fault: 'mut'; did you mean mute?"),
        ("volcano@10s", "`--fault help` lists them"),
        ("mute@25h", "at most 24h"),
        ("mute@1.5ms", "whole number of milliseconds"),
        ("cut@1s+2s", "cut happens at once"),
        ("cut@1s:orders", "cut takes one of market, trading, all, not 'orders'"),
        ("406@1s:market", "406 takes nothing after a colon"),
        ("drop-order@1s:0", "drop-order takes a count from 1 to 100000, not '0'"),
        ("drop-order@1s:²", "takes a count"),
        ("rest-500@1s:orders", "rest-500 takes a path such as /v2/orders"),
        ("storm@1s:x", "storm takes the number of a seed"),
        ("storm@23h+2h", "at most 24h"),
    ],
)
def test_a_wrong_word_says_what_is_wrong(word: str, text: str) -> None:
    """Strictly, and with the way out."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is looked at
        script([word])
    assert text in str(caught.value)


@given(st.integers(0, 10**9), st.floats(1, 600), st.integers(0, 50))
def test_a_storm_is_its_seed(seed: int, seconds: float, count: int) -> None:
    """The same again, in order, over in time, and nothing that a broker may die of."""
    faults = storm(seed, seconds, faults=count)
    assert faults == storm(seed, seconds, faults=count) == script(map(str, faults))
    assert len(faults) == count
    assert [f.at_ms for f in faults] == sorted(f.at_ms for f in faults)
    assert all(f.at_ms + (f.lasts_ms or 0) <= round(seconds * 1000) for f in faults)
    assert all(f.kind.in_storms for f in faults)


def test_storms_differ_and_can_be_chosen() -> None:
    """Another seed is another storm; `only` keeps to some."""
    assert storm(1, 100) != storm(2, 100)
    assert len(storm(1, 100)) == 50
    assert {fault.name for fault in storm(1, 100, only=["cut", "mute"])} == {"cut", "mute"}
    with pytest.raises(ValueError, match="volcano"):
        storm(1, only=["volcano"])
    assert {fault.name for fault in storm(1, 10_000)} == {
        name for name, kind in KINDS.items() if kind.in_storms
    }


def test_a_script_is_in_order_and_holds_storms() -> None:
    """Whatever the order of the words."""
    faults = script(["cut@9s", "storm@10s+20s:7", "mute@1s"])
    assert [f.name for f in faults[:2]] == ["mute", "cut"]
    assert [f.at_ms - 10_000 for f in faults[2:]] == [f.at_ms for f in storm(7, 20)]
    with pytest.raises(ValueError, match="at most 10000"):
        script(["cut@1s"] * 10_001)


def test_every_fault_is_listed_with_its_meaning() -> None:
    """One line each."""
    lines = listing()
    assert [line.split("@")[0] for line in lines] == [*KINDS, "storm"]
    assert all(kind.meaning in line for kind, line in zip(KINDS.values(), lines, strict=False))
