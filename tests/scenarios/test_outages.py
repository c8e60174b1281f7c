"""One side goes away and comes back: the rest goes on, says so, and nothing promised is lost."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from support import KEY_ID, PATIENCE_S, SECRET, Rig, buy, eventually

from alpaca_broker.embedded import EmbeddedRedis
from alpaca_broker.errors import ConfigError
from alpaca_broker.simulator import SimulatorOptions, SimulatorThread


@pytest.fixture
def own_rig(own_valkey: EmbeddedRedis, simulator: SimulatorThread) -> Iterator[Rig]:
    """A running broker whose Valkey may be stopped."""
    with Rig(own_valkey, simulator) as running:
        yield running


def test_prices_flow_again_after_redis_was_stopped_and_started(
    own_rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    """What was registered stays; bots that come back get prices; the outage is said once."""
    own_rig.register("AAPL")
    with own_rig.bot("price:AAPL") as bot:
        before = bot.next()[1]
    own_rig.valkey.stop()
    eventually(lambda: "cannot be reached: is it running?" in caplog.text)
    own_rig.valkey.start()
    with own_rig.bot("price:AAPL", "broker:status") as bot:
        after = bot.until(lambda channel, _: channel == "price:AAPL")
        assert after["seq"] > before["seq"]
        assert after["epoch"] == before["epoch"]
        # The orders' connection may be back a moment later than the prices'.
        bot.until(lambda channel, m: channel == "broker:status" and m.get("state") == "live")
    own_rig.register("MSFT")  # registrations are heard again, on the same upstream connection
    assert own_rig.simulator.stats.market_connections == 1
    eventually(lambda: "is back after" in caplog.text)


def test_orders_during_a_redis_outage_arrive_once_and_in_order(own_rig: Rig) -> None:
    """Filled while Redis was away: journalled afterwards, each event once, `seq` without a hole."""
    own_rig.register("AAPL")
    (account_id,) = own_rig.broker.status().accounts
    buy(own_rig.simulator.url)
    eventually(lambda: own_rig.broker.counters["order_events"] == 2)
    own_rig.valkey.stop()
    orders = [buy(own_rig.simulator.url)["id"] for _ in range(5)]
    simulator = own_rig.simulator
    eventually(lambda: len(simulator.simulator.ledger(account_id)) == 12)
    own_rig.valkey.start()
    with own_rig.bot() as bot:
        eventually(lambda: own_rig.broker.counters["order_events"] == 12)
        entries = bot._client.xrange(f"journal:order:{account_id}")
    seen = [json.loads(fields[b"data"]) for _, fields in entries]
    ledger = simulator.simulator.ledger(account_id)
    expected = [(e["order"]["id"], e["event"]) for e in ledger]
    # The server kept nothing over its restart, so its journal begins with what came after.
    assert [(u["order_id"], u["event"]) for u in seen] == expected[2:]
    assert {u["order_id"] for u in seen} == set(orders)
    assert [u["seq"] for u in seen] == list(range(3, 13))


def test_alpaca_cut_and_back_is_subscribed_again(rig: Rig) -> None:
    """Both streams reconnect by themselves, with the same symbols, and say so meanwhile."""
    rig.register("AAPL", "MSFT")
    with rig.bot(rig.channels.status) as bot:
        rig.simulator.stop_server()
        status = bot.until(lambda _, m: m.get("state") == "down")
        assert status["feeds"]["iex"]["state"] in ("backoff", "connecting")
        assert status["feeds"]["iex"]["error"]
        rig.simulator.start_server()
        status = bot.until(
            lambda _, m: m.get("state") == "live" and m["feeds"]["iex"]["symbols"] == 2
        )
        assert status["feeds"]["iex"]["error"] is None
    with rig.bot(rig.channels.price("MSFT")) as bot:
        bot.next()
    (account_id,) = rig.broker.status().accounts
    with rig.bot(rig.channels.order(account_id)) as bot:
        buy(rig.simulator.url)
        assert bot.until(lambda _, m: m["event"] == "fill")["status"] == "filled"


def test_one_lost_stream_leaves_the_other_alone(rig: Rig) -> None:
    """Market data is cut: orders flow on, and the state is degraded, not down."""
    rig.register("AAPL")
    (account_id,) = rig.broker.status().accounts
    with rig.bot(rig.channels.order(account_id), rig.channels.status) as bot:
        rig.simulator.call(rig.simulator.simulator.cut, "market")
        bot.until(lambda _, m: m.get("state") == "degraded")
        buy(rig.simulator.url)
        bot.until(lambda _, m: m["type"] == "order_update" and m["event"] == "fill")
    assert rig.simulator.stats.trading_connections == 1


def test_two_accounts_and_one_with_wrong_keys(valkey: EmbeddedRedis, prefix: str) -> None:
    """The refused account is named in the status; the other account and the prices go on."""
    options = SimulatorOptions(keys={KEY_ID: SECRET}, rate=100.0)
    with SimulatorThread(options) as simulator:
        rig = Rig(
            valkey,
            simulator,
            prefix=prefix,
            alpaca_api_key_id="AKWRONG",
            alpaca_api_secret_key="wrong-secret",
            alpaca_data_account="paper",
        )
        rig.start(live=False)
        try:
            status = eventually(
                lambda: (
                    (s := rig.broker.status())
                    and s.feeds["iex"].state == "live"
                    and {a.state for a in s.accounts.values()} == {"live", "refused"}
                    and s
                )
            )
            assert status.state == "degraded"
            assert "live" in status.accounts  # its id is not known, so its kind stands for it
            assert "HTTP 401" in (status.accounts["live"].error or "")
            rig.register("AAPL")
            assert not rig.broker.wait(timeout=0.01)
        finally:
            rig.stop()


def test_keys_that_are_refused_everywhere_end_the_broker(
    valkey: EmbeddedRedis, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is left to do: the error names the variables and the file, and no secret."""
    with SimulatorThread(SimulatorOptions(keys={"OTHER": "other"})) as simulator:
        rig = Rig(valkey, simulator, prefix=prefix).start(live=False)
        try:
            with pytest.raises(ConfigError) as caught:
                rig.broker.wait(timeout=PATIENCE_S)
        finally:
            rig.stop()
        text = str(caught.value)
        assert "PAPER_ALPACA_API_KEY_ID and PAPER_ALPACA_API_SECRET_KEY" in text
        assert "configs/.env" in text
        assert "auth failed (402)" in text
        assert SECRET not in text + caplog.text
        assert simulator.stats.market_connections == 1
        assert simulator.stats.market_open == 0


def test_a_key_that_was_good_before_is_tried_again(valkey: EmbeddedRedis, prefix: str) -> None:
    """A refusal after a life is Alpaca's bad minute, not ours to end on."""
    with (
        SimulatorThread(SimulatorOptions()) as simulator,
        Rig(valkey, simulator, prefix=prefix) as rig,
    ):
        simulator.call(simulator.simulator.refuse_sockets, 401)
        simulator.call(simulator.simulator.cut, "market")
        feed = eventually(
            lambda: (
                (f := rig.broker.status().feeds["iex"]).state == "backoff"
                and "HTTP 401" in (f.error or "")
                and f
            )
        )
        assert feed.state == "backoff"


def test_accounts_number_is_understood(rig: Rig) -> None:
    """A bot that registers with the account number gets the events under it, and under the id."""
    ((account_id, account),) = rig.broker.status().accounts.items()
    number = account.account_number
    assert number
    rig.register("AAPL", account_id=number)
    with rig.bot(rig.channels.order(number), rig.channels.order(account_id)) as bot:
        buy(rig.simulator.url)
        messages = [bot.next() for _ in range(4)]
    by_channel: dict[str, list[str]] = {}
    for channel, message in messages:
        by_channel.setdefault(channel, []).append(message["event"])
        assert message["account_id"] == account_id
    assert list(by_channel.values()) == [["new", "fill"], ["new", "fill"]]
