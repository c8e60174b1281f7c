"""What bots import: every message arrives decoded, and nothing short of `close` ends the listening.

The servers are real; a frozen one is really frozen.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from support import PATIENCE_S, Stopwatch, eventually

from alpaca_broker import client
from alpaca_broker.client import CHANNELS, RedisPublisher, RedisSubscriber
from alpaca_broker.embedded import EmbeddedRedis
from alpaca_broker.errors import BusError, UsageError
from alpaca_broker.settings import RedisTarget

Messages = list[dict[str, Any]]


class Bot:
    """A publisher and a subscriber on one server, under one prefix."""

    def __init__(self, server: EmbeddedRedis, prefix: str = "") -> None:
        target = RedisTarget("127.0.0.1", server.port, 0)
        self.publisher = RedisPublisher(target, prefix=prefix)
        self.subscriber = RedisSubscriber(target, prefix=prefix)
        self.say = self.publisher.publish

    def close(self) -> None:
        self.subscriber.close()
        self.publisher.close()


@pytest.fixture
def bot(valkey: EmbeddedRedis, prefix: str) -> Iterator[Bot]:
    """A bot on the shared server."""
    bot = Bot(valkey, prefix)
    yield bot
    bot.close()


@pytest.fixture
def own_bot(own_valkey: EmbeddedRedis) -> Iterator[Bot]:
    """A bot on a server that may be stopped."""
    bot = Bot(own_valkey)
    yield bot
    bot.close()


def heard(bot: Bot, channel: str = "price:AAPL") -> Messages:
    """A list that fills with what is said on `channel`."""
    messages: Messages = []
    bot.subscriber.subscribe(channel, messages.append)
    return messages


def test_names_are_the_contracts() -> None:
    """The constants and functions spell the contract's channels."""
    assert CHANNELS.BROKER_REGISTRATION == "broker:registration"
    assert CHANNELS.BROKER_LOGS == "broker:logs"
    assert CHANNELS.BROKER_STATUS == "broker:status"
    assert CHANNELS.price("BRK.B") == "price:BRK.B"
    assert CHANNELS.order("me") == "order:me"


def test_settings_are_the_default(valkey: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without arguments, the environment says where Redis is and which prefix is used."""
    monkeypatch.setenv("REDIS_PORT", str(valkey.port))
    monkeypatch.setenv("CHANNEL_PREFIX", "settings:")
    with redis.Redis(port=valkey.port) as plain, plain.pubsub() as pubsub:
        pubsub.subscribe("settings:price:AAPL")
        pubsub.get_message(timeout=PATIENCE_S)
        with RedisPublisher() as publisher:
            assert publisher.publish("price:AAPL", {"price": 1.5}) == 1
        message = pubsub.get_message(timeout=PATIENCE_S)
    assert json.loads(message["data"]) == {"price": 1.5}


def test_nothing_is_missed_from_the_first_moment(bot: Bot) -> None:
    """What is said right after `start_listening` and `subscribe` have returned is heard."""
    before = heard(bot)
    bot.subscriber.start_listening()
    assert bot.say("price:AAPL", {"n": 1}) == 1
    after = heard(bot, "price:MSFT")
    assert bot.say("price:MSFT", {"n": 2}) == 1
    eventually(lambda: (before, after) == ([{"n": 1}], [{"n": 2}]))


def test_every_handler_gets_its_own_message(bot: Bot) -> None:
    """Several handlers of a channel are all called; what one does to its message stays with it."""
    bot.subscriber.subscribe("price:AAPL", dict.clear)
    messages = heard(bot)
    bot.subscriber.subscribe("price:AAPL", messages.append)
    bot.subscriber.start_listening()
    bot.say("price:AAPL", {"n": 1})
    bot.say("price:AAPL", {"n": 2})
    eventually(lambda: messages == [{"n": 1}, {"n": 2}])


def test_unsubscribe_takes_one_handler_or_all(bot: Bot) -> None:
    """A handler that was taken off is silent; with the last one the channel is given back."""
    first, second = heard(bot), []
    bot.subscriber.subscribe("price:AAPL", second.append)
    bot.subscriber.start_listening()
    bot.subscriber.unsubscribe("price:AAPL", first.append)
    bot.say("price:AAPL", {"n": 1})
    eventually(lambda: second == [{"n": 1}])
    assert first == []
    bot.subscriber.unsubscribe("price:AAPL")
    bot.subscriber.unsubscribe("price:AAPL")
    eventually(lambda: bot.say("price:AAPL", {"n": 2}) == 0)


@pytest.mark.parametrize("failure", [ValueError("broken"), SystemExit(1)])
def test_a_failing_handler_is_logged_and_listening_goes_on(
    bot: Bot, caplog: pytest.LogCaptureFixture, failure: BaseException
) -> None:
    """The other handlers and the next messages are not affected."""

    def fail(_: dict[str, Any]) -> None:
        raise failure

    bot.subscriber.subscribe("price:AAPL", fail)
    messages = heard(bot)
    bot.subscriber.start_listening()
    bot.say("price:AAPL", {"n": 1})
    bot.say("price:AAPL", {"n": 2})
    eventually(lambda: len(messages) == 2)
    errors = [r for r in caplog.records if r.name == "alpaca_broker.client" and r.exc_info]
    assert [r.exc_info[1] for r in errors] == [failure, failure]


def test_what_is_no_json_object_is_skipped_with_one_line(
    bot: Bot, valkey: EmbeddedRedis, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A flood of rubbish costs one line each second, not the listening."""
    messages = heard(bot)
    bot.subscriber.start_listening()
    with redis.Redis(port=valkey.port) as plain:
        for rubbish in (b"no json", b"\xff", b"[1]", b"1", b"[" * 100_000):
            plain.publish(f"{prefix}price:AAPL", rubbish)
    bot.say("price:AAPL", {"n": 1})
    eventually(lambda: messages == [{"n": 1}])
    lines = [r for r in caplog.records if r.name == "alpaca_broker.client"]
    assert [r.levelno for r in lines] == [logging.WARNING]


def test_a_restart_of_redis_is_survived(own_valkey: EmbeddedRedis, own_bot: Bot) -> None:
    """Every channel is subscribed to again, also those that came while Redis was away."""
    messages = heard(own_bot)
    own_bot.subscriber.start_listening()
    own_valkey.stop()
    eventually(lambda: own_bot.subscriber._trouble)
    later = heard(own_bot, "price:MSFT")
    own_valkey.start()
    eventually(lambda: own_bot.say("price:AAPL", {"n": 1}) == 1)
    eventually(lambda: own_bot.say("price:MSFT", {"n": 2}) == 1)
    eventually(lambda: (messages, later) == ([{"n": 1}], [{"n": 2}]))


def test_a_redis_that_comes_later_is_found(unused_tcp_port: int) -> None:
    """A bot may be started before Redis."""
    target = RedisTarget("127.0.0.1", unused_tcp_port, 0)
    with RedisSubscriber(target, prefix="") as subscriber, RedisPublisher(target, prefix="") as p:
        messages: Messages = []
        subscriber.subscribe("price:AAPL", messages.append)
        subscriber.start_listening()
        with pytest.raises(BusError, match=f"127.0.0.1:{unused_tcp_port}.*is it running"):
            p.publish("price:AAPL", {})
        with EmbeddedRedis(port=unused_tcp_port):
            eventually(lambda: p.publish("price:AAPL", {"n": 1}) == 1)
            eventually(lambda: messages == [{"n": 1}])


def test_a_frozen_redis_is_noticed(
    own_valkey: EmbeddedRedis, own_bot: Bot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that is open but dead is given up after an unanswered ping."""
    assert client.SILENT_FOR_S + client.ANSWER_WITHIN_S <= 10
    monkeypatch.setattr(client, "SILENT_FOR_S", 0.1)
    monkeypatch.setattr(client, "ANSWER_WITHIN_S", 0.2)
    messages = heard(own_bot)
    own_bot.subscriber.start_listening()
    with redis.Redis(port=own_valkey.port) as plain:
        process = int(plain.info("server")["process_id"])
    os.kill(process, signal.SIGSTOP)
    try:
        eventually(lambda: own_bot.subscriber._trouble)
    finally:
        os.kill(process, signal.SIGCONT)
    monkeypatch.setattr(client, "ANSWER_WITHIN_S", 30.0)  # what is said now is to be heard
    eventually(lambda: own_bot.subscriber._trouble is None)
    eventually(lambda: own_bot.say("price:AAPL", {"n": 1}) and {"n": 1} in messages)


def test_a_quiet_connection_is_kept(bot: Bot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence with answered pings, or during a slow handler, is no reason to reconnect."""
    monkeypatch.setattr(client, "SILENT_FOR_S", 0.02)
    monkeypatch.setattr(client, "ANSWER_WITHIN_S", 30.0)
    busy, go_on = threading.Event(), threading.Event()

    def slow(_: dict[str, Any]) -> None:
        busy.set()
        assert go_on.wait(PATIENCE_S)

    bot.subscriber.subscribe("price:MSFT", slow)
    messages = heard(bot)
    bot.subscriber.start_listening()
    bot.say("price:MSFT", {})
    assert busy.wait(PATIENCE_S)
    assert not threading.Event().wait(0.05)  # several times SILENT_FOR_S
    go_on.set()
    bot.say("price:AAPL", {"n": 1})
    eventually(lambda: messages == [{"n": 1}])
    assert bot.subscriber._trouble is None


def test_refused_logins_are_told_with_advice(
    own_valkey: EmbeddedRedis, caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong password names the settings to look at, and no password."""
    with redis.Redis(port=own_valkey.port) as plain:
        plain.config_set("requirepass", "right-password")
    wrong = RedisTarget("127.0.0.1", own_valkey.port, 0, password="wrong-password")
    with RedisPublisher(wrong, prefix="") as publisher, pytest.raises(BusError) as caught:
        publisher.publish("price:AAPL", {})
    assert "REDIS_PASSWORD" in str(caught.value)
    with RedisSubscriber(wrong, prefix="") as subscriber:
        subscriber.subscribe("price:AAPL", print)
        subscriber.start_listening()
        eventually(lambda: "REDIS_PASSWORD" in caplog.text)
    assert "wrong-password" not in caplog.text + str(caught.value)


@pytest.mark.parametrize(
    "message",
    [{"at": object()}, {"price": float("nan")}, {"name": "\ud800"}, {("a",): 1}, "text", None],
    ids=["object", "nan", "surrogate", "key", "text", "nothing"],
)
def test_what_has_no_form_in_json_is_refused(bot: Bot, message: Any) -> None:
    """The caller hears of it; nothing is sent."""
    with pytest.raises(UsageError):
        bot.say("price:AAPL", message)


@pytest.mark.parametrize("channel", ["", "price:*", None, 5, "price:\ud800", "price:A\n"])
def test_what_is_no_channel_is_refused(bot: Bot, channel: Any) -> None:
    """A pattern would be taken literally and never hear anything, so it is an error."""
    with pytest.raises(UsageError):
        bot.say(channel, {})
    with pytest.raises(UsageError):
        bot.subscriber.subscribe(channel, print)


def test_what_cannot_handle_is_refused(bot: Bot) -> None:
    """A coroutine function would be called and never run, so it is an error."""

    async def handle(_: dict[str, Any]) -> None: ...

    for handler in (handle, None, "print"):
        with pytest.raises(UsageError):
            bot.subscriber.subscribe("price:AAPL", handler)  # type: ignore[arg-type]


def test_listening_starts_once_and_ends_for_good(bot: Bot) -> None:
    """A second start is harmless; close may be called again; a closed subscriber says so."""
    threads = threading.active_count()
    heard(bot)
    bot.subscriber.start_listening()
    bot.subscriber.start_listening()
    assert threading.active_count() == threads + 1
    assert "redis-subscriber" in {t.name for t in threading.enumerate()}
    bot.subscriber.close()
    bot.subscriber.close()
    assert threading.active_count() == threads
    for use in (bot.subscriber.start_listening, lambda: heard(bot)):
        with pytest.raises(UsageError, match="closed"):
            use()


def test_a_subscriber_that_never_listened_can_be_closed(valkey: EmbeddedRedis) -> None:
    """Close needs no start."""
    RedisSubscriber(RedisTarget("127.0.0.1", valkey.port, 0), prefix="").close()


@pytest.mark.parametrize("away", [False, True])
def test_close_is_quick(own_valkey: EmbeddedRedis, own_bot: Bot, away: bool) -> None:
    """Neither silence nor a pause between two attempts delays the end."""
    heard(own_bot)
    own_bot.subscriber.start_listening()
    if away:
        own_valkey.stop()
        eventually(lambda: own_bot.subscriber._trouble)
    with Stopwatch() as lived:
        own_bot.subscriber.close()
    assert lived.seconds < 2


def test_handlers_may_do_everything(bot: Bot) -> None:
    """Subscribing, unsubscribing and closing from within a handler neither hang nor fail."""
    messages: Messages = []

    def close(message: dict[str, Any]) -> None:
        bot.subscriber.close()
        messages.append(message)

    def move(_: dict[str, Any]) -> None:
        bot.subscriber.subscribe("price:MSFT", close)
        bot.subscriber.unsubscribe("price:AAPL")
        bot.subscriber.start_listening()

    bot.subscriber.subscribe("price:AAPL", move)
    bot.subscriber.start_listening()
    bot.say("price:AAPL", {})
    eventually(lambda: bot.say("price:MSFT", {"n": 1}))
    eventually(lambda: messages)
    eventually(lambda: "redis-subscriber" not in {t.name for t in threading.enumerate()})


def test_many_threads_may_subscribe(bot: Bot) -> None:
    """Changes from several threads at once are all kept."""
    bot.subscriber.start_listening()
    messages: Messages = []

    def subscribe(first: int) -> None:
        for n in range(first, first + 25):
            bot.subscriber.subscribe(f"price:S{n}", messages.append)

    threads = [threading.Thread(target=subscribe, args=(n * 25,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [bot.say(f"price:S{n}", {"n": n}) for n in range(100)] == [1] * 100
    eventually(lambda: [m["n"] for m in messages] == list(range(100)))


def run_to_its_end(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a bot's script that has two minutes to end."""
    return subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_bot_that_forgets_to_close_ends(valkey: EmbeddedRedis) -> None:
    """The end of the main thread ends the process, listening or not."""
    done = run_to_its_end(
        "from alpaca_broker.client import RedisSubscriber\n"
        "subscriber = RedisSubscriber()\n"
        "subscriber.subscribe('price:AAPL', print)\n"
        "subscriber.start_listening()\n",
        REDIS_PORT=str(valkey.port),
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_bots_import_nothing_of_the_broker() -> None:
    """The client needs core, errors and redis only: no settings, no web, no shells."""
    done = run_to_its_end(
        "import sys, alpaca_broker.client\n"
        "theirs = 'alpaca_broker.', 'pydantic', 'aiohttp'\n"
        "print(*(name for name in sys.modules if name.startswith(theirs)))\n"
    )
    names = set(done.stdout.split())
    ours = {n for n in names if not n.startswith("alpaca_broker.core")}
    assert ours == {"alpaca_broker.client", "alpaca_broker.errors"}, done.stderr
