"""Registration messages, 100,000 under --soak: valid, nearly valid, rubbish, huge, hostile."""

from __future__ import annotations

import json
import logging
import random
from pathlib import Path
from typing import Any

import pytest

from alpaca_broker.bus.registrar import Registrar, Rules
from alpaca_broker.core.feeds import Topic
from alpaca_broker.core.registration import BadRegistration, Registration, parse

SYMBOLS = [f"S{n}" for n in range(40)] + ["BRK.B", "BTC/USD", "*"]
KINDS = ["trades", "quotes", "bars", "news"]  # what every feed of these symbols has
HOSTILE = [
    *("price:*", "AA\nPL", "a", "", " ", "x" * 33, "\x00", "S1\r\nPUBLISH", "../..", "💥"),
    *(None, 7, ["S1"], {"S": 1}, True, 1e308),
]
LARGE = b'{"action":"register","symbols":["' + b"A" * 1_000_000 + b'"],"bot_id":"b1"}'
DEEP = b'{"action":' * 5_000


def message(chance: random.Random) -> bytes:
    """One message as a good, careless or malicious bot would send it."""
    kind = chance.random()
    if kind < 0.001:
        return chance.choice([LARGE, DEEP, b"[" * 50_000])
    if kind < 0.1:
        return chance.randbytes(chance.randrange(60))
    fields: dict[str, Any] = {
        "action": chance.choice(["register", "unregister"]),
        "symbols": chance.choices(SYMBOLS, k=chance.randrange(1, 6)),
        "bot_id": f"b{chance.randrange(50)}",
    }
    if chance.random() < 0.3:
        fields["channels"] = chance.choices(KINDS, k=chance.randrange(4))
    if chance.random() < 0.3:
        fields["ttl"] = chance.choice([5, 60, 86_400])
    if chance.random() < 0.2:
        fields |= {"reply_to": f"r{chance.randrange(9)}", "request_id": "q"}
    if kind < 0.5:  # nearly valid: one field is wrong, missing or strange
        name = chance.choice([*fields, "channels", "account_id"])
        if chance.random() < 0.3:
            fields.pop(name, None)
        elif name == "symbols":
            fields[name].append(chance.choice(HOSTILE))
        else:
            fields[name] = chance.choice(HOSTILE)
    text = json.dumps(fields).encode()
    return text[: chance.randrange(len(text))] if kind > 0.97 else text


@pytest.mark.soak
@pytest.mark.parametrize("seed", [1])
def test_no_message_breaks_or_changes_what_it_may_not(
    seed: int, soak: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """No exception; an invalid one changes nothing; a valid one its own bot; memory stays flat."""
    caplog.set_level(logging.CRITICAL, "alpaca_broker")  # else the captured lines are what grows
    messages, chance = 100_000 if soak else 20_000, random.Random(seed)
    registrar = Registrar(
        lambda symbols, accounts: None,
        rules=Rules(messages_per_second=10**9, verify=False, linger_s=0.0),
    )
    registrar.listened(frozenset(), 0.0)
    model: dict[str, set[Topic]] = {}
    refused = resident = 0
    for number in range(messages):
        payload = message(chance)
        before = registrar.registry.topics() if number % 50 == 0 else None
        registrar.hear(payload, 0.0)
        registrar.replies.clear()
        registrar.changed.clear()
        try:
            said = parse(payload)
        except BadRegistration:
            refused += 1
            if before is not None:
                assert registrar.registry.topics() == before
        else:
            _apply(model, said)
        if number == messages // 5:
            resident = _resident_bytes()
        if number % 5_000 == 4_999:
            assert set(registrar.registry.topics()) == set().union(*model.values())
    assert _resident_bytes() - resident < 20_000_000
    assert messages * 0.1 < refused < messages * 0.6
    print(f"{messages} messages, {refused} refused")


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4_096


def _apply(model: dict[str, set[Topic]], said: Registration) -> None:
    if said.action == "register":
        model.setdefault(said.bot, set()).update(said.topics)
    elif said.bot and said.everything:
        kinds = said.channels
        model[said.bot] = {t for t in model.get(said.bot, ()) if kinds and t[0] not in kinds}
    elif said.bot:
        model[said.bot] = model.get(said.bot, set()) - set(said.topics)
