"""The order journal: every order event once, in order, kept and published in one step.

Owns `seq` and `journal_id` of one account, and the script that is the only writer of its journal.
An event may be recorded again after a lost answer: its dedupe key at its place says it is done.
"""

from __future__ import annotations

from collections import OrderedDict
from importlib.resources import files
from typing import cast
from uuid import uuid4

import msgspec
import redis.asyncio as redis
from msgspec import Struct
from redis.exceptions import ResponseError

from alpaca_broker.bus.fence import Fence, always_open
from alpaca_broker.bus.redis_client import deadline
from alpaca_broker.core.channels import Channels
from alpaca_broker.core.messages import OrderUpdate, encode
from alpaca_broker.core.orders import is_open
from alpaca_broker.errors import BrokerError

SCRIPT = files("alpaca_broker.bus").joinpath("journal.lua").read_text()
REMEMBERED_KEYS = 10_000


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
        self.seq = 0
        self.journal_id = ""

    async def record(self, update: OrderUpdate, key: str, also_on: str | None = None) -> bool:
        """Journal and publish an update; False where the same event was recorded before.

        Sets the update's `seq`, `journal_id` and `epoch`. May be called again with the same
        arguments after an error: it is never doubled.

        Raises:
            Superseded: another broker leads.
            redis.RedisError, OSError: Redis did not answer, or refused.
        """
        await self._fence.opened()
        if not self._loaded:
            await self._load()
        if key in self._known:
            return False
        mode = "publish" if key == self._unheard else ""
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
                "1" if is_open(update) else "0",
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
                    self.journal_id, mode = _new_journal_id(), "again"
                case ["unheard", reason]:
                    self.seq, self._unheard = update.seq, key
                    raise ResponseError(reason)
                case _:
                    self.seq, self._unheard = update.seq, None
                    self._remember(key)
                    return True

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


def _kept(data: bytes) -> _Kept:
    """What the journal's last entry says; an entry that is not ours begins a new journal."""
    try:
        return msgspec.json.decode(data, type=_Kept)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _Kept()


def _new_journal_id() -> str:
    return uuid4().hex[:16]
