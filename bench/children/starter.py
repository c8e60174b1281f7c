"""A broker inside a process that is already there: how long `start()` takes until it is live.

Owns one broker after the other, with the settings of the environment.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from alpaca_broker.broker import AlpacaBroker
from alpaca_broker.settings import load_settings
from bench.children.lines import answer, leave

LOOK_S = 0.0005
WITHIN_S = 20.0


def start() -> dict[str, Any]:
    """Seconds from `start()` to live; the broker is stopped afterwards."""
    broker = AlpacaBroker(load_settings())
    began = time.monotonic()
    broker.start()
    try:
        while broker.status().state != "live" and time.monotonic() - began < WITHIN_S:
            time.sleep(LOOK_S)
        return {"seconds": time.monotonic() - began}
    finally:
        broker.stop()


def main() -> None:
    """`starter.py`."""
    logging.disable(logging.CRITICAL)
    answer(start=start)
    leave()


if __name__ == "__main__":
    main()
