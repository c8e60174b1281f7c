"""What the broker says of itself: one line, no secret, bounded."""

from __future__ import annotations

import json
import logging
import sys
import threading

import pytest

from alpaca_broker.telemetry import (
    QUEUED_RECORDS,
    LineFormatter,
    RecordQueue,
    Redactor,
    Seldom,
    fields,
)


def record(text: str, *args: object, **more: object) -> logging.LogRecord:
    """A log record as the broker's loggers make them."""
    made = logging.LogRecord("alpaca_broker.x", logging.WARNING, "f.py", 1, text, args, None)
    made.__dict__.update(more)
    return made


def failure() -> logging.LogRecord:
    """A record with an exception whose text holds a secret."""
    try:
        raise ValueError("url redis://:hunter2-hunter2@h\nsecond line")
    except ValueError:
        made = record("it failed")
        made.exc_info = sys.exc_info()
        return made


def test_no_secret_leaves_in_a_line_or_a_record() -> None:
    """Neither in the message, nor in its arguments, fields or exceptions."""
    redact = Redactor(["hunter2-hunter2", "hunter2"])
    queue = RecordQueue(redact)
    for made in (
        record("key %s", "hunter2-hunter2"),
        record("x", **fields(url="redis://:hunter2@h", n=1)),
        failure(),
    ):
        for text in (LineFormatter(redact).format(made), queue.message(made).decode()):
            assert "hunter2" not in text
            assert "[redacted]" in text or "x" in text


def test_a_short_secret_does_not_spoil_every_word() -> None:
    """A password of one letter is replaced as a word only."""
    redact = Redactor(["s"])
    assert redact("redis says s") == "redis says [redacted]"


def test_a_line_is_one_line() -> None:
    """Whatever a message or a traceback holds: no line can be forged."""
    formatter = LineFormatter(Redactor())
    assert "\n" not in formatter.format(record("a\nb\r\nc"))
    assert "\n" not in formatter.format(failure())


def test_a_record_keeps_the_contracts_fields() -> None:
    """An event's fields cannot take their names."""
    message = json.loads(
        RecordQueue(Redactor()).message(record("x", **fields(type="evil", bot="b", n=2)))
    )
    assert message["type"] == "log"
    assert (message["bot"], message["n"], message["level"]) == ("b", 2, "WARNING")


def test_the_queue_is_bounded_and_counts() -> None:
    """The oldest give way; what is put back has no precedence over the bound."""
    queue = RecordQueue(Redactor())
    for n in range(QUEUED_RECORDS + 5):
        queue.emit(record("%d", n))
    assert queue.dropped == 5
    taken = queue.take()
    assert json.loads(taken[0])["message"] == "5"
    queue.emit(record("later"))
    queue.put_back(taken)
    assert queue.dropped == 6
    again = [json.loads(r)["message"] for r in queue.take()]
    assert len(again) == QUEUED_RECORDS
    assert (again[0], again[-1]) == ("6", "later")


def test_a_wrong_log_call_costs_no_event() -> None:
    """Arguments that do not fit the text."""
    assert "%d" in LineFormatter(Redactor()).format(record("%d", "x"))


@pytest.mark.parametrize("times", [1, 5])
def test_seldom_lets_one_through_and_counts_the_rest(times: int) -> None:
    """And the next line tells how many there were."""
    now = [0.0]
    seldom = Seldom(1.0, clock=lambda: now[0])
    assert seldom.may_say()
    for _ in range(times):
        assert not seldom.may_say()
    now[0] = 1.0
    assert seldom.may_say()
    assert seldom.more() == f" (and {times} more)"
    assert seldom.more() == ""


def test_no_record_is_lost_uncounted_between_threads() -> None:
    """Three threads write while one takes: what was written is taken or counted."""
    queue = RecordQueue(Redactor())
    taken, each = 0, 3_000
    made = record("x")
    writers = [
        threading.Thread(target=lambda: [queue.emit(made) for _ in range(each)]) for _ in range(3)
    ]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for writer in writers:
            writer.start()
        while any(writer.is_alive() for writer in writers):
            taken += len(queue.take())
    finally:
        sys.setswitchinterval(before)
    taken += len(queue.take())
    assert taken + queue.dropped == 3 * each
