"""What the broker says of itself: log lines for people, log records for `broker:logs`.

Owns logging's set-up and redaction. No configured secret leaves through here, whatever a message,
an exception or a field holds. Records for Redis wait in a bounded queue; the oldest give way.
"""

from __future__ import annotations

import logging
import re
import time
from collections import deque
from collections.abc import Callable, Iterable
from threading import Lock
from typing import Any

from alpaca_broker.core.messages import encode

LOGGER = "alpaca_broker"
QUEUED_RECORDS = 1_000
MOST_CHARACTERS = 4_000


class Redactor:
    """Replaces every configured secret in a text."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        # The longest first, so that a secret that holds another one leaves no rest behind.
        known = sorted({s for s in secrets if s}, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(_as_pattern, known))) if known else None

    def __call__(self, text: str) -> str:
        return self._pattern.sub("[redacted]", text) if self._pattern else text


def _as_pattern(secret: str) -> str:
    # A password of a letter or two is replaced as a word only, or every line would be unreadable.
    pattern = re.escape(secret)
    return pattern if len(secret) >= 6 else rf"(?<!\w){pattern}(?!\w)"


class LineFormatter(logging.Formatter):
    """`2026-01-05 15:00:00.123 INFO    price-producer  message`, redacted, always one line."""

    def __init__(self, redact: Redactor) -> None:
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        text = _text(record, self).replace("\r", "\\r").replace("\n", "\\n")
        name = record.name.removeprefix(f"{LOGGER}.")
        return self._redact(f"{when}.{int(record.msecs):03d} {record.levelname:<7} {name}: {text}")


class RecordQueue(logging.Handler):
    """Log records as the contract's messages (section 8), waiting for Redis."""

    def __init__(self, redact: Redactor) -> None:
        super().__init__()
        self._redact = redact
        self._records: deque[bytes] = deque(maxlen=QUEUED_RECORDS)
        self._taking = Lock()
        self.dropped = 0
        self.notify: Callable[[], None] = lambda: None

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = self.message(record)
        except Exception:
            self.handleError(record)  # logging's own way: a log line never fails its caller
            return
        with self._taking:
            if len(self._records) == QUEUED_RECORDS:
                self.dropped += 1
            self._records.append(message)
        self.notify()

    def message(self, record: logging.LogRecord) -> bytes:
        """The record as JSON; its `fields` come after the contract's own."""
        fields = {k: self._clean(v) for k, v in getattr(record, "fields", {}).items()}
        return encode(
            fields
            | {
                "type": "log",
                "level": record.levelname,
                "logger": record.name,
                "message": self._redact(_text(record, None))[:MOST_CHARACTERS],
                "timestamp": round(record.created, 6),
            }
        )

    def take(self) -> list[bytes]:
        """Everything that waits; the caller puts back what it could not deliver."""
        with self._taking:  # three threads write
            records = list(self._records)
            self._records.clear()
        return records

    def put_back(self, records: list[bytes]) -> None:
        """Return undelivered records to the front, as far as there is room."""
        with self._taking:
            room = QUEUED_RECORDS - len(self._records)
            self.dropped += max(0, len(records) - room)
            self._records.extendleft(reversed(records[-room:] if room else []))

    def _clean(self, value: Any) -> Any:
        if isinstance(value, (bool, int, float)) or value is None:
            return value
        return self._redact(str(value))[:MOST_CHARACTERS]


def set_up(level: str, redact: Redactor) -> None:
    """Send the broker's log lines to standard error. May be called again."""
    logger = logging.getLogger(LOGGER)
    for handler in [h for h in logger.handlers if isinstance(h.formatter, LineFormatter)]:
        logger.removeHandler(handler)
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter(redact))
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False


def fields(**values: Any) -> dict[str, Any]:
    """The `extra` of a log call: an event's fields, which `broker:logs` carries along."""
    return {"fields": values}


class Seldom:
    """Lets one line through per `seconds` and counts those it held back."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._clock = seconds, clock
        self._next = float("-inf")
        self.held_back = 0

    def may_say(self) -> bool:
        """Whether to log now. `held_back` counts the refusals since the last yes."""
        now = self._clock()
        if now < self._next:
            self.held_back += 1
            return False
        self._next = now + self._seconds
        return True

    def more(self) -> str:
        """` (and 12 more)`, for the line that is let through; starts the count over."""
        held, self.held_back = self.held_back, 0
        return f" (and {held} more)" if held else ""


def _text(record: logging.LogRecord, formatter: logging.Formatter | None) -> str:
    try:
        text = record.getMessage()
    except (TypeError, ValueError):
        text = str(record.msg)  # a wrong log call must not cost the event
    if record.exc_info and record.exc_info[1] is not None:
        if formatter is None:
            error = record.exc_info[1]
            return f"{text}: {type(error).__name__}: {error}"
        return f"{text}\n{formatter.formatException(record.exc_info)}"
    return text
