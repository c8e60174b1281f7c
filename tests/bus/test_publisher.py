"""The hot path: every message once, in order, and an honest count of what was not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import redis
import redis.asyncio
from msgspec.structs import replace
from support import PATIENCE_S, Bot
from tls import tls_in_front_of

from alpaca_broker.bus.pipe import publish_head
from alpaca_broker.bus.publisher import Publisher
from alpaca_broker.bus.redis_client import advice, connect
from alpaca_broker.embedded import EmbeddedRedis
from alpaca_broker.settings import RedisTarget


def target(server: EmbeddedRedis, **more: object) -> RedisTarget:
    """Where a test server is."""
    return RedisTarget("127.0.0.1", server.port, 0, **more)  # type: ignore[arg-type]


@asynccontextmanager
async def publishing(place: RedisTarget, bound: int = 50_000) -> AsyncIterator[Publisher]:
    """A running publisher."""
    publisher = Publisher(place, bound=bound)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(publisher.run())
        try:
            yield publisher
        finally:
            running.cancel()


async def until(condition: object, within_s: float = PATIENCE_S) -> None:
    """Wait in the loop until the condition is true."""
    async with asyncio.timeout(within_s):
        while not condition():  # type: ignore[operator]  # noqa: ASYNC110 - any condition
            await asyncio.sleep(0.01)


async def test_every_message_arrives_once_and_in_order(valkey: EmbeddedRedis, prefix: str) -> None:
    """More than a window of them, handed over at once."""
    channel = f"{prefix}price:A"
    with Bot(valkey.port, channel) as bot:
        async with publishing(target(valkey)) as publisher:
            head = publish_head(channel)
            for n in range(45_000):
                publisher.publish(head, b'{"n":%d}' % n)
            assert await publisher.drain(PATIENCE_S) == 0
            assert (publisher.acknowledged, publisher.lost, publisher.rejected) == (45_000, 0, 0)
        assert [bot.next()[1]["n"] for _ in range(45_000)] == list(range(45_000))


async def test_what_was_not_written_waits_for_redis(own_valkey: EmbeddedRedis) -> None:
    """Published while Redis is away: delivered by the next connection."""
    own_valkey.stop()
    async with publishing(target(own_valkey)) as publisher:
        await until(lambda: publisher.error is not None)
        head = publish_head("c")
        for n in range(3):
            publisher.publish(head, b'{"n":%d}' % n)
        assert await publisher.drain(0.05) == 3
        own_valkey.start()
        await until(lambda: publisher.acknowledged == 3 and publisher.error is None)
        assert publisher.lost == 0


async def test_what_was_written_and_not_acknowledged_is_counted_not_resent(
    own_valkey: EmbeddedRedis,
) -> None:
    """Redis dies with commands in its hands: they are lost, and never published twice."""
    async with publishing(target(own_valkey)) as publisher:
        await until(lambda: publisher.connected)
        client = redis.asyncio.Redis(port=own_valkey.port)
        await client.execute_command("CLIENT", "PAUSE", "60000", "ALL")
        publisher.publish(publish_head("c"), b"{}")
        await until(lambda: publisher.waiting == 0)
        own_valkey._server.terminate()  # SIGKILL: no acknowledgement will come
        await client.aclose()
        await until(lambda: not publisher.connected)
        assert publisher.lost == 1
        own_valkey.start()
        await until(lambda: publisher.connected)
        assert publisher.acknowledged == 0


async def test_a_full_buffer_makes_the_reader_wait_until_half_is_gone(
    own_valkey: EmbeddedRedis,
) -> None:
    """`has_room` turns false at the bound; `room` returns once Redis has caught up."""
    own_valkey.stop()
    async with publishing(target(own_valkey), bound=100) as publisher:
        head = publish_head("c")
        for _ in range(99):
            publisher.publish(head, b"{}")
        assert publisher.has_room
        publisher.publish(head, b"{}")
        assert not publisher.has_room
        waiting = asyncio.ensure_future(publisher.room())
        await asyncio.sleep(0)
        assert not waiting.done()
        own_valkey.start()
        await asyncio.wait_for(waiting, PATIENCE_S)
        assert publisher.has_room


async def test_a_refused_message_is_counted_and_told(
    own_valkey: EmbeddedRedis, caplog: pytest.LogCaptureFixture
) -> None:
    """An ACL user without the channel: counted as rejected, one line with advice."""
    client = redis.Redis(port=own_valkey.port)
    rules = ["on", ">secret-word", "+publish", "+ping", "+client|setname", "&price:*"]
    client.execute_command("ACL", "SETUSER", "narrow", *rules)
    client.close()
    place = target(own_valkey, username="narrow", password="secret-word")
    async with publishing(place) as publisher:
        for channel in ("price:A", "other:A", "other:B"):
            publisher.publish(publish_head(channel), b"{}")
        assert await publisher.drain(PATIENCE_S) == 0
        assert (publisher.acknowledged, publisher.rejected) == (1, 2)
    assert caplog.text.count("Redis refuses messages") == 1
    assert "secret-word" not in caplog.text


async def test_a_wrong_password_is_said_with_the_variables(own_valkey: EmbeddedRedis) -> None:
    """The error names REDIS_USERNAME and REDIS_PASSWORD, and not the password."""
    client = redis.Redis(port=own_valkey.port)
    client.config_set("requirepass", "right")
    client.close()
    async with publishing(target(own_valkey, password="wrong-one")) as publisher:
        await until(lambda: publisher.error is not None)
        assert "REDIS_USERNAME and REDIS_PASSWORD" in str(publisher.error)
        assert "wrong-one" not in str(publisher.error)


async def test_a_unix_socket_serves_as_well(tmp_path: Path) -> None:
    """The same messages by way of a file."""
    path = tmp_path / "valkey.sock"
    with EmbeddedRedis(unixsocket=str(path)) as server:
        place = RedisTarget("", 0, 0, unix_path=str(path))
        with Bot(server.port, "c") as bot:
            async with publishing(place) as publisher:
                publisher.publish(publish_head("c"), b'{"n":1}')
                assert await publisher.drain(PATIENCE_S) == 0
            assert bot.next()[1] == {"n": 1}


async def test_tls_is_spoken_and_checked(own_valkey: EmbeddedRedis, tmp_path: Path) -> None:
    """Over TLS with our CA by both kinds of connection; with another CA by neither."""
    async with tls_in_front_of(own_valkey.port, tmp_path) as (port, ca):
        place = RedisTarget("localhost", port, 0, tls=True, tls_ca=str(ca))
        async with publishing(place) as publisher:
            publisher.publish(publish_head("c"), b"{}")
            assert await publisher.drain(PATIENCE_S) == 0
            assert publisher.acknowledged == 1
        client = connect(place, "test")
        assert await client.ping()
        await client.aclose()
        async with publishing(RedisTarget("localhost", port, 0, tls=True)) as publisher:
            await until(lambda: publisher.error is not None)
            assert "certificate" in str(publisher.error).lower()
        stranger = connect(replace(place, tls_ca=None), "test")
        with pytest.raises(redis.RedisError) as caught:
            await stranger.ping()
        assert "REDIS_TLS_CA" in advice(caught.value, place)
        await stranger.aclose()


async def test_something_that_is_no_redis_is_said() -> None:
    """A web server behind the port: an error, not a silence, and no crash."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, publishing(RedisTarget("127.0.0.1", port, 0)) as publisher:
        await until(lambda: publisher.error is not None)
        assert not publisher.connected


async def test_a_server_that_hangs_up_is_no_server(caplog: pytest.LogCaptureFixture) -> None:
    """It never counts as connected, and nobody is told that prices flow again."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, publishing(RedisTarget("127.0.0.1", port, 0)) as publisher:
        publisher.publish(publish_head("c"), b"{}")
        for _ in range(3):
            publisher.error = None
            await until(lambda: publisher.error is not None)
    assert "again" not in caplog.text
    assert publisher.lost == 0


@pytest.mark.parametrize("host", ["a..b", "x" * 70])
async def test_an_odd_host_is_an_error_that_names_it(host: str) -> None:
    """Not the end of the thread."""
    async with publishing(RedisTarget(host, 1, 0)) as publisher:
        await until(lambda: publisher.error is not None)
        assert host[:5] in str(publisher.error)


async def test_a_user_without_a_password_is_let_in(own_valkey: EmbeddedRedis) -> None:
    """By both kinds of connection alike."""
    admin = redis.Redis(port=own_valkey.port)
    admin.execute_command("ACL", "SETUSER", "open", "on", "nopass", "~*", "&*", "+@all")
    admin.execute_command("ACL", "SETUSER", "default", "off")
    place = target(own_valkey, username="open")
    async with publishing(place) as publisher:
        publisher.publish(publish_head("c"), b"{}")
        assert await publisher.drain(PATIENCE_S) == 0
        assert publisher.acknowledged == 1
    client = connect(place, "test")
    assert await client.ping()
    await client.aclose()
    admin.close()


async def test_an_idle_connection_is_pinged_and_a_ping_is_no_price(
    valkey: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is found dead before it is needed, and counted nowhere."""
    monkeypatch.setattr("alpaca_broker.bus.publisher.IDLE_FOR_S", 0.0)
    written: list[bytes] = []
    async with publishing(target(valkey)) as publisher:
        write = publisher._write
        monkeypatch.setattr(publisher, "_write", lambda d, n: (written.append(d), write(d, n)))
        await until(lambda: any(b"PING" in data for data in written))
        await until(lambda: not publisher._pinged)
        assert (publisher.acknowledged, publisher.lost) == (0, 0)
