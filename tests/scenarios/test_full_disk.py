"""Redis' disk is full: it refuses to take anything in, and nothing promised is lost."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

from full_disk import SmallDisk
from support import Bot, Rig, buy, eventually

from alpaca_broker import Client
from alpaca_broker.simulator import SimulatorThread


def beats_on(bot: Bot) -> None:
    """Two beats in less than two seconds: soon, on whatever machine."""
    times = [bot.until(lambda _, m: m["type"] == "status")["timestamp"]]
    while len(times) < 2 or times[-1] - times[-2] >= 2:
        assert len(times) < 20, times
        times.append(bot.until(lambda _, m: m["type"] == "status")["timestamp"])


def test_orders_wait_for_room_the_status_says_so_and_prices_flow(
    simulator: SimulatorThread, tmp_path: Path
) -> None:
    """Each order event is there once and in order when there is room; bots are told meanwhile."""
    with SmallDisk(tmp_path) as valkey, Rig(valkey, simulator) as rig:
        rig.register("AAPL")
        (account_id,) = rig.broker.status().accounts
        with Client(host="127.0.0.1", port=valkey.port) as client:
            prices = client.prices("AAPL", gaps=False)
            orders = client.orders(account_id, gaps=False)
            assert client.wait_ready()
            buy(simulator.url)
            assert [next(orders).seq for _ in range(2)] == [1, 2]
            valkey.fill()
            for _ in range(3):
                buy(simulator.url)
            with rig.bot("broker:status") as bot:
                status = bot.until(
                    lambda _, m: m.get("accounts", {}).get(account_id, {}).get("state") == "stale"
                )
                # The heart beats on, at its pace: a bot tells a full disk from a dead broker.
                beats_on(bot)
            assert "No space left on device" in status["accounts"][account_id]["error"]
            assert status["state"] != "live"
            while prices.poll() is not None:
                pass
            assert next(prices).price > 0  # what is only said, flows
            assert orders.poll() is None
            valkey.clear()
            assert [next(orders).seq for _ in range(6)] == [3, 4, 5, 6, 7, 8]
            eventually(lambda: rig.broker.status().accounts[account_id].state == "live")
        kept = [
            json.loads(f[b"data"]) for _, f in valkey.redis.xrange(f"journal:order:{account_id}")
        ]
    ledger = simulator.simulator.ledger(account_id)
    assert [(u["order_id"], u["event"]) for u in kept] == [
        (e["order"]["id"], e["event"]) for e in ledger
    ]
    assert [u["seq"] for u in kept] == list(range(1, 9))


def test_a_leader_that_leaves_a_full_disk_is_followed_when_there_is_room(
    simulator: SimulatorThread, tmp_path: Path
) -> None:
    """Bots hear that it goes; nobody can take the epoch before Redis takes anything in."""
    with SmallDisk(tmp_path) as valkey, ExitStack() as both:
        first, second = (Rig(valkey, simulator) for _ in range(2))
        for rig in (first, second):
            both.callback(rig.broker.stop)
            rig.start(live=rig is first)
        eventually(lambda: second.broker._control.lease._stood_by)
        with first.bot("broker:status") as bot:
            valkey.fill()
            first.stop()
            bot.until(lambda _, m: m["type"] == "status" and m["state"] == "down")
        eventually(lambda: not second.broker._control.lease.redis.is_up)
        assert not second.broker.status().epoch
        valkey.clear()
        eventually(lambda: second.broker.status().epoch)
        eventually(lambda: second.broker.status().state == "live")
