"""docs/operations.md against the running program: what it says is on the page, and back."""

from __future__ import annotations

import logging
import os
import re
import signal
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from support import KEY_ID, SECRET, Rig, buy, closed_port, eventually

from alpaca_broker.bus.journal import Superseded
from alpaca_broker.embedded import EmbeddedRedis
from alpaca_broker.errors import BrokerError, ConfigError
from alpaca_broker.settings import load_settings
from alpaca_broker.simulator import SimulatorOptions, SimulatorThread

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
LISTS = PAGE.split("## Two copies")[0]
ROWS = [row.replace("\\|", "|") for row in re.findall(r"^\| `(.*?)` \| ", LISTS, re.MULTILINE)]
KEYS = f"PAPER_ALPACA_API_KEY_ID={KEY_ID}\nPAPER_ALPACA_API_SECRET_KEY={SECRET}\n"
SWING = "SWING_ALPACA_API_KEY_ID=PK2\nSWING_ALPACA_API_SECRET_KEY=x\n"


def row_of(line: str) -> str | None:
    """The row of the page that a line belongs to: the one that says most of it."""
    fitting = [r for r in ROWS if re.fullmatch(".*".join(map(re.escape, r.split("…"))), line)]
    return max(fitting, key=len, default=None)


SETTINGS = {
    "no Alpaca keys": "",
    "… is missing: set it": "PAPER_ALPACA_API_KEY_ID=PK1\n",
    "… is missing: ALPACA_ACCOUNTS": KEYS + "ALPACA_ACCOUNTS=swing\n",
    "…_ALPACA_ENVIRONMENT": f"{KEYS}{SWING}ALPACA_ACCOUNTS=swing\nSWING_ALPACA_ENVIRONMENT=demo\n",
    "ALPACA_ACCOUNTS in": KEYS + "ALPACA_ACCOUNTS=2nd\n",
    "ALPACA_DATA_ACCOUNT is": KEYS + "ALPACA_DATA_ACCOUNT=live\n",
    "… in …: must be": KEYS + "REDIS_PORT=many\n",
    "… in …: may hold": KEYS + "CHANNEL_PREFIX=a b\n",
    "… cannot be read": "\udcff",
}


@pytest.mark.parametrize("row", SETTINGS)
def test_a_wrong_setting_is_on_the_page(row: str, tmp_path: Path) -> None:
    """Each line, and by the row that is meant for it."""
    file = tmp_path / ".env"
    file.write_bytes(SETTINGS[row].encode(errors="surrogateescape"))
    with pytest.raises(ConfigError) as caught:
        load_settings(file)
    for line in str(caught.value).splitlines():
        assert (row_of(line) or "").startswith(row), line


class Stage:
    """Servers, brokers on them, and what those say."""

    def __init__(self, stack: ExitStack, valkey: EmbeddedRedis, prefix: str) -> None:
        self._stack, self.valkey, self.prefix = stack, valkey, prefix
        self._rigs: list[Rig] = []
        self._last_words: list[str] = []

    def simulator(self, **options: Any) -> SimulatorThread:
        """A pretend Alpaca."""
        return self._stack.enter_context(SimulatorThread(SimulatorOptions(**options)))

    def broker(
        self, simulator: SimulatorThread, variables: dict[str, str] | None = None, **changes: Any
    ) -> Rig:
        """A broker that was started."""
        rig = Rig(self.valkey, simulator, **{"prefix": self.prefix} | changes)
        if variables is not None:
            rig.configure(variables, alpaca_accounts="swing")
        self._stack.callback(rig.broker.stop)
        self._rigs.append(rig)
        return rig.start(live=False)

    def last_words(self) -> list[str]:
        """What brokers said that have ended by themselves: `run` prints it and exits."""
        for rig in self._rigs:
            try:
                rig.broker.wait(timeout=0.0)
            except BrokerError as error:
                self._last_words += str(error).splitlines()
        return self._last_words

    def fill_memory(self) -> None:
        """Redis has no room any more, until the end of the test."""
        admin = self._stack.enter_context(redis.Redis(port=self.valkey.port))
        self._stack.callback(admin.config_set, "maxmemory", "0")
        admin.config_set("maxmemory", "1")

    def user(self, *rules: str) -> dict[str, str]:
        """The settings of a Redis user with these rules."""
        with redis.Redis(port=self.valkey.port) as admin:
            admin.execute_command("ACL", "SETUSER", "narrow", "reset", "on", ">word", *rules)
        return {"redis_username": "narrow", "redis_password": "word"}

    def stands_by(self, rig: Rig) -> None:
        """Wait until this broker hears another one lead."""
        eventually(lambda: rig.broker._control.lease._stood_by)


def swing(key_id: str) -> dict[str, str]:
    """The variables of an account named swing."""
    return {"SWING_ALPACA_API_KEY_ID": key_id, "SWING_ALPACA_API_SECRET_KEY": SECRET}


def wrong_keys(stage: Stage) -> None:
    stage.broker(stage.simulator(keys={"other": "pair"}))


def a_live_key_in_the_wrong_place(stage: Stage) -> None:
    stage.broker(stage.simulator(keys={KEY_ID: SECRET}), swing("AK2"))


def one_account_twice(stage: Stage) -> None:
    stage.broker(stage.simulator(), swing(KEY_ID))


def no_plan_for_sip(stage: Stage) -> None:
    stage.broker(stage.simulator(refused_feeds=frozenset({"sip"})), alpaca_feed="sip")


def a_taken_slot(stage: Stage) -> None:
    simulator = stage.simulator()
    first = stage.broker(simulator)
    eventually(lambda: first.broker.status().state == "live")
    stage.broker(simulator, prefix=f"{stage.prefix}other:")


def no_alpaca(stage: Stage) -> None:
    simulator = stage.simulator()
    simulator.stop_server()
    stage.broker(simulator)


def a_wrong_clock(stage: Stage) -> None:
    stage.broker(stage.simulator(time=datetime.now(UTC) + timedelta(hours=9)))


def no_redis(stage: Stage) -> None:
    stage.broker(stage.simulator(), redis_port=closed_port())


def a_wrong_password(stage: Stage) -> None:
    stage.broker(stage.simulator(), redis_username="nobody", redis_password="wrong")


def no_tls_there(stage: Stage) -> None:
    simulator = stage.simulator()
    stage.broker(simulator, redis_tls=True, redis_port=simulator.port)


def no_answer(stage: Stage) -> None:
    stage.broker(stage.simulator(), redis_tls=True)  # a greeting that a plain server never answers


def no_scripts(stage: Stage) -> None:
    stage.broker(stage.simulator(), **stage.user("~*", "&*", "+@all", "-@scripting"))


def no_price_channels(stage: Stage) -> None:
    channels = f"&{stage.prefix}broker:*"
    simulator = stage.simulator(rate=100.0)
    rig = stage.broker(simulator, **stage.user("~*", channels, "+@all"))
    rig.register("AAPL")


def full_memory(stage: Stage) -> None:
    rig = stage.broker(stage.simulator())
    eventually(lambda: rig.broker.status().state == "live")
    stage.fill_memory()


def more_than_fits(stage: Stage) -> None:
    rig = stage.broker(stage.simulator(rate=300.0), price_buffer=200)
    rig.register("AAPL", "MSFT", "TSLA")
    eventually(lambda: rig.broker.counters["prices"] > 10)
    pid = stage.valkey._server._process.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        eventually(lambda: rig.broker._prices.feeds[0].status.skipped > 10)
    finally:
        os.kill(pid, signal.SIGCONT)


def two_copies(stage: Stage) -> None:
    simulator = stage.simulator()
    user = stage.user("~*", "&*", "+@all", "-client|kill")
    first = stage.broker(simulator, **user)
    eventually(lambda: first.broker.status().state == "live")
    first.register("AAPL")
    with redis.Redis(port=stage.valkey.port) as client:
        kept = lambda: client.hget(first.channels.received, "iex")  # noqa: E731
        eventually(kept, why="nobody would know from when on something was missed")
    second = stage.broker(simulator, **user)
    stage.stands_by(second)
    first.broker.stop()
    eventually(lambda: second.broker.status().epoch)
    with redis.Redis(port=stage.valkey.port) as client:
        client.incrby(second.channels.epoch, 1_000)


def no_epoch(stage: Stage) -> None:
    with redis.Redis(port=stage.valkey.port) as client:
        client.set(f"{stage.prefix}broker:epoch", "inf")
    stage.broker(stage.simulator())


def an_epoch_that_redis_lost(stage: Stage) -> None:
    rig = stage.broker(stage.simulator())
    eventually(lambda: rig.broker.status().state == "live")

    async def refused() -> None:
        raise Superseded(rig.broker.status().epoch + 1)

    control = rig.broker._control
    control.desk._keep = refused  # type: ignore[method-assign]
    rig.broker._control_thread.call(control.desk.work)


def another_deployment(stage: Stage) -> None:
    simulator = stage.simulator()
    first = stage.broker(simulator)
    eventually(lambda: first.broker.status().state == "live")
    stage.broker(simulator, paper_alpaca_api_key_id="PKOTHER")


def another_deployments_leavings(stage: Stage) -> None:
    simulator = stage.simulator()
    first = stage.broker(simulator)
    eventually(lambda: first.broker.status().state == "live")
    first.broker.stop()
    stage.broker(simulator, paper_alpaca_api_key_id="PKOTHER")


CASES: dict[Callable[[Stage], None], tuple[str, ...]] = {
    wrong_keys: ("… account: … (HTTP 401)", "… feed: … (402)", "Alpaca refused everything"),
    a_live_key_in_the_wrong_place: ("…_KEY_ID begins with", "… account: … (HTTP 401)"),
    one_account_twice: ("… account: the same account as",),
    no_plan_for_sip: ("… feed: … (409)",),
    a_taken_slot: ("… feed: another session holds the slot",),
    no_alpaca: ("… account: …: cannot be reached", "… feed: …: cannot be reached"),
    a_wrong_clock: ("this machine's clock",),
    no_redis: ("Redis at … cannot be reached",),
    a_wrong_password: ("Redis at … refused the login",),
    no_answer: ("Redis at … does not answer",),
    no_tls_there: ("TLS to Redis at … failed",),
    no_scripts: ("Redis at … does not permit it",),
    no_price_channels: ("Redis refuses messages",),
    more_than_fits: ("more comes than fits",),
    full_memory: ("Redis takes nothing in", "Redis at … does not keep the lease"),
    two_copies: (
        "gap of",
        "standing by: …",
        "cannot cut the connections",
        "another broker leads now",
    ),
    no_epoch: ("what … holds is no epoch",),
    an_epoch_that_redis_lost: ("epoch … was refused once",),
    another_deployment: ("another deployment leads under",),
    another_deployments_leavings: ("what is under CHANNEL_PREFIX",),
}


@pytest.mark.parametrize("provoke", CASES, ids=lambda case: case.__name__)
def test_what_it_says_is_on_the_page(
    provoke: Callable[[Stage], None],
    own_valkey: EmbeddedRedis,
    prefix: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Every line that a person sees at WARNING or above, and every last word."""
    with ExitStack() as stack:
        stage = Stage(stack, own_valkey, prefix)
        provoke(stage)

        def said() -> list[str]:
            records = [r for r in caplog.records if r.name.startswith("alpaca_broker.")]
            lines = [r.getMessage() for r in records if r.levelno >= logging.WARNING]
            return lines + stage.last_words()

        def found() -> bool:
            rows = [row_of(line) or "" for line in said()]
            return all(any(row.startswith(w) for row in rows) for w in CASES[provoke])

        eventually(found, why=f"{CASES[provoke]} are not all in {said()}")
        strange = [line for line in said() if row_of(line) is None]
    assert strange == []


def test_every_line_of_the_page_is_provoked() -> None:
    """A row that nothing here provokes may be a row that nothing ever says."""
    meant = [*SETTINGS, *(row for rows in CASES.values() for row in rows)]
    assert [row for row in ROWS if not any(row.startswith(m) for m in meant)] == []
    assert len(ROWS) == len(set(ROWS))


def test_the_brokers_user_may_do_all_that_it_must(
    own_valkey: EmbeddedRedis, simulator: SimulatorThread, caplog: pytest.LogCaptureFixture
) -> None:
    """The page's own line: prices, orders, registrations, snapshots, a take-over."""
    [rules] = re.findall(r"```acl\n(.*?)```", PAGE, re.DOTALL)
    with redis.Redis(port=own_valkey.port) as admin:
        admin.execute_command("ACL", "SETUSER", *rules.split())
    user = {"redis_username": "broker", "redis_password": "choose-a-password"}
    first, second = (Rig(own_valkey, simulator, **user) for _ in range(2))
    with ExitStack() as stack:
        for rig in (first, second):
            stack.callback(rig.broker.stop)
            rig.start(live=rig is first)
        eventually(lambda: second.broker._control.lease._stood_by)
        first.register("AAPL")
        buy(simulator.url)
        eventually(lambda: first.broker.counters["order_events"] == 2)
        client = stack.enter_context(redis.Redis(port=own_valkey.port))
        eventually(lambda: client.hget("price:last", "AAPL"))
        eventually(lambda: client.hgetall("broker:registry"))
        first.stop()
        eventually(lambda: second.broker.status().state == "live")
        eventually(lambda: "AAPL" in second.broker.symbols)
        log = client.execute_command("ACL", "LOG")
    assert log == []
    assert "permi" not in caplog.text
