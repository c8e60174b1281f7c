"""News out of thin air: an article now and then.

Owns the numbering and the wording. Invariant: the same seed tells the same stories in the same
order; time is an argument.
"""

import random
from collections.abc import Sequence
from typing import Any

from alpaca_broker.simulator.codec import rfc3339

_FIRST_ID = 24_843_171
_VERBS = ("beats estimates", "recalls a product", "names a new chief", "splits its shares")
_BURST = 10


class Newsroom:
    """Writes articles, `per_minute` on average.

    Args:
        seed: Same seed, same stories.
        per_minute: How many; 0 for none.
        symbols: Who they are about.
    """

    def __init__(self, seed: int, per_minute: float, symbols: Sequence[str]) -> None:
        self._random = random.Random(f"{seed}:news")  # noqa: S311 - not for secrets
        self._per_minute = per_minute
        self._symbols = symbols
        self._next_id = _FIRST_ID
        self._owed = 1.0 if per_minute else 0.0  # the first one comes at once

    def advance(self, now_ns: int, passed_s: float) -> list[dict[str, Any]]:
        """What is published in the `passed_s` seconds that end now."""
        self._owed = min(_BURST, self._owed + self._per_minute * passed_s / 60)
        written = []
        while self._owed >= 1:
            self._owed -= 1
            about = self._random.sample(self._symbols, self._random.choice((1, 1, 2)))
            written.append(self.article(about, now_ns, f"{about[0]} {self._verb()}"))
        return written

    def article(self, symbols: Sequence[str], now_ns: int, headline: str) -> dict[str, Any]:
        """A message of the news feed [D RTN]; it has no `S` and no `t`."""
        self._next_id += 1
        moment = rfc3339(now_ns)
        return {
            "T": "n",
            "id": self._next_id,
            "headline": headline,
            "summary": f"{headline}, the simulator invents.",
            "author": "Sim Ulator",
            "created_at": moment,
            "updated_at": moment,
            "url": f"https://example.com/news/{self._next_id}",
            "content": f"<p>{headline}, the simulator invents.</p>",
            "symbols": list(symbols),
            "source": "simulator",
        }

    def _verb(self) -> str:
        return self._random.choice(_VERBS)
