"""One owner: whichever copy leads, bots hear one voice, and Alpaca sees one session per key."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from processes import Process, broker_environment
from support import KEY_ID, PATIENCE_S, Rig, Stopwatch, eventually
from wire import wire_in_a_thread

from alpaca_broker.core import lease as core_lease
from alpaca_broker.embedded import EmbeddedRedis
from alpaca_broker.errors import ConfigError
from alpaca_broker.simulator import SimulatorOptions, SimulatorThread


class Witness:
    """One subscriber that hears all channels of a deployment, in the order in which Redis had it.

    Holds everything against the promise as it comes: no epoch ever falls, each epoch has one
    leader, and within an epoch each price channel counts 1, 2, 3.
    """

    def __init__(self, port: int, prefix: str = "") -> None:
        self.epoch, self.heard = 0, 0
        self.leaders: dict[int, str] = {}
        self.offences: list[str] = []
        self._seq: dict[str, int] = {}
        self._skip = len(prefix)
        self._client = redis.Redis(port=port)
        self._pubsub = self._client.pubsub(ignore_subscribe_messages=True)
        self._pubsub.psubscribe(*(f"{prefix}{name}*" for name in ("price:", "order:", "broker:st")))
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="witness")
        self._thread.start()

    @property
    def leader(self) -> str:
        """Who spoke last."""
        return self.leaders.get(self.epoch, "")

    def _listen(self) -> None:
        while not self._done.is_set():
            if (found := self._pubsub.get_message(timeout=0.1)) is not None:
                self._hear(found["channel"].decode()[self._skip :], json.loads(found["data"]))

    def _hear(self, channel: str, message: dict[str, Any]) -> None:
        self.heard += 1
        epoch = message["epoch"]
        if epoch < self.epoch:
            self.offences.append(f"{channel}: epoch {epoch} after {self.epoch}")
        if epoch > self.epoch:
            self.epoch = epoch
            self._seq = {c: n for c, n in self._seq.items() if c.startswith("order:")}
        if (
            message["type"] == "status"
            and self.leaders.setdefault(epoch, message["leader"]) != (message["leader"])
        ):
            self.offences.append(f"epoch {epoch} has two leaders")
        if message["type"] in ("price_update", "order_update"):
            if message["seq"] != (expected := self._seq.get(channel, 0) + 1):
                self.offences.append(f"{channel}: seq {message['seq']}, not {expected}")
            self._seq[channel] = message["seq"]

    def __enter__(self) -> Witness:
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._client.close()


@contextmanager
def copies_of(
    valkey: EmbeddedRedis, simulator: SimulatorThread, **changes: Any
) -> Iterator[tuple[Rig, Rig]]:
    """Two copies in one process: the first one leads, the second one stands by."""
    first, second = (Rig(valkey, simulator, **changes) for _ in range(2))
    with ExitStack() as both:
        for rig in (first, second):
            both.callback(rig.broker.stop)
            rig.start(live=rig is first)
        eventually(lambda: second.broker._control.lease._stood_by)
        yield first, second


def test_an_orderly_end_hands_over_at_once(
    valkey: EmbeddedRedis,
    prefix: str,
    simulator: SimulatorThread,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The stand-by names the leader, opens nothing, and then leads with the registry restored."""
    monkeypatch.setattr(core_lease, "ABSENT_FOR_S", 3_600.0)  # as after a crash: not waited for
    stats = simulator.stats
    with (
        copies_of(valkey, simulator, prefix=prefix) as (first, second),
        Witness(valkey.port, prefix) as witness,
    ):
        first.register("AAPL", bot_id="mine")
        assert f"standing by: {first.broker.status().leader} leads" in caplog.text
        assert (stats.market_connections, stats.trading_connections) == (1, 1)
        eventually(lambda: witness.leader == first.broker.status().leader)
        first.stop()
        eventually(lambda: second.broker.status().epoch)
        eventually(lambda: second.broker.status().state == "live")
        eventually(lambda: "AAPL" in second.broker.symbols)
        eventually(lambda: witness.leader == second.broker.status().leader)
        assert witness.offences == []
    assert (stats.market_peak, stats.trading_peak) == (1, 1)
    assert not stats.errors_sent[406]


def test_a_superseded_broker_stands_by_and_leads_again(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    """It lets go of Alpaca, leaves its successor's place alone, and is there when that one goes."""
    rig.register("AAPL")
    client = redis.Redis(port=rig.valkey.port)
    epoch = rig.broker.status().epoch + 10
    other = json.dumps({"epoch": epoch, "leader": "other:1:abc", "keys": []})
    status = json.dumps({"type": "status", "leader": "other:1:abc", "state": "live"})
    with client.pipeline() as successor:
        successor.set(rig.channels.epoch, epoch).set(rig.channels.status, status)
        successor.set(rig.channels.leader, other).execute()
    eventually(lambda: "standing by: other:1:abc leads" in caplog.text)
    stats = rig.simulator.stats
    eventually(lambda: (stats.market_open, stats.trading_open) == (0, 0))
    assert client.get(rig.channels.status) == status.encode()
    client.delete(rig.channels.leader)  # it is gone
    eventually(lambda: rig.broker.status().epoch > epoch)
    eventually(lambda: rig.broker.status().state == "live")
    eventually(lambda: "AAPL" in rig.broker.symbols)
    assert (stats.market_peak, stats.trading_peak) == (1, 1)
    client.close()


def test_what_alpaca_refused_is_asked_for_anew_in_a_new_epoch(
    valkey: EmbeddedRedis, prefix: str
) -> None:
    """Whoever leads again may have waited for days: the plan may be another one."""
    with SimulatorThread(SimulatorOptions(refused_feeds=frozenset({"iex"}))) as simulator:
        rig = Rig(valkey, simulator, prefix=prefix).start(live=False)
        try:
            eventually(lambda: rig.broker.status().feeds["iex"].state == "refused")
            epoch = rig.broker.status().epoch
            with redis.Redis(port=valkey.port) as client:
                client.set(rig.channels.epoch, epoch + 10)
            eventually(lambda: rig.broker.status().epoch > epoch)
            eventually(lambda: simulator.stats.errors_sent[409] == 2)
        finally:
            rig.stop()


def test_a_frozen_redis_hands_nothing_over(
    own_valkey: EmbeddedRedis, simulator: SimulatorThread
) -> None:
    """On waking the lease has run out; the leader, who is well, comes first. So with a restart."""
    with copies_of(own_valkey, simulator) as (leader, second):
        epoch = leader.broker.status().epoch
        fence = leader.broker._control.desk._fence
        pid = own_valkey._server._process.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            eventually(lambda: not fence.is_open)
            time.sleep(2.0)  # the length of the freeze: longer than lease and absence together
        finally:
            os.kill(pid, signal.SIGCONT)
        eventually(lambda: fence.is_open)
        own_valkey.stop()
        eventually(lambda: not fence.is_open)
        own_valkey.start()
        eventually(lambda: fence.is_open)
        client = redis.Redis(port=own_valkey.port)
        eventually(lambda: client.get("broker:status"))
        assert (leader.broker.status().epoch, second.broker.status().epoch) == (epoch, 0)
        assert simulator.stats.market_connections == 1  # kept all the while
        client.close()


def test_over_a_slow_redis_it_leads_and_serves(
    own_valkey: EmbeddedRedis, simulator: SimulatorThread
) -> None:
    """Half a second for each answer: slow, and no reason to be silent."""
    with redis.Redis(port=own_valkey.port) as client:
        client.set("broker:epoch", 1)  # somebody led
    with wire_in_a_thread(own_valkey.port, delay_s=0.25) as port:
        rig = Rig(own_valkey, simulator, redis_port=port)
        try:
            with rig.bot("broker:status", "price:AAPL") as bot:
                rig.start(live=False)
                bot.until(lambda channel, _: channel == "broker:status", within_s=90)
                bot.until(lambda channel, _: channel == "price:AAPL", within_s=90)
        finally:
            rig.broker.stop()


def test_a_leader_cut_off_from_redis_is_replaced_and_then_lets_go(
    own_valkey: EmbeddedRedis, simulator: SimulatorThread
) -> None:
    """Alone it keeps its links and says nothing; once it hears that it was replaced it closes them.

    Until then Alpaca keeps the second market-data session out, as the status says.
    """
    admin = redis.Redis(port=own_valkey.port)
    for name in ("near", "far"):
        admin.execute_command("ACL", "SETUSER", name, "on", ">word", "~*", "&*", "+@all")
    stats = simulator.stats
    with ExitStack() as both:
        far, near = (
            Rig(own_valkey, simulator, redis_username=name, redis_password="word")
            for name in ("far", "near")
        )
        for rig in (far, near):
            both.callback(rig.broker.stop)
            rig.start(live=rig is far)
        eventually(lambda: near.broker._control.lease._stood_by)
        witness = both.enter_context(Witness(own_valkey.port))
        far.register("AAPL")
        admin.execute_command("ACL", "SETUSER", "far", "off")
        admin.client_kill_filter(user="far")
        eventually(lambda: near.broker.status().epoch)
        said = "another session holds the slot"
        eventually(lambda: said in (near.broker.status().feeds["iex"].error or ""))
        assert far.broker.status().feeds["iex"].state in ("live", "stale")
        admin.execute_command("ACL", "SETUSER", "far", "on")
        eventually(lambda: far.broker.status().feeds["iex"].state == "idle")
        eventually(lambda: far.broker.status().epoch == 0)
        assert witness.offences == []
        assert stats.market_peak == 1
    admin.close()


def test_the_lease_names_every_connection(
    own_valkey: EmbeddedRedis, simulator: SimulatorThread
) -> None:
    """Those of prices, orders and control; one that comes later is named before it writes."""
    client = redis.Redis(port=own_valkey.port)

    def named() -> bool:
        value = json.loads(client.get("broker:leader") or b"{}")
        ours = [c for c in client.client_list() if c["name"].startswith("alpaca-broker:")]
        kinds = {c["name"] for c in ours if int(c["id"]) in value.get("connections", ())}
        return kinds >= {f"alpaca-broker:{kind}" for kind in ("prices", "control", "lease")} and (
            {int(c["id"]) for c in ours} == set(value["connections"])
        )

    with Rig(own_valkey, simulator):
        eventually(named)
        prices = next(c for c in client.client_list() if c["name"] == "alpaca-broker:prices")
        client.client_kill_filter(_id=prices["id"])
        eventually(named)
    client.close()


def test_without_leave_to_cut_connections_it_leads_all_the_same(
    own_valkey: EmbeddedRedis, simulator: SimulatorThread, caplog: pytest.LogCaptureFixture
) -> None:
    """And says what to permit."""
    admin = redis.Redis(port=own_valkey.port)
    rules = ["on", ">word", "~*", "&*", "+@all", "-client|kill"]
    admin.execute_command("ACL", "SETUSER", "narrow", *rules)
    login = {"redis_username": "narrow", "redis_password": "word"}
    with copies_of(own_valkey, simulator, **login) as (first, second):
        first.stop()
        eventually(lambda: second.broker.status().epoch)
    assert "Permit CLIENT KILL to the broker's Redis user (+client|kill)" in caplog.text
    admin.close()


def test_another_deployment_under_the_same_prefix_is_refused(
    rig: Rig, simulator: SimulatorThread
) -> None:
    """Other keys, other deployment: it names prefix and holder, and touches nothing."""
    prefix = rig.channels.prefix
    other = Rig(rig.valkey, simulator, prefix=prefix, paper_alpaca_api_key_id="PKOTHER")
    other.start(live=False)
    try:
        with pytest.raises(ConfigError) as refused:
            other.broker.wait(timeout=PATIENCE_S)
    finally:
        other.stop()
    assert f"CHANNEL_PREFIX {prefix!r}" in str(refused.value)
    assert rig.broker.status().leader in str(refused.value)
    assert KEY_ID not in str(refused.value)
    assert rig.broker.status().state == "live"


class Copies:
    """Two brokers as processes, of which one leads."""

    def __init__(self, environment: dict[str, str], folder: Path, stack: ExitStack) -> None:
        self._environment, self._folder, self._stack = environment, folder, stack
        self.running = [self._another(), self._another()]

    def _another(self) -> Process:
        process = Process("run", env=self._environment, cwd=self._folder)
        return self._stack.enter_context(process)

    def leading(self, witness: Witness) -> Process | None:
        """The one whose heartbeat was heard last."""
        pid = int((witness.leader or "::").split(":")[1] or 0)
        return next((p for p in self.running if p.pid == pid), None)

    def kill(self, process: Process) -> None:
        """SIGKILL it, and start another copy in its place."""
        process.signal(signal.SIGKILL)
        process.ends()
        self.running.remove(process)
        self.running.append(self._another())


def standing_by(process: Process) -> bool:
    """Whether the last thing that it said of the leadership is that another one has it."""
    of_it = [line for line in list(process.lines) if "standing by" in line or "leading (" in line]
    return bool(of_it) and "standing by: " in of_it[-1]


@pytest.mark.soak
def test_kills_and_pauses_leave_one_voice_and_one_session(
    own_valkey: EmbeddedRedis, tmp_path: Path, soak: bool
) -> None:
    """Two processes: within 3 s of a SIGKILL, or of a SIGSTOP, the other one leads.

    The paused one, on waking, publishes nothing and stands by. (While it is paused nobody can
    close its links: Alpaca itself keeps the second market-data session out until it wakes.)
    """
    chance = random.Random(18)
    blows = ["kill", "kill", "pause"]
    if soak:
        blows += chance.choices(["kill", "pause"], weights=[2, 1], k=197)
    with ExitStack() as stack:
        simulator = stack.enter_context(SimulatorThread(SimulatorOptions(rate=200.0)))
        witness = stack.enter_context(Witness(own_valkey.port))
        copies = Copies(broker_environment(simulator.url, own_valkey.port), tmp_path, stack)
        client = stack.enter_context(redis.Redis(port=own_valkey.port))
        wish = {"action": "register", "symbols": ["AAPL", "MSFT"], "bot_id": "witness"}
        eventually(lambda: copies.leading(witness))
        eventually(lambda: client.publish("broker:registration", json.dumps(wish)) == 2)
        took = []
        for blow in blows:
            leader = eventually(lambda: copies.leading(witness))
            assert leader is not None
            other = next(p for p in copies.running if p is not leader)
            eventually(lambda other=other: standing_by(other), why=other.output)
            before, heard = witness.epoch, witness.heard
            eventually(lambda heard=heard: witness.heard > heard)
            with Stopwatch() as lived:
                leader.signal(signal.SIGKILL if blow == "kill" else signal.SIGSTOP)
                eventually(lambda before=before: witness.epoch > before)
            took.append(lived.seconds)
            if blow == "kill":
                copies.kill(leader)
            else:
                time.sleep(7.0 if soak else 0.5)  # the rest of the pause
                leader.signal(signal.SIGCONT)
                eventually(lambda leader=leader: standing_by(leader), why=leader.output)
        # On a busy machine one of a few may be late: it is another process that has to run.
        assert sorted(took)[-2] < 3.0
        assert witness.offences == []
        assert simulator.stats.market_peak == 1
        print(f"\n{len(blows)} kills and pauses: the next one led after {max(took):.2f} s at most")
