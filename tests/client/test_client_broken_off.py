"""A bot's thread may be broken off in any line, by Ctrl-C or whatever a signal's handler raises."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest
import redis
from fake_broker import FakeBroker
from lent import Elsewhere, lends, lent, seqs
from support import eventually

from alpaca_broker import Client
from alpaca_broker.client import Gap, PriceUpdate
from alpaca_broker.client.inbox import Inbox, Portion
from alpaca_broker.client.link import Link
from alpaca_broker.client.session import Session
from alpaca_broker.client.subscription import Subscription
from alpaca_broker.client.wishes import Wishes
from alpaca_broker.core.channels import Channels
from alpaca_broker.embedded import EmbeddedRedis

Connect = Callable[..., Client]


class BreakOff:
    """Breaks off a thread in the n-th line of the client's code, counted from a function's start.

    As Ctrl-C does, and whatever else a signal's handler raises.
    """

    def __init__(self, at: int, begins: str) -> None:
        self._left, self._begins, self._counts = at, begins, False
        self.did = False

    def __enter__(self) -> BreakOff:
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, _: object) -> Any:
        code = frame.f_code
        if self.did or "alpaca_broker/client/" not in code.co_filename:
            return None
        if event == "call" and code.co_name == self._begins:
            self._counts = True
        if event == "line" and self._counts:
            self._left -= 1
            if self._left < 0:
                self.did = True
                sys.settrace(None)
                raise KeyboardInterrupt
        return self._trace


def replies(*numbered: tuple[str, int]) -> Iterator[Any]:
    """What is heard: prices, then that there is no more."""
    for symbol, seq in numbered:
        payload = (
            f'{{"type":"price_update","symbol":"{symbol}","price":{seq},"timestamp":{seq},'
            f'"seq":{seq},"epoch":7}}'
        )
        yield [b"message", b"price:" + symbol.encode(), payload.encode()]
    while True:
        yield False


@pytest.mark.parametrize("wanted", ["A", "*"])
def test_broken_off_anywhere_a_session_can_be_mended(wanted: str) -> None:
    """In whichever line: a gap is told, nothing comes twice, and what comes then is handed on."""

    def take() -> list[Any]:
        held, inbox.in_hand = portion.hold_own(inbox), []
        return held

    at, broken = 0, True
    while broken:
        session = Session(Channels(""), Wishes("b", "r", 30.0, register=True), "r")
        inbox, portion = Inbox(100, conflates=True), Portion()
        session.link_up()
        subscription = Subscription(inbox, symbols=frozenset([wanted]))
        session.follow((subscription,))
        got: list[Any] = []
        session.hear(replies(("A", 1)).__next__, 1.0, 1.0)
        got += take()
        with BreakOff(at, "hear") as trace:
            try:
                session.hear(replies(("A", 2), ("B", 5), ("A", 4)).__next__, 1.0, 1.0)
                got += take()
            except KeyboardInterrupt:
                pass
        at, broken = at + 1, trace.did
        session.link_down()
        if broken:
            session.mend()
        session.may_have_missed("reconnect")
        session.link_up()
        session.hear(replies(("A", 6), ("B", 6), ("A", 7), ("B", 7)).__next__, 2.0, 2.0)
        got += take() + take()  # first what is still held
        names = ["A"] if wanted == "A" else ["A", "B"]
        for name in names:
            mine = seqs([u for u in got if isinstance(u, PriceUpdate) and u.symbol == name])
            assert mine == sorted(set(mine)), at
            assert mine[-2:] == [6, 7], at
        told = [item for item in got if isinstance(item, Gap) and item.missed is None]
        assert len(told) == broken, at
    assert at > 30


@pytest.mark.parametrize("at", range(0, 60, 4))
def test_ctrl_c_in_the_midst_of_reading(
    broker: FakeBroker, connect: Connect, readers: list[int], at: int
) -> None:
    """It comes out of the iteration, which can go on: with a gap, and without anything twice."""
    client = connect()
    prices, me = lent(client), threading.get_ident()
    got: list[Any] = []
    while me not in readers:
        broker.price("AAPL")
        got.append(next(prices))
    publishing = Elsewhere(lambda: broker.price("AAPL", 3))
    with BreakOff(at, "_hear") as trace:
        try:
            while not trace.did:
                if (update := prices.poll(0.01)) is None:
                    broker.price("AAPL")
                else:
                    got.append(update)
        except KeyboardInterrupt:
            pass
    assert trace.did
    publishing.result()
    began = len(got)

    def goes_on() -> bool:
        broker.price("AAPL")
        while (update := prices.poll(0.02)) is not None:
            got.append(update)
        newest = [u for u in got[began:] if isinstance(u, PriceUpdate)]
        return bool(newest) and newest[-1].seq == broker.seqs["AAPL"] and lends(client)

    eventually(goes_on)
    numbers = seqs(got)
    assert numbers == sorted(set(numbers))
    gaps = [item for item in got if isinstance(item, Gap)]
    if numbers != list(range(1, numbers[-1] + 1)):
        assert gaps
    assert {gap.reason for gap in gaps} <= {"reconnect"}
    assert client.counters.reconnects == bool([gap for gap in gaps if gap.missed is None])


def test_ctrl_c_in_the_midst_of_the_last_reading(broker: FakeBroker, connect: Connect) -> None:
    """The bot ends with it: the broker is told goodbye all the same."""
    client = connect()
    prices = lent(client)

    def iterate() -> None:
        while True:
            if prices.poll(0.01) is None:
                broker.price("AAPL")

    with BreakOff(10, "_hear"), pytest.raises(KeyboardInterrupt):
        iterate()
    client.close()
    eventually(lambda: broker.registrations[-1]["action"] == "unregister")


def test_a_handler_of_a_signal_closes_the_client(
    broker: FakeBroker, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the midst of reading: it does not wait for itself, and the loop ends."""
    client = connect()
    prices, me = lent(client), threading.get_ident()
    hear, took = Session.hear, list[float]()

    def interrupted(session: Session, *words: Any) -> None:
        if threading.get_ident() == me and not took:
            began = time.monotonic()
            client.close()
            took.append(time.monotonic() - began)
        hear(session, *words)

    monkeypatch.setattr(Session, "hear", interrupted)
    publishing = Elsewhere(lambda: eventually(lambda: broker.price("AAPL") or took))
    for _ in prices:
        pass
    publishing.result()
    assert took[0] < 5
    eventually(lambda: client._engine.has_ended)
    eventually(lambda: broker.registrations[-1]["action"] == "unregister")


def test_what_a_handler_of_a_signal_raises_is_not_the_sockets(valkey: EmbeddedRedis) -> None:
    """A bot's own time limit is a TimeoutError, too: it comes out, and is no `nothing there`."""

    class Socket:
        def recv_into(self, _: Any) -> int:
            raise TimeoutError("the bot's own")

    link = Link(redis.Redis(port=valkey.port))
    try:
        assert link.is_plain
        assert link.read() is False
        link._socket, own = Socket(), link._socket
        with pytest.raises(TimeoutError):
            link.read()
        link._socket = own
    finally:
        link.close()
