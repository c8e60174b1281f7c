"""The order journal: once, in order, whatever happens to answers, epochs and memory."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
from full_disk import SmallDisk
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from support import Bot

from alpaca_broker.bus.journal import Journal, Superseded
from alpaca_broker.core.channels import Channels
from alpaca_broker.core.messages import OrderUpdate
from alpaca_broker.core.orders import OrderEvent
from alpaca_broker.embedded import EmbeddedRedis

EPOCH = 1_000


@pytest.fixture
async def client(valkey: EmbeddedRedis) -> AsyncIterator[redis.asyncio.Redis]:
    """A client of the shared server."""
    found = redis.asyncio.Redis(port=valkey.port)
    yield found
    await found.aclose()


def journal(
    client: redis.asyncio.Redis, prefix: str, epoch: int = EPOCH, length: int = 100
) -> Journal:
    """A journal of account `acc`, as a broker would open it."""
    return Journal(client, Channels(prefix), "acc", epoch=epoch, length=length)


def update(order_id: str = "o1", status: str = "new", event: str = "new") -> OrderUpdate:
    """An order update without its place in the journal."""
    values: dict[str, Any] = dict.fromkeys(OrderUpdate.__struct_fields__)
    values |= {
        "order_id": order_id,
        "status": status,
        "event": event,
        "filled_qty": Decimal(0),
        "side": "buy",
        "timestamp": 1.0,
        "account_id": "acc",
        "environment": "paper",
        "received_at": 1.0,
        "source": "stream",
    }
    return OrderUpdate(**values)


async def entries(client: redis.asyncio.Redis, prefix: str) -> list[dict[str, Any]]:
    """What the journal holds."""
    return [json.loads(f[b"data"]) for _, f in await client.xrange(f"{prefix}journal:order:acc")]


async def test_events_are_numbered_kept_and_published(
    client: redis.asyncio.Redis, valkey: EmbeddedRedis, prefix: str
) -> None:
    """seq rises by one; entry ids are SEQ-0; the channel gets what the journal keeps."""
    book = journal(client, prefix)
    with Bot(valkey.port, f"{prefix}order:acc", f"{prefix}order:PA1") as bot:
        assert await book.record(OrderEvent(update("o1"), "k1"), also_on=f"{prefix}order:PA1")
        assert await book.record(OrderEvent(update("o2"), "k2"))
        heard = [bot.next() for _ in range(3)]
    kept = await entries(client, prefix)
    assert [e["seq"] for e in kept] == [1, 2]
    assert [e["epoch"] for e in kept] == [EPOCH] * 2
    assert kept[0]["journal_id"] == kept[1]["journal_id"] != ""
    assert [m for c, m in heard if c.endswith("acc")] == kept
    assert [m for c, m in heard if c.endswith("PA1")] == kept[:1]
    ids = [entry_id for entry_id, _ in await client.xrange(f"{prefix}journal:order:acc")]
    assert ids == [b"1-0", b"2-0"]


async def test_open_orders_mirror_the_last_event(client: redis.asyncio.Redis, prefix: str) -> None:
    """An order is there while it can change, and gone when it cannot."""
    book = journal(client, prefix)
    await book.record(OrderEvent(update("o1"), "k1"))
    await book.record(OrderEvent(update("o2"), "k2"))
    await book.record(OrderEvent(update("o1", "filled", "fill"), "k3"))
    assert await client.hkeys(f"{prefix}orders:open:acc") == [b"o2"]


async def test_the_same_event_is_recorded_once(client: redis.asyncio.Redis, prefix: str) -> None:
    """Within one broker's life, and by the next broker that reads the journal."""
    first = journal(client, prefix)
    assert await first.record(OrderEvent(update(), "k1"))
    assert not await first.record(OrderEvent(update(), "k1"))
    second = journal(client, prefix, epoch=EPOCH + 1)
    assert not await second.record(OrderEvent(update(), "k1"))
    assert await second.record(OrderEvent(update("o2"), "k2"))
    kept = await entries(client, prefix)
    assert [e["seq"] for e in kept] == [1, 2]
    assert kept[0]["journal_id"] == kept[1]["journal_id"]


async def test_a_retry_after_a_lost_answer_is_done_not_doubled(
    client: redis.asyncio.Redis, valkey: EmbeddedRedis, prefix: str
) -> None:
    """The script ran, its answer was lost: the second call finds its own key at its place."""
    book = journal(client, prefix)
    script = book._script

    class Lost:
        """Runs the script and loses the first answer."""

        lost = False

        async def __call__(self, **arguments: Any) -> Any:
            answer = await script(**arguments)
            if not self.lost:
                self.lost = True
                raise RedisConnectionError("the answer was lost")
            return answer

    book._script = Lost()  # type: ignore[assignment]
    with Bot(valkey.port, f"{prefix}order:acc") as bot:
        with pytest.raises(RedisError):
            await book.record(OrderEvent(update(), "k1"))
        assert await book.record(OrderEvent(update(), "k1"))
        assert await book.record(OrderEvent(update("o2"), "k2"))
        assert [bot.next()[1]["order_id"] for _ in range(2)] == ["o1", "o2"]
    assert [e["seq"] for e in await entries(client, prefix)] == [1, 2]


async def test_a_stale_epoch_writes_nothing(client: redis.asyncio.Redis, prefix: str) -> None:
    """Whoever lost the lead is told so and leaves no trace."""
    await client.set(f"{prefix}broker:epoch", EPOCH + 1)
    with pytest.raises(Superseded):
        await journal(client, prefix).record(OrderEvent(update(), "k1"))
    assert await entries(client, prefix) == []


async def test_a_lost_journal_gets_a_new_id_and_loses_no_event(
    client: redis.asyncio.Redis, prefix: str
) -> None:
    """Redis lost the tail: the event is recorded at its place, and bots see a new journal_id."""
    book = journal(client, prefix)
    for n in range(3):
        await book.record(OrderEvent(update(f"o{n}"), f"k{n}"))
    old_id = book.journal_id
    await client.delete(f"{prefix}journal:order:acc")
    assert await book.record(OrderEvent(update("o9"), "k9"))
    (entry,) = await entries(client, prefix)
    assert entry["seq"] == 4
    assert entry["journal_id"] != old_id


async def test_an_emptied_redis_is_noticed_without_an_event(
    client: redis.asyncio.Redis, prefix: str
) -> None:
    """The open orders are there again under a new journal, in which the next event goes on."""
    book, order = journal(client, prefix), update("o1")
    book.open_orders = lambda: [order]
    await book.record(OrderEvent(order, "k1"))
    await book.check()
    before = book.journal_id
    await client.delete(f"{prefix}journal:order:acc", f"{prefix}orders:open:acc")
    await book.check()
    assert book.journal_id != before
    shown: Any = await client.hgetall(f"{prefix}orders:open:acc")
    assert json.loads(shown[b"o1"])["journal_id"] == book.journal_id
    again = book.journal_id
    await book.check()
    await book.record(OrderEvent(update("o2"), "k2"))
    assert [(e["seq"], e["journal_id"]) for e in await entries(client, prefix)] == [(2, again)]


async def test_a_place_that_is_taken_is_left_alone(
    client: redis.asyncio.Redis, prefix: str
) -> None:
    """Somebody wrote in between: nothing of it is overwritten, and ours comes after it."""
    one, two = journal(client, prefix), journal(client, prefix)
    await one.record(OrderEvent(update("o1"), "k1"))
    await two.record(OrderEvent(update("o2"), "k2"))
    assert await one.record(OrderEvent(update("o3"), "k3"))
    assert [e["order_id"] for e in await entries(client, prefix)] == ["o1", "o2", "o3"]


async def test_the_journal_is_trimmed_by_count(client: redis.asyncio.Redis, prefix: str) -> None:
    """The oldest entries go; `seq` goes on."""
    book = journal(client, prefix, length=100)
    for n in range(120):
        await book.record(OrderEvent(update(f"o{n}"), f"k{n}"))
    assert [e["seq"] for e in await entries(client, prefix)] == list(range(21, 121))


async def test_a_full_redis_is_an_error_and_the_retry_succeeds(own_valkey: EmbeddedRedis) -> None:
    """OOM: raised, nothing recorded; with room again the same call records it once."""
    client = redis.asyncio.Redis(port=own_valkey.port)
    book = journal(client, "")
    await book.record(OrderEvent(update("o0"), "k0"))
    await client.config_set("maxmemory", "1")
    with pytest.raises(RedisError, match="maxmemory"):
        await book.record(OrderEvent(update("o1"), "k1"))
    await client.config_set("maxmemory", "0")
    assert await book.record(OrderEvent(update("o1"), "k1"))
    assert [e["seq"] for e in await entries(client, "")] == [1, 2]
    await client.aclose()


@pytest.mark.parametrize(
    "entry", [{"foo": "bar"}, {"data": "no json"}, {"data": b"\xff", "key": b"\xff"}]
)
async def test_a_foreign_entry_stops_nothing(
    client: redis.asyncio.Redis, prefix: str, entry: dict[str, Any]
) -> None:
    """Somebody wrote into the journal: ours go on after it."""
    await client.xadd(f"{prefix}journal:order:acc", entry, id="5-0")
    book = journal(client, prefix)
    assert await book.record(OrderEvent(update(), "k1"))
    assert book.seq == 6


async def test_an_event_that_could_not_be_published_is_published_by_the_retry(
    own_valkey: EmbeddedRedis,
) -> None:
    """A user without the channel: journalled once, said once it is allowed, never doubled."""
    admin = redis.asyncio.Redis(port=own_valkey.port)
    rules = ["on", ">secret-word", "~*", "+@all", "resetchannels"]
    await admin.execute_command("ACL", "SETUSER", "narrow", *rules)
    narrow = redis.asyncio.Redis(port=own_valkey.port, username="narrow", password="secret-word")
    book = journal(narrow, "")
    with Bot(own_valkey.port, "order:acc") as bot:
        for _ in range(2):
            with pytest.raises(RedisError, match="permission"):
                await book.record(OrderEvent(update(), "k1"))
        await admin.execute_command("ACL", "SETUSER", "narrow", "allchannels")
        assert await book.record(OrderEvent(update(), "k1"))
        assert await book.record(OrderEvent(update("o2"), "k2"))
        assert [bot.next()[1]["order_id"] for _ in range(2)] == ["o1", "o2"]
    assert [e["seq"] for e in await entries(admin, "")] == [1, 2]
    await narrow.aclose()
    await admin.aclose()


async def test_a_failure_before_the_journal_leaves_nothing(
    client: redis.asyncio.Redis, prefix: str
) -> None:
    """`orders:open:` is something else: an error, no entry; mended, the retry succeeds."""
    await client.set(f"{prefix}orders:open:acc", "not a hash")
    book = journal(client, prefix)
    with pytest.raises(RedisError, match="WRONGTYPE"):
        await book.record(OrderEvent(update(), "k1"))
    assert await entries(client, prefix) == []
    await client.delete(f"{prefix}orders:open:acc")
    assert await book.record(OrderEvent(update(), "k1"))


async def test_a_full_disk_is_an_error_and_the_retry_succeeds(tmp_path: Path) -> None:
    """MISCONF: raised, nothing recorded; with room again the same calls record each once."""
    with SmallDisk(tmp_path) as valkey:
        client = redis.asyncio.Redis(port=valkey.port)
        book = journal(client, "")
        with Bot(valkey.port, "order:acc") as bot:
            await book.record(OrderEvent(update("o0"), "k0"))
            valkey.fill()
            for _ in range(3):
                with pytest.raises(RedisError, match="No space left"):
                    await book.record(OrderEvent(update("o1"), "k1"))
            assert len(await entries(client, "")) == 1
            valkey.clear()
            assert await book.record(OrderEvent(update("o1"), "k1"))
            assert not await book.record(OrderEvent(update("o1"), "k1"))
            assert await book.record(OrderEvent(update("o2"), "k2"))
            assert [bot.next()[1]["order_id"] for _ in range(3)] == ["o0", "o1", "o2"]
        assert [e["seq"] for e in await entries(client, "")] == [1, 2, 3]
        assert await client.hkeys("orders:open:acc") == [b"o0", b"o1", b"o2"]
        await client.aclose()


async def test_history_reaches_back_by_alpacas_clock_where_ours_is_wrong(
    client: redis.asyncio.Redis, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ours is ten minutes behind: what it calls old is what REST is about to show."""
    monkeypatch.setattr("alpaca_broker.bus.journal.ENTRIES_AT_ONCE", 2)
    book = journal(client, prefix)
    for number in range(6):
        event = update(f"o{number}")
        event.timestamp, event.received_at = 1_000.0 + number, 400.0 + number
        assert await book.record(OrderEvent(event, f"k{number}"))
    history = await book.history(1_001.0)
    assert {"o1", "o2", "o3", "o4", "o5"} <= {entry.order_id for entry, _ in history.entries}
