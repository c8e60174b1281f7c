"""The order journal: every order event once, in order, kept and published in one step.

Owns `seq` and `journal_id` of one account, and the scripts that alone write its journal and its
open orders. An event may be recorded again after a lost answer: its dedupe key at its place says it
is done.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from importlib.resources import files
from typing import cast
from uuid import uuid4

import msgspec
import redis.asyncio as redis
from msgspec import Struct, structs
from redis.exceptions import ResponseError

from alpaca_broker.bus.fence import EPOCH_IN, Fence, always_open
from alpaca_broker.bus.redis_client import deadline
from alpaca_broker.core.channels import Channels, begun_name
from alpaca_broker.core.messages import OrderUpdate, encode
from alpaca_broker.core.orders import OrderEvent, is_open
from alpaca_broker.errors import BrokerError

SCRIPT = EPOCH_IN + files("alpaca_broker.bus").joinpath("journal.lua").read_text()
REMEMBERED_KEYS = 10_000
ENTRIES_AT_ONCE = 1_000

# The open orders, written anew in one step. KEYS 1 open orders hash   2 epoch
# ARGV 1 our epoch   2… (order id, payload)…
REOPEN = f"""{EPOCH_IN}
local stored = epoch_in(KEYS[2])
if stored > tonumber(ARGV[1]) then return string.format('%d', stored) end
redis.call('DEL', KEYS[1])
for i = 2, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
return ''
"""

# When an account was followed for the first time. KEYS 1 received hash   2 epoch
# ARGV 1 our epoch   2 field   3 time
BEGIN = """
local stored = tonumber(redis.call('GET', KEYS[2]) or '') or 0
if stored > tonumber(ARGV[1]) then return string.format('%d', stored) end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
return ''
"""


class Superseded(BrokerError):
    """Another broker has taken over: ours is the lower epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        super().__init__(epoch)

    def __str__(self) -> str:
        return f"another broker has taken over (epoch {self.epoch})"


class _Kept(Struct):
    seq: int = 0
    journal_id: str = ""


class History(Struct):
    """What was told before, oldest first, with each event's dedupe key."""

    entries: list[tuple[OrderUpdate, str]]
    open_orders: list[OrderUpdate]
    trimmed: bool  # whether there was more that is no longer kept


class Journal:
    """One account's journal. One task writes it; not safe for more."""

    def __init__(
        self,
        client: redis.Redis,
        channels: Channels,
        account_id: str,
        *,
        epoch: int,
        length: int,
        fence: Fence | None = None,
    ) -> None:
        self._fence = fence or always_open()
        self._script = client.register_script(SCRIPT)
        self._reopen_script = client.register_script(REOPEN)
        self._begin_script = client.register_script(BEGIN)
        self._begun = (channels.received, begun_name(account_id))
        self._client = client
        self._keys = [
            channels.journal(account_id),
            channels.open_orders(account_id),
            channels.epoch,
        ]
        self._channel = channels.order(account_id)
        self._length = length
        self._epoch = epoch
        self._known: OrderedDict[str, None] = OrderedDict()
        self._loaded = False
        self._unheard: str | None = None  # journalled, and not yet published
        self._mode = ""  # "again": the next event goes on after a lost tail
        self.open_orders: Callable[[], Iterable[OrderUpdate]] = lambda: ()  # what is open now
        self.seq = 0
        self.journal_id = ""

    async def record(self, event: OrderEvent, also_on: str | None = None) -> bool:
        """Journal and publish an event; False where the same one was recorded before.

        Sets the update's `seq`, `journal_id` and `epoch`. May be called again with the same
        event after an error: it is never doubled.

        Raises:
            Superseded: another broker leads.
            redis.RedisError, OSError: Redis did not answer, or refused.
        """
        await self._fence.opened()
        update, key = event.update, event.key
        if not self._loaded:
            await self._load()
        if key in self._known:
            return False
        mode = "publish" if key == self._unheard else self._mode
        channels = [self._channel] if also_on is None else [self._channel, also_on]
        while True:
            update.seq = self.seq + (0 if mode == "publish" else 1)
            update.journal_id = self.journal_id
            update.epoch = self._epoch
            arguments = [
                self._epoch,
                update.seq,
                key,
                encode(update),
                self._length,
                update.order_id,
                "-" if event.is_late else "1" if is_open(update) else "0",
                mode,
                *channels,
            ]
            async with deadline():
                answer = await self._script(keys=self._keys, args=arguments)
            match [word.decode("utf-8", "replace") for word in answer]:
                case ["epoch", stored]:
                    raise Superseded(int(stored))
                case ["moved", _]:
                    await self._load()  # somebody wrote here before us: go on after it
                    if key in self._known:
                        return False
                case ["lost", _]:
                    await self._begin_anew()
                    mode = self._mode
                case ["unheard", reason]:
                    self.seq, self._unheard = update.seq, key
                    raise ResponseError(reason)
                case _:
                    self.seq, self._unheard, self._mode = update.seq, None, ""
                    self._remember(key)
                    return True

    async def history(self, since: float) -> History:
        """What was told at or after `since` (Alpaca's epoch seconds), and the orders that are open.

        Raises:
            redis.RedisError, OSError: Redis did not answer.
        """
        newest_first: list[tuple[OrderUpdate, str]] = []
        last, trimmed = "+", False
        while True:
            async with deadline():
                answer = await self._client.xrevrange(self._keys[0], last, "-", ENTRIES_AT_ONCE)
            page = cast(list[tuple[bytes, dict[bytes, bytes]]], answer)
            entries = [e for e in map(_entry, page) if e is not None]
            newest_first += entries
            if len(page) < ENTRIES_AT_ONCE:
                trimmed = bool(page) and int(page[-1][0].split(b"-")[0]) > 1
                break
            # `received_at` is by our clock, which may be wrong by more than `since` goes back.
            if entries and max(entries[-1][0].received_at, entries[-1][0].timestamp) < since:
                break
            last = f"({page[-1][0].decode()}"
        async with deadline():
            found = await cast(Awaitable[dict[bytes, bytes]], self._client.hgetall(self._keys[1]))
        updates = [update for update in map(_update, found.values()) if update is not None]
        return History(newest_first[::-1], updates, trimmed)

    async def check(self) -> None:
        """See whether Redis still has what it had, though there is no event to record.

        Raises:
            Superseded: another broker leads.
            redis.RedisError, OSError: Redis did not answer, or refused.
        """
        if not self._loaded:
            await self._load()
        async with deadline():
            answer = await self._client.xrevrange(self._keys[0], count=1)
        newest = cast(list[tuple[bytes, dict[bytes, bytes]]], answer)
        last = int(newest[0][0].split(b"-")[0]) if newest else 0
        if last < self.seq and self._mode != "again":
            await self._begin_anew()

    async def _begin_anew(self) -> None:
        """Redis has lost the journal or its tail: bots start over from the open orders."""
        self.journal_id, self._mode = _new_journal_id(), "again"
        await self.reopen()

    async def begin(self, at: float) -> None:
        """Keep that the account is followed since then (epoch seconds): what was before is no news.

        Raises:
            Superseded: another broker leads.
            redis.RedisError, OSError: Redis did not answer, or refused.
        """
        key, name = self._begun
        await self._fence.opened()
        async with deadline():
            stored = await self._begin_script(
                keys=[key, self._keys[2]], args=[self._epoch, name, at]
            )
        if stored:
            raise Superseded(int(stored))

    async def reopen(self) -> None:
        """Write the open orders anew: at the first start, and when Redis has lost them.

        Raises:
            Superseded: another broker leads.
            redis.RedisError, OSError: Redis did not answer, or refused.
        """
        if not self._loaded:
            await self._load()
        words: list[str | bytes] = []
        for update in self.open_orders():
            if not update.seq or update.journal_id != self.journal_id:
                update = structs.replace(
                    update, seq=self.seq, journal_id=self.journal_id, epoch=self._epoch
                )
            words += (update.order_id, encode(update))
        await self._fence.opened()
        async with deadline():
            stored = await self._reopen_script(keys=self._keys[1:], args=[self._epoch, *words])
        if stored:
            raise Superseded(int(stored))

    async def _load(self) -> None:
        """Take up where the journal ends."""
        async with deadline():
            newest_first = await self._client.xrevrange(self._keys[0], count=1_000)
        entries = cast(list[tuple[bytes, dict[bytes, bytes]]], newest_first)
        for _, entry in reversed(entries):
            self._remember(entry.get(b"key", b"").decode("utf-8", "replace"))
        kept = _kept(entries[0][1].get(b"data", b"")) if entries else _Kept()
        self.seq = int(entries[0][0].split(b"-")[0]) if entries else 0
        self.journal_id = kept.journal_id or _new_journal_id()
        self._loaded = True

    def _remember(self, key: str) -> None:
        self._known[key] = None
        while len(self._known) > REMEMBERED_KEYS:
            self._known.popitem(last=False)


def _entry(entry: tuple[bytes, dict[bytes, bytes]]) -> tuple[OrderUpdate, str] | None:
    """A journal entry as update and key, or None where it is not ours."""
    fields = entry[1] or {}
    update = _update(fields.get(b"data", b""))
    return None if update is None else (update, fields.get(b"key", b"").decode("utf-8", "replace"))


def _update(data: bytes) -> OrderUpdate | None:
    try:
        return msgspec.json.decode(data, type=OrderUpdate)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _kept(data: bytes) -> _Kept:
    """What the journal's last entry says; an entry that is not ours begins a new journal."""
    try:
        return msgspec.json.decode(data, type=_Kept)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _Kept()


def _new_journal_id() -> str:
    return uuid4().hex[:16]
