"""Prices with the client library: what was missed is told, what may be stale is known.

Run it beside a broker:     python examples/price_bot.py AAPL MSFT
Without keys:               see README.md in this folder
It ends by Ctrl-C, or after --seconds N.
"""

from __future__ import annotations

import argparse
import contextlib
import signal

from alpaca_broker import Client
from alpaca_broker.client import Gap


def main() -> None:
    parser = argparse.ArgumentParser(description="Shows prices, and whether they are fresh.")
    parser.add_argument("symbols", nargs="*", default=["AAPL"])
    parser.add_argument("--seconds", type=int, default=0, help="end by itself after so long")
    options = parser.parse_args()
    signal.signal(signal.SIGALRM, signal.default_int_handler)  # time is up: the same as Ctrl-C

    # Where Redis is comes from REDIS_HOST, REDIS_PORT, … or configs/.env, as for the broker.
    with Client(bot_id="example-price-bot") as client:
        signal.alarm(options.seconds)
        prices = client.prices(*options.symbols)
        if client.wait_ready():
            print(f"ready; refused: {client.rejected or 'nothing'}", flush=True)
        else:
            print(f"no answer yet; the broker is {client.state}", flush=True)
        for update in prices:
            if isinstance(update, Gap):  # numbers were missing, or the broker says so
                print(f"missed: {', '.join(update.symbols)}: {update.reason}", flush=True)
                continue
            # Not "traded recently", but "nothing newer is known to be missing".
            word = "fresh" if client.is_fresh(update.symbol) else "stale"
            print(f"{update.symbol} {update.price} {word} (number {update.seq})", flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
