"""The journal held against the simulator's own ledger: nothing lost, nothing doubled, in order."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection
from decimal import Decimal
from math import inf
from typing import Any

import redis
from support import KEY_ID, PATIENCE_S, eventually

from alpaca_broker.core.channels import Channels
from alpaca_broker.simulator import SimulatorThread
from alpaca_broker.simulator.accounts import account_id_of

SLACK_S = 0.01  # between the times of an event by stream and by REST, and of a gap
Event = tuple[str, Decimal]  # its name, and the order's quantity after it


def journal(port: int, channels: Channels, key: str = KEY_ID) -> list[dict[str, Any]]:
    """Every `order_update` in the journal of a key's account, oldest first."""
    with redis.Redis(port=port) as client:
        entries: Any = client.xrange(channels.journal(account_id_of(key)))
    return [json.loads(fields[b"data"], parse_float=Decimal) for _, fields in entries]


def told_as_missed(port: int, channels: Channels, key: str = KEY_ID) -> list[dict[str, Any]]:
    """The gaps that told bots that events of the account may come late (contract, section 4)."""
    with redis.Redis(port=port) as client:
        entries: Any = client.xrange(channels.gaps)
    gaps = [json.loads(fields[b"data"]) for _, fields in entries]
    return [g for g in gaps if g.get("account_id") == account_id_of(key) and not g["recovered"]]


def offences(
    entries: list[dict[str, Any]],
    simulator: SimulatorThread,
    key: str = KEY_ID,
    *,
    late_within: Collection[dict[str, Any]] = (),
) -> list[str]:
    """What is wrong with a journal, judged by what really happened; empty where all is well.

    A state that an order has left again is only shown by the stream: so `held`, `new` after it, and
    `new` before `rejected` may be missing where the stream did not bring them; nothing else may.
    Where it brings such a `new` too late nobody could know that it was to come: it is told late.
    What REST told may come after newer events where a gap of `late_within` has told bots so: one
    that was there when it happened.
    """
    account = account_id_of(key)
    happened: dict[str, list[Event]] = defaultdict(list)
    for event in simulator.call(simulator.simulator.ledger, account):
        order = event["order"]
        happened[order["id"]].append((event["event"], Decimal(order["filled_qty"])))
    told: dict[str, list[Event]] = defaultdict(list)
    late: dict[str, set[Event]] = defaultdict(set)
    received: dict[str, float] = {}  # when the stream brought the last event of each order
    for entry in entries:
        event = (entry["event"], Decimal(entry["filled_qty"]))
        told[entry["order_id"]].append(event)
        is_told = any(g["from"] - SLACK_S <= entry["timestamp"] <= g["to"] for g in late_within)
        if is_told and entry["source"] == "reconcile":
            late[entry["order_id"]].add(event)
        if entry["source"] == "stream":
            before = [name for name, _ in told[entry["order_id"]][:-1]]
            is_later = entry["received_at"] > received.get(entry["order_id"], inf)
            if event[0] == "new" and "held" in before and before[-1] != "held" and is_later:
                late[entry["order_id"]].add(event)
            received[entry["order_id"]] = entry["received_at"]
    found = []
    if [entry["seq"] for entry in entries] != list(range(1, len(entries) + 1)):
        found.append("seq has a hole or a double")
    for order_id in happened.keys() | told.keys():
        real, seen = Counter(happened[order_id]), Counter(told[order_id])
        lost = real - seen
        for event in list(lost):
            states = [name for name, _ in happened[order_id]]
            is_last = event == happened[order_id][-1]
            if event[0] in ("held", "new") and {"held", "rejected"} & set(states) and not is_last:
                del lost[event]
        if lost:
            found.append(f"{order_id}: lost {dict(lost)} of {happened[order_id]}")
        if doubled := seen - real:
            found.append(f"{order_id}: too much {dict(doubled)} beside {happened[order_id]}")
        placed = seen.keys() - late[order_id]
        order = [event for event in happened[order_id] if event in placed]
        if not lost and not doubled and order != [e for e in told[order_id] if e in placed]:
            sources = [
                f"{e['event']} by {e['source']} at {e['received_at']}"
                for e in entries
                if e["order_id"] == order_id
            ]
            found.append(
                f"{order_id}: told as {told[order_id]} ({', '.join(sources)}), happened as {order}"
            )
    return found


def settles(
    port: int, channels: Channels, simulator: SimulatorThread, within_s: float = PATIENCE_S
) -> list[dict[str, Any]]:
    """Wait until the journal says what happened, all of it and nothing else; returns it."""

    def is_right() -> list[dict[str, Any]] | None:
        entries, late = journal(port, channels), told_as_missed(port, channels)
        return entries if not offences(entries, simulator, late_within=late) else None

    try:
        return eventually(is_right, within_s) or []
    except AssertionError:
        late = told_as_missed(port, channels)
        problems = offences(journal(port, channels), simulator, late_within=late)
        raise AssertionError("\n".join(problems[:20])) from None
