"""asyncio: prices and orders side by side, in one loop.

Run it beside a broker:     python examples/asyncio_bot.py AAPL MSFT
Without keys:               see README.md in this folder
It ends by Ctrl-C, or after --seconds N.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib

from alpaca_broker import AsyncClient
from alpaca_broker.client import Gap


async def watch_prices(client: AsyncClient, symbols: list[str]) -> None:
    async for update in client.prices(*symbols):
        if isinstance(update, Gap):
            print(f"prices missed: {update.reason}", flush=True)
        else:
            print(f"{update.symbol} {update.price}", flush=True)


async def watch_orders(client: AsyncClient, account_id: str) -> None:
    async for update in client.orders(account_id):
        if isinstance(update, Gap):
            print(f"orders missed: {update.reason}", flush=True)
        else:
            print(f"order {update.order_id} {update.status}", flush=True)


async def run(symbols: list[str], seconds: float | None) -> None:
    async with AsyncClient(bot_id="example-asyncio-bot") as client:
        await client.wait_ready()
        status = client.status()
        if status is None:
            raise SystemExit("no broker is there: start it first")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as tasks:
                tasks.create_task(watch_prices(client, symbols))
                for account_id in status.accounts:
                    tasks.create_task(watch_orders(client, account_id))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Shows prices and orders.")
    parser.add_argument("symbols", nargs="*", default=["AAPL"])
    parser.add_argument("--seconds", type=float, help="end by itself after so long")
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run(options.symbols, options.seconds))
