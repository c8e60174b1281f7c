"""Prices without our library: redis-py, a lease, holes in the numbers, the heartbeat.

Run it beside a broker:     python examples/plain_redis_bot.py AAPL
Without keys:               see README.md in this folder
It ends by Ctrl-C, after --seconds N, or with Redis. docs/contract.md is all that it knows.
"""

import argparse
import contextlib
import json
import os
import time

import redis

parser = argparse.ArgumentParser(description="Shows prices, holes and the heartbeat.")
parser.add_argument("symbols", nargs="*", default=["AAPL"])
parser.add_argument("--seconds", type=float, default=float("inf"), help="end after so long")
options = parser.parse_args()

PREFIX = os.environ.get("CHANNEL_PREFIX", "")
TTL_S, STALE_AFTER_S = 30, 3
client = redis.Redis(os.environ.get("REDIS_HOST", "127.0.0.1"), int(os.getenv("REDIS_PORT", 6379)))
pubsub = client.pubsub(ignore_subscribe_messages=True)


def say(action, **more):
    wish = {"action": action, "symbols": options.symbols, "bot_id": "example-plain-bot"}
    return client.publish(f"{PREFIX}broker:registration", json.dumps(wish | more))


def main():
    pubsub.subscribe(f"{PREFIX}broker:status", *(f"{PREFIX}price:{s}" for s in options.symbols))
    last, renew_at, end = {}, 0.0, time.monotonic() + options.seconds
    heard_at, stale = time.monotonic(), False
    while (now := time.monotonic()) < end:
        if now >= renew_at:  # the lease: the broker forgets a bot that is gone
            renew_at = now + (TTL_S / 3 if say("register", ttl=TTL_S) else 1)
        message = pubsub.get_message(timeout=0.5)
        update = json.loads(message["data"]) if message else {}
        if update.get("type") == "status":
            heard_at = now
        elif update.get("type") == "price_update":
            symbol, epoch, seq = update["symbol"], update["epoch"], update["seq"]
            before, number = last.get(symbol, (epoch, seq - 1))
            if epoch < before:
                continue  # from a broker that has been replaced
            if missed := seq - (number + 1 if epoch == before else 1):
                print(f"{symbol}: missed {missed}", flush=True)
            last[symbol] = epoch, seq
            print(f"{symbol} {update['price']} (number {seq})", flush=True)
        if stale != (now - heard_at > STALE_AFTER_S):
            stale = not stale
            print("stale: no heartbeat" if stale else "the broker is there", flush=True)


with contextlib.suppress(KeyboardInterrupt):
    main()
say("unregister")
