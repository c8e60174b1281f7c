"""Where an account's journal ends and live order events begin: no hole, no double.

Owns one consumer's place in the journal. Every event is in the journal before it is heard, so
nothing live is ever kept: while the journal is being read, live events only say how far to read;
once that far, they are handed on as long as each follows the one before. Pure: says what to read
next, takes what was read. Two things are not its own: reading, and the bound of the queue.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, auto

from msgspec import Struct

from alpaca_broker.client.updates import Gap, OrderUpdate, Reason

Handed = list[OrderUpdate | Gap]
NO_PROGRESS = 3  # short readings, after which what was heard is taken to be missing


class Entry(Struct):
    """One journal entry; `update` is None where it could not be understood."""

    seq: int
    update: OrderUpdate | None


class Read(Enum):
    """What to read next."""

    NOTHING = auto()
    OPEN_ORDERS = auto()  # with the journal's first and newest entry, in one step
    JOURNAL = auto()  # the newest entry, then what comes after `last`


class Seam:
    """One consumer's place in one account's journal."""

    def __init__(self, account_id: str, since: int | None, journal_id: str | None = None) -> None:
        self.account_id = account_id
        self.journal_of = account_id  # the id, where the account was named by its number
        self.last = since or 0
        self.journal_id = journal_id or ""
        self.reads = Read.OPEN_ORDERS if since is None else Read.JOURNAL
        self._begins = since is None  # nothing before the newest entry is asked for
        self._restart_at: int | None = None  # the first event of a journal that is a new one
        self._anywhere = False  # there was no journal: wherever its numbers begin is right
        self._after = -1  # open orders whose last event is older are known
        self._heard: OrderUpdate | None = None  # the newest live event that was not handed on
        self._cause: Reason | None = None  # why something was missed, until the journal tells what
        self._first_heard = 0  # the first live event after that
        self._attempts = 0
        self.generation = 0  # what was asked for in an older one is not wanted any more

    def live(self, update: OrderUpdate) -> Handed:
        """A live event: what to hand on."""
        if update.seq <= 0:
            return [update]  # nobody numbers, so nobody journals either
        if self.reads is Read.JOURNAL or self.reads is Read.OPEN_ORDERS:
            self.put_off(update)
            return []
        if self._is_other(update.journal_id):
            self._heard = update
            return self._start_over(update.seq)
        if self._anywhere:
            self.last = update.seq - 1
        if update.seq <= self.last:
            return []
        if update.seq > self.last + 1:
            self.disturb("broker gap")
            self.put_off(update)
            return []
        self._advance(update)
        return [update]

    def put_off(self, update: OrderUpdate) -> None:
        """Do not hand this live event on: it is read from the journal later."""
        if update.seq <= 0:
            return
        if self.reads is Read.NOTHING:
            if update.seq <= self.last and not self._is_other(update.journal_id):
                return
            self.reads = Read.JOURNAL
        known = self._heard
        if known is None or known.journal_id != update.journal_id or known.seq < update.seq:
            self._heard = update
        if self._cause is not None and not self._first_heard:
            self._first_heard = update.seq

    def disturb(self, cause: Reason | None = None) -> None:
        """Events may have been missed, because of `cause` or by own choice: read again."""
        if self.reads is Read.NOTHING:
            self.reads = Read.JOURNAL
        self._attempts = 0
        if cause is not None and self._cause is None and not self._begins:
            self._cause, self._first_heard = cause, 0

    def journal(
        self, after: int, newest: Entry | None, entries: Iterable[Entry], *, more: bool
    ) -> Handed:
        """What was read after `after`, which was `last` when it was asked for.

        `newest` was read just before it; `more`: there may be more. Returns what to hand on.
        """
        handed: Handed = []
        before = self.last
        for entry in entries:
            update = entry.update
            if update is not None and self._is_other(update.journal_id):
                return self._with_gap(before, handed) + self._start_over(entry.seq)
            if self._anywhere:
                self.last = before = entry.seq - 1
                self._anywhere = False
            if entry.seq <= self.last:
                continue
            if entry.seq > self.last + 1:
                return self._with_gap(before, handed) + self._trimmed(entry.seq)
            if update is None:
                self.last = entry.seq
            else:
                self._advance(update, entry.seq)
                handed.append(update)
        handed = self._with_gap(before, handed)
        is_behind = (newest.seq if newest is not None else 0) < after
        if is_behind or (newest and newest.update and self._is_other(newest.update.journal_id)):
            return handed + self._start_over(None)
        return handed if more else handed + self._caught_up(before)

    def open_orders(
        self, first: Entry | None, newest: Entry | None, orders: Iterable[OrderUpdate]
    ) -> Handed:
        """The open orders, as of the journal's newest entry. Returns what to hand on."""
        newest_id = newest.update.journal_id if newest and newest.update else ""
        if self._after >= 0:
            anchor = self.last  # the journal was trimmed, and goes on after this
        elif newest is None or first is None:
            anchor, self._anywhere = 0, True
        elif self._begins:
            anchor = newest.seq
        elif first.update and first.update.journal_id == newest_id:
            anchor = first.seq - 1  # all of it is new to us
        else:
            anchor = newest.seq if self._restart_at is None else self._restart_at - 1
        shown: Handed = []
        for update in sorted(orders, key=lambda order: order.seq):
            still_to_come = update.seq > anchor and update.journal_id in ("", newest_id)
            if update.seq > self._after and not still_to_come:
                update.snapshot = True
                shown.append(update)
        self.last, self.journal_id = anchor, newest_id
        self.reads = Read.JOURNAL
        self._begins, self._restart_at, self._after = False, None, -1
        return shown

    def _caught_up(self, before: int) -> Handed:
        heard = self._heard
        if heard is None or (heard.seq <= self.last and not self._is_other(heard.journal_id)):
            self.reads, self._heard, self._attempts, self._cause = Read.NOTHING, None, 0, None
            return []
        self._attempts = 0 if self.last > before else self._attempts + 1
        if self._attempts < NO_PROGRESS:
            return []
        # It was heard, but no journal has it: somebody publishes who does not journal.
        missed = max(0, heard.seq - self.last - 1)
        self.reads, self._heard, self._attempts, self._cause = Read.NOTHING, None, 0, None
        self.last, self.journal_id = heard.seq, heard.journal_id
        return [*([self._gap("journal", missed)] if missed else []), heard]

    def _trimmed(self, seq: int) -> Handed:
        gap = self._gap(
            "journal",
            seq - self.last - 1,
            f"the journal begins at {seq}: older events were trimmed",
        )
        self._after, self.last = self.last, seq - 1
        self.reads = Read.OPEN_ORDERS
        self.generation += 1
        return [gap]

    def _start_over(self, seq: int | None) -> Handed:
        self.reads, self._restart_at, self._after = Read.OPEN_ORDERS, seq, -1
        self._anywhere = False
        self.generation += 1
        self.journal_id, self._attempts, self._cause = "", 0, None
        if self._heard is not None and self._heard.seq <= self.last and seq is None:
            self._heard = None
        return [self._gap("journal", None, "Redis has lost the journal, or its tail")]

    def _with_gap(self, before: int, handed: Handed) -> Handed:
        """Before what makes up for something missed stands how much that is."""
        cause = self._cause
        if cause is None or not handed:
            return handed
        until = self._first_heard or self.last + 1
        missed = min(self.last, until - 1) - before
        self._cause = None
        if missed <= 0:
            return handed
        gap = Gap(
            reason=cause,
            account_id=self.account_id,
            missed=missed,
            repaired="journal",
            recovered=True,
        )
        return [gap, *handed]

    def _gap(self, reason: Reason, missed: int | None, detail: str = "") -> Gap:
        return Gap(
            reason=reason,
            account_id=self.account_id,
            missed=missed,
            repaired="orders:open" if detail else None,
            detail=detail or "heard, but in no journal",
        )

    def _advance(self, update: OrderUpdate, seq: int | None = None) -> None:
        self.last, self._anywhere = update.seq if seq is None else seq, False
        self.journal_id = update.journal_id or self.journal_id

    def _is_other(self, journal_id: str) -> bool:
        return bool(journal_id and self.journal_id and journal_id != self.journal_id)
