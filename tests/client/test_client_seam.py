"""The seam between journal and live: every order event once, in order, whatever comes when."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from alpaca_broker.client.seam import Entry, Read, Seam
from alpaca_broker.client.updates import Gap, OrderUpdate


def event(seq: int, journal_id: str = "A", order_id: str = "o") -> OrderUpdate:
    """An order event with only what the seam looks at."""
    return OrderUpdate(
        order_id=order_id,
        status="new",
        filled_qty=0,  # type: ignore[arg-type]
        filled_avg_price=None,
        side="buy",
        timestamp=0.0,
        seq=seq,
        journal_id=journal_id,
    )


def entries(*seqs: int, journal_id: str = "A") -> list[Entry]:
    """Journal entries."""
    return [Entry(seq, event(seq, journal_id)) for seq in seqs]


def read(seam: Seam, journal: list[Entry], opens: list[OrderUpdate] | None = None) -> list[object]:
    """Read until nothing more is wanted; what was handed on."""
    handed: list[object] = []
    for _ in range(20):
        newest = journal[-1] if journal else None
        if seam.reads is Read.NOTHING:
            return handed
        if seam.reads is Read.OPEN_ORDERS:
            handed += seam.open_orders(journal[0] if journal else None, newest, opens or [])
        else:
            found = [entry for entry in journal if entry.seq > seam.last]
            handed += seam.journal(seam.last, newest, found, more=False)
    raise AssertionError("it never has enough")


def seqs(handed: list[object]) -> list[int]:
    """The numbers of the events among what was handed on."""
    return [item.seq for item in handed if isinstance(item, OrderUpdate)]


def gaps(handed: list[object]) -> list[Gap]:
    """The gaps among what was handed on."""
    return [item for item in handed if isinstance(item, Gap)]


def test_what_came_since_is_read_and_live_goes_on() -> None:
    """Journal first, then live; a live event that the journal had is dropped."""
    seam = Seam("a", 2)
    handed = read(seam, entries(1, 2, 3, 4))
    assert seqs(handed) == [3, 4]
    assert gaps(handed) == []
    assert seam.live(event(4)) == []
    assert seqs(list(seam.live(event(5)))) == [5]


def test_open_orders_come_first_without_a_number() -> None:
    """A bot without a number is shown the open orders, then what is new."""
    seam = Seam("a", None)
    handed = read(seam, entries(1, 2, 3), [event(3), event(1, order_id="p")])
    assert seqs(handed) == [1, 3]
    assert all(item.snapshot for item in handed if isinstance(item, OrderUpdate))
    assert seam.live(event(3)) == []
    assert seqs(list(seam.live(event(4)))) == [4]


def test_nothing_is_there_yet() -> None:
    """An empty journal is no loss to a bot that has seen nothing."""
    for since in (None, 0):
        seam = Seam("a", since)
        assert read(seam, []) == []
        assert seqs(list(seam.live(event(1)))) == [1]


def test_a_hole_is_filled_from_the_journal_in_order() -> None:
    """What was missed comes before what showed that it was missed, and a gap says how many."""
    seam = Seam("a", 0)
    read(seam, [])
    seam.live(event(1))
    assert seam.live(event(4)) == []
    assert seam.live(event(5)) == []
    handed = read(seam, entries(1, 2, 3, 4, 5))
    assert seqs(handed) == [2, 3, 4, 5]
    [gap] = gaps(handed)
    assert (gap.missed, gap.recovered, gap.repaired) == (2, True, "journal")
    assert seqs(list(seam.live(event(6)))) == [6]


def test_a_reconnect_without_loss_says_nothing() -> None:
    """Only what was missed makes a gap."""
    seam = Seam("a", 0)
    read(seam, entries(1))
    seam.disturb("reconnect")
    assert read(seam, entries(1)) == []
    assert seqs(list(seam.live(event(2)))) == [2]


def test_a_trimmed_journal_is_told_and_open_orders_help() -> None:
    """The bot is told how many are lost, and shown those of them that are still open."""
    seam = Seam("a", 2)
    handed = read(seam, entries(6, 7), [event(1, order_id="p"), event(4, order_id="q"), event(7)])
    assert seqs(handed) == [4, 6, 7]
    assert [gap.missed for gap in gaps(handed)] == [3]
    assert not gaps(handed)[0].recovered
    assert isinstance(handed[0], Gap)


def test_a_new_journal_starts_over() -> None:
    """Another journal_id on a live event: a gap, the open orders, then the new journal's events."""
    seam = Seam("a", 0)
    read(seam, entries(1, 2))
    handed: list[object] = list(seam.live(event(3, "B")))
    assert [gap.reason for gap in gaps(handed)] == ["journal"]
    journal = entries(1, 2) + entries(3, 4, journal_id="B")
    handed = read(seam, journal, [event(2, order_id="p"), event(4, "B")])
    assert seqs(handed) == [2, 3, 4]
    assert seqs(list(seam.live(event(5, "B")))) == [5]


def test_a_wiped_journal_starts_over_from_its_first_event() -> None:
    """Numbers that begin again are noticed, live or on reading."""
    seam = Seam("a", 0)
    read(seam, entries(1, 2, 3))
    assert len(gaps(list(seam.live(event(2, "B"))))) == 1
    assert seqs(read(seam, entries(1, 2, journal_id="B"))) == [1, 2]
    away = Seam("a", 9, "A")
    handed = read(away, entries(1, 2, journal_id="B"))
    assert (seqs(handed), len(gaps(handed))) == ([1, 2], 1)
    longer = Seam("a", 2, "A")
    handed = read(longer, entries(1, 2, 3, journal_id="B"))
    assert (seqs(handed), len(gaps(handed))) == ([1, 2, 3], 1)


def test_a_journal_that_is_gone_is_told() -> None:
    """A bot that had events, and no journal has them: a gap, not silence."""
    seam = Seam("a", 5)
    handed = read(seam, [])
    assert [gap.reason for gap in gaps(handed)] == ["journal"]
    # Where the numbers go on is where they go on: that is no second gap.
    assert seqs(list(seam.live(event(6, "B")))) == [6]
    handed = read(other := Seam("a", 5), [])
    other.disturb("reconnect")
    handed = read(other, entries(7, 8, journal_id="B"))
    assert seqs(handed) == [7, 8]
    assert all(gap.recovered for gap in gaps(handed))


def test_an_answer_that_live_overtook_is_no_loss() -> None:
    """What was read before live went on does not look like a lost journal."""
    seam = Seam("a", 0)
    read(seam, entries(1))
    after = seam.last
    seam.live(event(2))
    assert seam.journal(after, entries(1)[0], [], more=False) == []
    assert seam.last == 2


def test_an_event_without_number_is_handed_on() -> None:
    """A publisher that knows only the ● fields has no journal."""
    seam = Seam("a", 0)
    assert len(seam.live(event(0, ""))) == 1


def test_what_no_journal_has_is_handed_on_in_the_end() -> None:
    """Somebody numbers but does not journal: the bot still hears the newest, and of the hole."""
    seam = Seam("a", 0)
    seam.live(event(3))
    handed = read(seam, [])
    assert (seqs(handed), [gap.missed for gap in gaps(handed)]) == ([3], [2])


OPERATIONS = st.lists(
    st.sampled_from(["publish", "hear", "hear", "again", "cut", "ask", "run", "take", "full"]),
    max_size=120,
)


@settings(max_examples=250, deadline=None)
@given(operations=OPERATIONS, since=st.integers(0, 3), page=st.integers(1, 4))
def test_each_event_once_and_in_order(operations: list[str], since: int, page: int) -> None:
    """Random interleavings of journal, live events, doubles, cuts, slow answers and full queues."""
    journal = entries(1, 2, 3)
    wire: list[OrderUpdate] = []  # published, not yet heard
    heard: list[OrderUpdate] = []
    asked: list[int] = []  # `after` of a question that Redis has not seen yet
    answers: list[tuple[int, Entry | None, list[Entry]]] = []
    seam = Seam("a", since)
    handed: list[object] = []

    def ask() -> None:
        if not asked and not answers:
            asked.append(seam.last)

    def run() -> None:
        if asked:
            after = asked.pop()
            found = [entry for entry in journal if entry.seq > after][:page]
            answers.append((after, journal[-1], [Entry(e.seq, event(e.seq)) for e in found]))

    def take() -> None:
        if answers:
            after, newest, found = answers.pop()
            handed.extend(seam.journal(after, newest, found, more=len(found) >= page))

    def hear(*, full: bool = False) -> None:
        if wire:
            heard.append(wire.pop(0))
            (seam.put_off if full else lambda u: handed.extend(seam.live(u)))(heard[-1])

    for operation in operations:
        match operation:
            case "publish":
                journal += entries(len(journal) + 1)
                wire.append(event(len(journal)))
            case "hear":
                hear()
            case "full":
                hear(full=True)
            case "again" if heard:
                handed.extend(seam.live(event(heard[-1].seq)))
            case "cut":
                wire.clear()
                asked.clear()
                answers.clear()
                seam.disturb("reconnect")
            case "ask":
                ask()
            case "run":
                run()
            case "take":
                take()
        numbers = seqs(handed)
        assert numbers == list(range(since + 1, since + 1 + len(numbers)))
    while wire:
        hear()
    for _ in range(len(journal) + 10):
        ask()
        run()
        take()
    assert seqs(handed) == list(range(since + 1, len(journal) + 1))
    assert seam.reads is Read.NOTHING
    told = gaps(handed)
    assert all(gap.recovered for gap in told)
    assert all(a is not b for a, b in pairwise(told))
