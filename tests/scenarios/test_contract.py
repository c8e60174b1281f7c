"""The contract as a bot without our library meets it: literal messages, ● fields, heartbeat."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator

import pytest
import redis
from support import Rig, buy, eventually

from alpaca_broker.embedded import EmbeddedRedis
from alpaca_broker.simulator import SimulatorThread

Say = Callable[[str], None]

REGISTER = (
    '{"action": "register", "symbols": ["AAPL", "MSFT", "GOOGL"], '
    '"account_id": "your_alpaca_account_id"}'
)


@pytest.fixture
def plain(own_valkey: EmbeddedRedis, simulator: SimulatorThread) -> Iterator[Rig]:
    """A broker under no prefix: the channel names are the contract's own."""
    with Rig(own_valkey, simulator) as running:
        yield running


@pytest.fixture(params=["redis-cli", "socket"])
def say(request: pytest.FixtureRequest, plain: Rig) -> Say:
    """Sends a message to broker:registration, by redis-cli or by what it would send."""
    port = plain.valkey.port

    def by_program(message: str) -> None:
        program = shutil.which("redis-cli") or "redis-cli"
        words = [program, "-p", str(port), "PUBLISH", "broker:registration", message]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout.strip().endswith("1"), done.stdout

    def by_socket(message: str) -> None:
        client = redis.Redis(port=port)
        assert client.execute_command("PUBLISH", "broker:registration", message) == 1
        client.close()

    if request.param == "redis-cli" and shutil.which("redis-cli") is None:
        pytest.skip("redis-cli is not installed here")
    return by_program if request.param == "redis-cli" else by_socket


def test_the_literal_messages_do_what_they_say(plain: Rig, say: Say) -> None:
    """Register three symbols, take one back, then everything."""
    say(REGISTER)
    eventually(lambda: plain.broker.symbols == {"AAPL", "MSFT", "GOOGL"})
    say('{"action":"unregister","symbols":["MSFT"],"account_id":"your_alpaca_account_id"}')
    eventually(lambda: plain.broker.symbols == {"AAPL", "GOOGL"})
    say('{"action":"unregister","symbols":[],"account_id":"your_alpaca_account_id"}')
    eventually(lambda: plain.broker.symbols == frozenset())


def test_a_message_that_cannot_be_followed_changes_nothing(rig: Rig) -> None:
    """And costs the other bots nothing: a good one after it is followed."""
    rig.register("AAPL", bot_id="first")
    wanted = {"AAPL"}
    for number, message in enumerate(
        [
            "hello",
            "[]",
            '{"action":"buy","symbols":["AAPL"]}',
            '{"action":"register","symbols":"AAPL"}',
            '{"action":"register","symbols":[],"bot_id":"x"}',
            '{"action":"unregister","symbols":["AAPL"]}',
            '{"action":"unregister","symbols":["AAPL"],"bot_id":"stranger"}',
            '{"action":"register","symbols":["price:*"],"bot_id":"x"}',
        ]
    ):
        with rig.bot() as bot:
            bot.send(rig.channels.registration, message.encode())
        wanted.add(f"S{number}")
        rig.register(f"S{number}", bot_id="second")  # heard after the bad one, in order
        assert rig.broker.symbols == wanted, message
        assert rig.broker.status().bots == 2, message


def test_a_bad_message_is_told_once_a_second(rig: Rig) -> None:
    """A hundred of them make few lines on broker:logs, which say how many there were."""
    with rig.bot(rig.channels.logs) as bot, rig.bot() as flood:
        for _ in range(100):
            flood.send(rig.channels.registration, b"rubbish")
        record = bot.until(lambda _, m: "not understood" in m["message"])
        assert record["level"] == "WARNING"
        rig.register("AAPL")
        lines = []
        while "registered" not in (record := bot.next()[1])["message"]:
            lines.append(record)
        assert len(lines) < 5


def test_symbols_come_and_go_on_one_connection(rig: Rig) -> None:
    """Twenty changes, one upstream connection; other bots' symbols see no hole."""
    rig.register("AAPL", bot_id="steady")
    with rig.bot(rig.channels.price("AAPL")) as bot:
        for turn in range(10):
            rig.register("MSFT", f"S{turn}", bot_id="restless")
            bot.send(rig.channels.registration, {"action": "unregister", "bot_id": "restless"})
            eventually(lambda: rig.broker.symbols == {"AAPL"})
        first = bot.next()[1]["seq"]
        assert [bot.next()[1]["seq"] for _ in range(100)] == list(range(first + 1, first + 101))
    assert rig.simulator.stats.market_connections == 1
    assert rig.simulator.stats.unsubscribe_messages == 10


def test_the_wildcard_brings_every_symbol(rig: Rig) -> None:
    """`"*"` is every symbol of the feed."""
    rig.register("*")
    with rig.bot() as bot:
        bot.subscribe_to_pattern(rig.channels.price("*"))
        message = {"T": "t", "S": "ZZZZ", "p": 1.25, "s": 1, "t": "2026-01-05T15:00:00Z"}
        rig.simulator.call(rig.simulator.simulator.emit, "iex", message)
        found = bot.until(lambda channel, _: channel.endswith("ZZZZ"))
        assert (found["price"], found["timestamp"]) == (1.25, 1767625200)


def test_a_symbol_limit_is_said_in_the_status(valkey: EmbeddedRedis, prefix: str) -> None:
    """What Alpaca refuses stands in `refused`; the rest is served; the link stays."""
    from alpaca_broker.simulator import SimulatorOptions

    with (
        SimulatorThread(SimulatorOptions(symbol_limit=2, rate=50.0)) as simulator,
        Rig(valkey, simulator, prefix=prefix) as rig,
    ):
        rig.register("AAPL", "MSFT", bot_id="first")
        with rig.bot(rig.channels.status) as bot:
            wish = {"action": "register", "symbols": ["IBM"], "bot_id": "late"}
            bot.send(rig.channels.registration, wish)
            status = bot.until(lambda _, m: bool("feeds" in m and m["feeds"]["iex"]["refused"]))
        assert status["feeds"]["iex"]["refused"] == {"IBM": 405}
        assert status["feeds"]["iex"]["symbols"] == 2
        assert simulator.stats.market_connections == 1


def test_price_updates_have_the_given_fields_and_ours(rig: Rig) -> None:
    """● type, symbol, price, timestamp; then size, exchange, conditions and the rest."""
    rig.register("AAPL")
    with rig.bot(rig.channels.price("AAPL")) as bot:
        message = bot.next()[1]
        assert message["type"] == "price_update"
        assert message["symbol"] == "AAPL"
        assert isinstance(message["price"], float | int)
        assert abs(message["received_at"] - message["timestamp"]) < 5
        assert set(message) == {
            *("type", "symbol", "price", "timestamp", "size", "exchange", "conditions"),
            *("trade_id", "feed", "received_at", "seq", "epoch"),
        }
        assert message["epoch"] == rig.broker.status().epoch


def test_order_updates_are_published_and_journalled(rig: Rig) -> None:
    """The event on the channel is the journal's entry, and an open order is in `orders:open:`."""
    rig.register("AAPL")
    (account_id,) = rig.broker.status().accounts
    client = redis.Redis(port=rig.valkey.port)
    with rig.bot(rig.channels.order(account_id)) as bot:
        far = buy(rig.simulator.url, type="limit", limit_price="1.00", client_order_id="mo.1")
        new = bot.next()[1]
        assert {k: new[k] for k in ("type", "order_id", "status", "side", "filled_qty")} == {
            "type": "order_update",
            "order_id": far["id"],
            "status": "new",
            "side": "buy",
            "filled_qty": 0,
        }
        assert new["filled_avg_price"] is None
        assert (new["seq"], new["event"], new["bot_id"]) == (1, "new", "mo")
        assert new["limit_price"] == 1.0
        open_orders = client.hgetall(rig.channels.open_orders(account_id))
        assert json.loads(open_orders[far["id"].encode()]) == new
        bought = buy(rig.simulator.url)
        fill = bot.until(lambda _, m: m["event"] == "fill")
        assert (fill["order_id"], fill["status"], fill["filled_qty"]) == (bought["id"], "filled", 1)
        assert fill["filled_avg_price"] == fill["execution_price"]
        assert fill["execution_qty"] == 1
    entries = client.xrange(rig.channels.journal(account_id))
    assert [entry_id for entry_id, _ in entries] == [b"1-0", b"2-0", b"3-0"]
    assert json.loads(entries[2][1][b"data"]) == fill
    assert set(client.hkeys(rig.channels.open_orders(account_id))) == {far["id"].encode()}
    client.close()


def test_the_heart_beats_every_second_and_leaves_a_key_that_expires(rig: Rig) -> None:
    """Three beats within four seconds; the key holds the last one and lives five seconds."""
    with rig.bot(rig.channels.status) as bot:
        beats = [bot.until(lambda _, m: m["type"] == "status") for _ in range(3)]
        while beats[-1]["timestamp"] - beats[-3]["timestamp"] >= 4:  # the machine stood still
            assert len(beats) < 20
            beats.append(bot.until(lambda _, m: m["type"] == "status"))
    assert {b["contract"] for b in beats} == {1}
    client = redis.Redis(port=rig.valkey.port)
    kept = json.loads(eventually(lambda: client.get(rig.channels.status)))  # type: ignore[arg-type]
    assert kept["epoch"] == beats[0]["epoch"]
    assert 0 < client.ttl(rig.channels.status) <= 5
    client.close()


def test_the_last_words_say_down_and_free_the_place(valkey: EmbeddedRedis, prefix: str) -> None:
    """Bots learn of an orderly end at once, and the next broker need not wait."""
    with SimulatorThread() as simulator:
        rig = Rig(valkey, simulator, prefix=prefix).start()
        with rig.bot(rig.channels.status) as bot:
            rig.stop()
            bot.until(lambda _, m: m.get("state") == "down")
            assert bot._client.get(rig.channels.status) is None


def test_log_records_have_the_contracts_shape(rig: Rig) -> None:
    """type, level, logger, message, timestamp, and the event's fields."""
    with rig.bot(rig.channels.logs) as bot:
        rig.register("AAPL", bot_id="talker")
        record = bot.until(lambda _, m: m.get("bot") == "talker")
    assert record["type"] == "log"
    assert record["level"] == "INFO"
    assert record["logger"].startswith("alpaca_broker")
    assert "talker registered AAPL" in record["message"]
    assert isinstance(record["timestamp"], float)


@pytest.mark.parametrize("rubbish", [b"\xff", b'{"leader":"\xff"}', b"[" * 100_000, b"{}"])
def test_rubbish_in_the_brokers_own_keys_keeps_no_broker_from_leading(
    valkey: EmbeddedRedis, prefix: str, simulator: SimulatorThread, rubbish: bytes
) -> None:
    """Nobody of ours wrote that."""
    rig = Rig(valkey, simulator, prefix=prefix)
    client = redis.Redis(port=valkey.port)
    client.set(rig.channels.status, rubbish)
    client.set(rig.channels.leader, rubbish)
    client.set(rig.channels.deployment, rubbish)
    client.set(rig.channels.epoch, "abc")
    client.hset(rig.channels.received, "iex", "never")
    client.hset(rig.channels.registry, "bot", b"\xff")
    client.close()
    with rig:
        assert rig.broker.status().state == "live"


def test_prices_that_redis_refuses_are_said_in_the_status(
    own_valkey: EmbeddedRedis, simulator: SimulatorThread
) -> None:
    """Alpaca is live, and nothing arrives: the feed is stale, the state is degraded."""
    admin = redis.Redis(port=own_valkey.port)
    channels = ["resetchannels", "&broker:*", "&order:*"]
    admin.execute_command("ACL", "SETUSER", "narrow", "on", ">word", "~*", "+@all", *channels)
    with Rig(own_valkey, simulator, redis_username="narrow", redis_password="word") as rig:
        with rig.bot("broker:status") as bot:
            wish = {"action": "register", "symbols": ["AAPL"], "bot_id": "b"}
            eventually(lambda: bot.send("broker:registration", wish))
            status = bot.until(lambda _, m: m.get("state") == "degraded")
        assert status["feeds"]["iex"]["state"] == "stale"
        assert "Redis refuses prices" in status["feeds"]["iex"]["error"]
    admin.close()
