"""What each fault does to a simulator.

Owns the doing. Invariant: an act undoes what it switched, also when it is cancelled; what it sent
or cut stays so. Names and meanings are in `faults.KINDS`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Literal

from alpaca_broker.simulator.outbox import Link
from alpaca_broker.simulator.switches import RestTrouble, thrown

if TYPE_CHECKING:
    from alpaca_broker.simulator.faults import Fault, Stream
    from alpaca_broker.simulator.server import Simulator

Act = Callable[["Simulator", "Fault"], Awaitable[None]]
SLOW_S = 3.0
BIG_BYTES = 1_000_000
_GRACE_S = 0.2  # for what was said last, before the cut
_INTERNAL_CLOSE_CODE = 1011
_UPDATES = "trade_updates"


async def cut(simulator: Simulator, fault: Fault) -> None:
    """No close frame, no FIN that says why."""
    for link in simulator.links(fault.stream):
        link.connection.abort()


def silence(switch: Literal["muted", "withholding"]) -> Act:
    """Pings are answered; what should have been said is lost, or the data of it."""

    async def act(simulator: Simulator, fault: Fault) -> None:
        links = simulator.links(fault.stream)
        for link in links:
            setattr(link.outbox, switch, True)
        try:
            await asyncio.sleep(fault.lasts_s)
        finally:
            for link in links:
                setattr(link.outbox, switch, False)

    return act


async def half_open(simulator: Simulator, fault: Fault) -> None:
    """Not even pings are read; the slot stays taken until the end, when Alpaca reaps it."""
    links = simulator.links(fault.stream)
    for link in links:
        link.outbox.muted = True
        link.connection.freeze()
    try:
        await asyncio.sleep(fault.lasts_s)
    finally:
        for link in links:
            link.connection.abort()


async def drop_order(simulator: Simulator, fault: Fault) -> None:
    """On a healthy socket."""
    simulator.tampering.lose += fault.count


async def duplicate_order(simulator: Simulator, fault: Fault) -> None:
    """The same event twice in a row."""
    simulator.tampering.duplicate += fault.count


async def reorder_orders(simulator: Simulator, fault: Fault) -> None:
    """Each after the one that followed it."""
    simulator.tampering.reorder += fault.count


async def delay_order(simulator: Simulator, fault: Fault) -> None:
    """Each as late as the fault lasts."""
    simulator.tampering.delay_s = fault.lasts_s
    simulator.tampering.delay += fault.count


async def null_data(simulator: Simulator, fault: Fault) -> None:
    """Well formed, and nothing in it."""
    _send(simulator, fault, {"market": [None], "trading": {"stream": _UPDATES, "data": None}})


async def garbage(simulator: Simulator, fault: Fault) -> None:
    """Neither JSON nor MessagePack, yet good UTF-8: the WebSocket itself has no complaint."""
    for link in _live(simulator, fault):
        link.outbox.data(b'{"T":\x00]', 1)


async def truncated(simulator: Simulator, fault: Fault) -> None:
    """The next data frame of each socket; what its second half said is lost."""
    for link in _live(simulator, fault):
        link.outbox.to_truncate += 1


async def unknown_type(simulator: Simulator, fault: Fault) -> None:
    """A market message of a new type; an event of a new name for the last order that moved."""
    news = {"T": "zz", "S": "AAPL", "zz": {"deep": [1, None, "x"]}}
    for link in _live(simulator, fault):
        if link.stream == "market":
            link.outbox.data(link.codec.encode([news]), 1)
            continue
        link.outbox.data(link.codec.encode({"stream": "weather", "data": {"sun": True}}), 1)
        if link.account is not None and link.account.ledger:
            event = link.account.ledger[-1] | {"event": "teleported", "event_id": "Z" * 26}
            link.outbox.data(link.codec.encode({"stream": _UPDATES, "data": event}), 1)


async def big_frame(simulator: Simulator, fault: Fault) -> None:
    """News articles were seen to be as long [T GO #203]."""
    text = "x" * BIG_BYTES
    news = [{"T": "n", "id": 1, "headline": "long", "content": text, "symbols": ["AAPL"]}]
    _send(simulator, fault, {"market": news, "trading": {"stream": "x", "data": {"text": text}}})


async def slot_taken(simulator: Simulator, fault: Fault) -> None:
    """As after an unclean end, of which Alpaca takes some 90 s to hear [T forum 10896]."""
    with thrown(simulator.switches.auth_error["market"], 406):
        await _cut_for(simulator, fault, "market")


async def ghost(simulator: Simulator, fault: Fault) -> None:
    """The same on the order stream, which answers 429 at the upgrade [T alpaca-py #740]."""
    with thrown(simulator.switches.upgrade_status["trading"], 429):
        await _cut_for(simulator, fault, "trading")


def refuse(status: int) -> Act:
    """Cut, then answer every upgrade with an HTTP status."""

    async def act(simulator: Simulator, fault: Fault) -> None:
        with ExitStack() as stack:
            for stream in _streams(fault):
                stack.enter_context(thrown(simulator.switches.upgrade_status[stream], status))
            await _cut_for(simulator, fault, fault.stream)

    return act


async def away(simulator: Simulator, fault: Fault) -> None:
    """As if the network were down: nobody listens, REST connections break, too."""
    async with simulator.away():
        await asyncio.sleep(fault.lasts_s)


async def stall(simulator: Simulator, fault: Fault) -> None:
    """Cut, then leave every upgrade without an answer until the end."""
    ended = asyncio.Event()
    with ExitStack() as stack:
        stack.callback(ended.set)
        for stream in _streams(fault):
            stack.enter_context(thrown(simulator.switches.stalled[stream], ended))
        await _cut_for(simulator, fault, fault.stream)


async def auth_refused(simulator: Simulator, fault: Fault) -> None:
    """Cut, then answer right keys as if they were wrong."""
    with ExitStack() as stack:
        for stream in _streams(fault):
            stack.enter_context(thrown(simulator.switches.auth_error[stream], 402))
        await _cut_for(simulator, fault, fault.stream)


async def accept_then_refuse(simulator: Simulator, fault: Fault) -> None:
    """Cut, then let every socket in, tell it an error and close it."""
    with ExitStack() as stack:
        for stream in _streams(fault):
            stack.enter_context(thrown(simulator.switches.slam[stream], 500))
        await _cut_for(simulator, fault, fault.stream)


async def slow_client(simulator: Simulator, fault: Fault) -> None:
    """What a client hears that does not read fast enough."""
    for link in _live(simulator, fault):
        _say(link, 407, "slow client")
        link.connection.abort_after(_GRACE_S)


async def server_error(simulator: Simulator, fault: Fault) -> None:
    """Said on the stream, and then closed in order [D WST]."""
    links = _live(simulator, fault)
    for link in links:
        _say(link, 500, "internal error")
    async with asyncio.TaskGroup() as tasks:
        for link in links:
            tasks.create_task(_close(link), name="close after an error")


def rest(**trouble: Any) -> Act:
    """Trouble for the REST calls under a path."""

    async def act(simulator: Simulator, fault: Fault) -> None:
        with thrown(simulator.switches.rest, RestTrouble(prefix=fault.path, **trouble)):
            await asyncio.sleep(fault.lasts_s)

    return act


def _streams(fault: Fault) -> list[str]:
    return [stream for stream in ("market", "trading") if fault.stream in (stream, "all")]


def _live(simulator: Simulator, fault: Fault) -> list[Link]:
    return [link for link in simulator.links(fault.stream) if link.live]


def _send(simulator: Simulator, fault: Fault, messages: dict[str, Any]) -> None:
    for link in _live(simulator, fault):
        link.outbox.data(link.codec.encode(messages[link.stream]), 1)


def _say(link: Link, code: int, text: str) -> None:
    message: Any = [{"T": "error", "code": code, "msg": text}]
    if link.stream == "trading":
        message = {"action": "error", "data": {"error_message": "internal server error"}}
    link.outbox.control(link.codec.encode(message))


async def _close(link: Link) -> None:
    await link.outbox.flushed()
    await link.connection.close(_INTERNAL_CLOSE_CODE)


async def _cut_for(simulator: Simulator, fault: Fault, stream: Stream) -> None:
    for link in simulator.links(stream):
        link.connection.abort()
    await asyncio.sleep(fault.lasts_s)
