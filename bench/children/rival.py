"""What people build: alpaca-py, in one process, with a handler of their own.

Owns nothing but the handlers. `empty` does nothing with a trade, `publish` hands it to Redis as the
usual examples do, `time` notes how old a trade is when the bot has it.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

import redis
from alpaca.data.enums import DataFeed
from alpaca.data.live.stock import StockDataStream

from bench.children.lines import answer, leave
from bench.figures import Times
from bench.frames import symbols


class Rival:
    """One stream and what came of it."""

    def __init__(self, kind: str, url: str, port: int, names: int) -> None:
        self.count = 0
        self.ages: list[float] = []
        self._redis = redis.Redis(port=port)
        stream = StockDataStream(
            "demo",
            "demo-secret",
            feed=DataFeed.SIP,
            url_override=url.replace("http", "ws") + "/v2/sip",
        )
        handler = {"empty": self._empty, "publish": self._publish, "time": self._time}[kind]
        stream.subscribe_trades(handler, *symbols(names))
        threading.Thread(target=stream.run, name="stream", daemon=True).start()

    async def _empty(self, trade: Any) -> None:
        self.count += 1

    async def _publish(self, trade: Any) -> None:
        message = {
            "type": "price_update",
            "symbol": trade.symbol,
            "price": trade.price,
            "timestamp": trade.timestamp.timestamp(),
            "size": trade.size,
        }
        self._redis.publish(f"price:{trade.symbol}", json.dumps(message))
        self.count += 1

    async def _time(self, trade: Any) -> None:
        self.ages.append(time.time() - trade.timestamp.timestamp())
        self.count += 1

    def counted(self) -> dict[str, Any]:
        """How many trades were handled so far, and when that was."""
        return {"count": self.count, "at": time.monotonic()}

    def timed(self) -> dict[str, Any]:
        """The ages since the last time."""
        ages, self.ages = self.ages, []
        return {"times": Times.of(ages).as_json(), "count": len(ages)}


def main() -> None:
    """`rival.py KIND URL REDIS_PORT SYMBOLS`."""
    kind, url, port, names = sys.argv[1:]
    rival = Rival(kind, url, int(port), int(names))
    answer(counted=rival.counted, timed=rival.timed)
    leave()


if __name__ == "__main__":
    main()
