"""Order events with recovery: killed at any moment, it goes on where it was.

Run it beside a broker:     python examples/order_bot.py [ACCOUNT_ID] --state orders.json
Try it:                     kill -9 it, let an order fill, start it again
Without keys:               see README.md in this folder
It ends by Ctrl-C, or after --seconds N.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
from pathlib import Path

from alpaca_broker import Client
from alpaca_broker.client import Gap


def main() -> None:
    parser = argparse.ArgumentParser(description="Shows the order events of an account.")
    parser.add_argument("account_id", nargs="?", help="the broker's first account if absent")
    parser.add_argument("--state", type=Path, default=Path("order_bot.json"))
    parser.add_argument("--seconds", type=int, default=0, help="end by itself after so long")
    options = parser.parse_args()
    signal.signal(signal.SIGALRM, signal.default_int_handler)  # time is up: the same as Ctrl-C

    place = json.loads(options.state.read_text()) if options.state.exists() else {}
    with Client(bot_id="example-order-bot") as client:
        signal.alarm(options.seconds)
        client.wait_ready()
        status = client.status()
        if status is None:
            raise SystemExit("no broker is there: start it first")
        account_id = options.account_id or next(iter(status.accounts))
        print(f"account {account_id}, after number {place.get('since', 'none yet')}", flush=True)
        # With `since`, what came meanwhile is read from the journal; each event once, in order.
        for update in client.orders(account_id, **place):
            if isinstance(update, Gap):
                print(f"missed: {update.reason} {update.detail}", flush=True)
                continue
            word = "open" if update.snapshot else f"number {update.seq}: {update.event}"
            print(f"{word} {update.order_id} {update.status} {update.filled_qty}", flush=True)
            if not update.snapshot:
                # After the work: killed in between, the bot sees this event once more, never less.
                place = {"since": update.seq, "journal_id": update.journal_id}
                fresh = options.state.with_suffix(".new")
                fresh.write_text(json.dumps(place))
                fresh.replace(options.state)  # whole or not at all


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
