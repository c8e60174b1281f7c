"""Accounts: as many as are configured; what is wrong with one is named, and the others go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from support import KEY_ID, SECRET, Rig, buy, eventually

from alpaca_broker.embedded import EmbeddedRedis
from alpaca_broker.simulator import SimulatorOptions, SimulatorThread


@contextmanager
def running(
    valkey: EmbeddedRedis, simulator: SimulatorThread, prefix: str, **variables: str
) -> Iterator[Rig]:
    """A broker with these named accounts beside its paper account."""
    names = {name.split("_", maxsplit=1)[0].lower() for name in variables}
    rig = Rig(valkey, simulator, prefix=prefix)
    rig.configure(variables, alpaca_accounts=",".join(sorted(names)))
    rig.start(live=False)
    try:
        yield rig
    finally:
        rig.stop()


def account(rig: Rig, name: str) -> Any:
    """The status of the account of this name."""
    return next(a for a in rig.broker.status().accounts.values() if a.name == name)


def keys_of(name: str, key_id: str, **more: str) -> dict[str, str]:
    """A named account's variables."""
    ours = {"API_KEY_ID": key_id, "API_SECRET_KEY": SECRET} | more
    return {f"{name}_ALPACA_{variable}": value for variable, value in ours.items()}


def test_named_accounts_have_order_channels_of_their_own(
    valkey: EmbeddedRedis, prefix: str, simulator: SimulatorThread
) -> None:
    """Three accounts, three streams, and each event on the channel of its account."""
    more = keys_of("SWING", "PKSWING") | keys_of("SCALP", "PKSCALP")
    with running(valkey, simulator, prefix, **more) as rig:
        eventually(lambda: rig.broker.status().state == "live")
        accounts = {a.name: id for id, a in rig.broker.status().accounts.items()}
        assert set(accounts) == {"paper", "swing", "scalp"}
        with rig.bot(*map(rig.channels.order, accounts.values())) as bot:
            buy(simulator.url, key="PKSWING")
            channel, update = bot.next()
        assert channel == rig.channels.order(accounts["swing"])
        assert update["account_id"] == accounts["swing"]


def test_a_live_key_at_the_paper_host_is_named_and_the_others_go_on(
    valkey: EmbeddedRedis, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Said once it is seen, and again when Alpaca refuses it: with the variables to look at."""
    with SimulatorThread(SimulatorOptions(keys={KEY_ID: SECRET})) as simulator:
        more = keys_of("SWING", "AKSWING")
        with running(valkey, simulator, prefix, **more) as rig:
            eventually(lambda: account(rig, "swing").state == "refused")
            eventually(lambda: rig.broker.status().state == "degraded")
            eventually(lambda: account(rig, "paper").state == "live")
            said = account(rig, "swing").error
    hint = "SWING_ALPACA_API_KEY_ID begins with AK, as keys of live accounts do"
    assert f"{hint}, but SWING_ALPACA_ENVIRONMENT is paper" in caplog.text
    assert "check SWING_ALPACA_API_KEY_ID and SWING_ALPACA_API_SECRET_KEY" in said
    assert hint in said
    assert SECRET not in caplog.text + said


def test_a_feed_outside_the_plan_is_named_and_orders_go_on(
    valkey: EmbeddedRedis, prefix: str
) -> None:
    """SIP without the plan: the setting to change is ALPACA_FEED."""
    with SimulatorThread(SimulatorOptions(refused_feeds=frozenset({"sip"}))) as simulator:
        rig = Rig(valkey, simulator, prefix=prefix, alpaca_feed="sip")
        rig.start(live=False)
        try:
            feed = eventually(lambda: rig.broker.status().feeds["sip"].error)
            assert "ALPACA_FEED is sip" in feed
            eventually(lambda: account(rig, "paper").state == "live")
        finally:
            rig.stop()


def test_two_names_of_one_account_are_told_and_one_is_left_out(
    valkey: EmbeddedRedis, prefix: str, simulator: SimulatorThread
) -> None:
    """Its events come once."""
    with running(valkey, simulator, prefix, **keys_of("SWING", KEY_ID)) as rig:

        def left_out() -> list[Any]:
            accounts = rig.broker.status().accounts.values()
            return [a for a in accounts if a.state == "refused"]

        (second,) = eventually(left_out)
        assert "the same account as " in second.error
        (first,) = (a for a in rig.broker.status().accounts.values() if a.name != second.name)
        eventually(lambda: account(rig, first.name).state == "live")
        assert simulator.stats.trading_peak == 1
