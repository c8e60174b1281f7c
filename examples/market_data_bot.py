"""Quotes, bars, crypto and news, by handlers; what a gap took comes again, as backfill.

Run it beside a broker:     python examples/market_data_bot.py AAPL BTC/USD
Without keys:               see README.md in this folder
It ends by Ctrl-C, or after --seconds N.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib

from alpaca_broker import AsyncClient
from alpaca_broker.client import BarUpdate, Gap, News, PriceUpdate, QuoteUpdate


def show(update: object) -> None:
    match update:
        case QuoteUpdate():
            print(f"{update.symbol} {update.bid_price} to {update.ask_price}", flush=True)
        case BarUpdate():
            print(f"{update.symbol} closed at {update.close}, {update.timeframe}", flush=True)
        case PriceUpdate():  # of `backfill`: traded while the broker's link was down
            print(f"{update.symbol} {update.price} ({update.source})", flush=True)
        case News():
            print(f"news of {', '.join(update.symbols)}: {update.headline}", flush=True)
        case Gap(again=False):
            print(f"missed: {', '.join(update.symbols)}: {update.detail}", flush=True)
        case Gap():  # the second word about it
            print(f"recovered: {update.recovered}: {update.detail}", flush=True)


async def run(symbols: list[str], seconds: float | None) -> None:
    async with AsyncClient(bot_id="example-market-data-bot") as client:
        client.on_update(symbols, show, channels=["quotes", "bars", "backfill"])
        client.on_update("*", show, channels=["news"])
        client.on_gap(show)
        await client.wait_ready()
        print(f"ready; refused: {client.rejected or 'nothing'}", flush=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.Event().wait()  # the handlers do the rest, in this loop


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Shows several kinds of market data.")
    parser.add_argument("symbols", nargs="*", default=["AAPL", "BTC/USD"])
    parser.add_argument("--seconds", type=float, help="end by itself after so long")
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run(options.symbols, options.seconds))
