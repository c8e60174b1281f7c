"""The few endpoints of Alpaca's REST that the broker needs.

Owns authentication, deadlines, the waiting for a place in the key's quota, and the reading of
errors. It retries nothing: its callers have the patience.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from datetime import date
from email.utils import parsedate_to_datetime
from time import monotonic, time
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import aiohttp
import msgspec
from msgspec import Struct, field
from yarl import URL

from alpaca_broker.alpaca.link import HEADERS, reason
from alpaca_broker.alpaca.quota import LEFT_FOR_BOTS, Quota
from alpaca_broker.core.accounts import KeyPair
from alpaca_broker.core.market_data import Instant, Int64
from alpaca_broker.core.market_hours import CalendarDay, Clock
from alpaca_broker.errors import UpstreamRefused, UpstreamUnavailable
from alpaca_broker.settings import as_http

ANSWER_WITHIN_S = 10.0
TOO_MANY_REQUESTS = 429
T = TypeVar("T")

MOST_BYTES = 32 * 1024 * 1024
MOST_ORDERS, MOST_FILLS = 500, 100  # in one answer (Alpaca's "Get All Orders", "Activities")


class Account(Struct, frozen=True):
    """`GET /v2/account`, as far as it is needed."""

    id: str
    account_number: str = ""


class LatestTrade(Struct):
    """A trade as REST shows it: `p` price, `s` size, `x` exchange, `c` conditions, `i` id."""

    p: float
    t: Instant
    s: Int64 | float | None = None
    x: str | None = None
    c: list[str] | str | None = None
    i: Int64 | None = None


class PastTrade(LatestTrade):
    """A trade of the past; `u` says whether it was taken back or corrected since."""

    u: str | None = None


class PastBar(Struct):
    """A minute bar of the past; `t` is its beginning."""

    t: Instant
    o: float
    h: float
    l: float  # noqa: E741 - Alpaca's name
    c: float
    v: Int64 | float | None = None
    vw: float | None = None
    n: Int64 | None = None


class _LatestTrades(Struct):
    trades: dict[str, LatestTrade]


class TradePage(Struct):
    """One page of past trades; `more` where the answer did not hold all."""

    found: dict[str, list[PastTrade]] | None = field(default=None, name="trades")
    more: str | None = field(default=None, name="next_page_token")


class BarPage(Struct):
    """The same for bars."""

    found: dict[str, list[PastBar]] | None = field(default=None, name="bars")
    more: str | None = field(default=None, name="next_page_token")


PastPage = TradePage | BarPage


class _Asset(Struct):
    symbol: str


class _Rest:
    """What both APIs share: keys, deadlines, the quota, and the reading of errors.

    Args:
        quota: Shared by all who use these keys there.
        leaving: How many of its calls are left to others.
    """

    def __init__(
        self,
        http: aiohttp.ClientSession,
        base_url: str,
        keys: KeyPair,
        quota: Quota | None = None,
        *,
        leaving: int = LEFT_FOR_BOTS,
    ) -> None:
        self._http, self._base = http, as_http(base_url)
        self._headers = HEADERS | {
            "APCA-API-KEY-ID": keys.key_id,
            "APCA-API-SECRET-KEY": keys.secret,
        }
        self._clock: float | None = None  # Alpaca's before the monotonic one, in seconds
        self._quota, self._leaving = quota or Quota(), leaving
        self.calls = 0

    def now(self) -> float:
        """Alpaca's time in epoch seconds, as its answers show it, also where ours is set anew."""
        return time() if self._clock is None else monotonic() + self._clock

    async def _get(self, path: str, kind: type[T]) -> T:
        url = self._base + path.partition("?")[0]  # as it is shown: a query may be long
        timeout = aiohttp.ClientTimeout(total=ANSWER_WITHIN_S)
        await self._turn()
        self.calls += 1
        try:
            # The path is quoted already: `BTC%2FUSD` must not become `BTC/USD`.
            address = URL(self._base + path, encoded=True)
            # A redirect would carry the keys to whoever it names: it counts as a refusal.
            async with self._http.get(
                address, headers=self._headers, timeout=timeout, allow_redirects=False
            ) as answer:
                self._limits(answer.headers)
                body = await _whole(answer)
                if answer.status == TOO_MANY_REQUESTS:
                    self._quota.refused(monotonic())
                if answer.status != 200:
                    raise UpstreamRefused(answer.status, f"{url}: {_message(body)}", http=True)
                return msgspec.json.decode(body, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise UpstreamUnavailable(url, f"an answer that cannot be read: {error}") from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise UpstreamUnavailable(url, reason(error)) from error

    async def _turn(self) -> None:
        """Wait for a place in the quota; it is a minute at most until there may be one."""
        while True:
            wait = self._quota.take(monotonic(), self._leaving)
            if not wait:
                return
            await asyncio.sleep(wait)

    def _limits(self, headers: Mapping[str, str]) -> None:
        """Keep what the answer says about the rate limit (X-RateLimit-…) and Alpaca's clock."""
        try:
            ahead = parsedate_to_datetime(headers.get("Date", "")).timestamp() - time()
            # It has whole seconds only: less than two is no difference.
            self._clock = time() - monotonic() + (ahead if abs(ahead) > 2 else 0.0)
        except (ValueError, OverflowError):
            pass  # an answer without a date that makes sense
        resets_at = _count(headers.get("X-RateLimit-Reset"))
        self._quota.answered(
            monotonic(),
            granted=_count(headers.get("X-RateLimit-Limit")),
            remaining=_count(headers.get("X-RateLimit-Remaining")),
            resets_in=None if resets_at is None else resets_at - self.now(),
        )


class TradingRest(_Rest):
    """One account's REST API."""

    async def orders(self, **query: str) -> list[Any]:
        """Orders (`GET /v2/orders`), at most 500 (`MOST_ORDERS`) in one answer.

        `status` open, closed or all; `after` and `until` look at the *submission* time, exclusive.

        Raises:
            UpstreamRefused, UpstreamUnavailable: as below.
        """
        query = {"limit": str(MOST_ORDERS), "nested": "false", **query}
        return await self._get(f"/v2/orders?{urlencode(query)}", list[Any])

    async def order(self, order_id: str) -> Any | None:
        """One order, or None where Alpaca knows none of this id.

        Raises:
            UpstreamRefused, UpstreamUnavailable: as below.
        """
        try:
            return await self._get(f"/v2/orders/{quote(order_id, safe='')}", dict[str, Any])
        except UpstreamRefused as error:
            if error.code == 404:
                return None
            raise

    async def fills(self, **query: str) -> list[Any]:
        """Fills (`GET /v2/account/activities/FILL`), at most 100 (`MOST_FILLS`) in one answer.

        Raises:
            UpstreamRefused, UpstreamUnavailable: as below.
        """
        query = {"page_size": str(MOST_FILLS), **query}
        return await self._get(f"/v2/account/activities/FILL?{urlencode(query)}", list[Any])

    async def account(self) -> Account:
        """Who the keys belong to.

        Raises:
            UpstreamRefused: with the HTTP status; 401 and 403 mean the keys.
            UpstreamUnavailable: no answer, or one that cannot be read.
        """
        return await self._get("/v2/account", Account)

    async def symbols(self, asset_class: str) -> frozenset[str]:
        """Every active asset's symbol (`GET /v2/assets`, some megabytes), of `us_equity`, ….

        Raises:
            UpstreamRefused, UpstreamUnavailable: as above.
        """
        path = f"/v2/assets?status=active&asset_class={asset_class}"
        assets = await self._get(path, list[_Asset])
        return frozenset(asset.symbol for asset in assets)

    async def knows(self, symbol: str) -> bool:
        """Whether there is such an asset (`GET /v2/assets/SYMBOL`; 404 where there is none).

        Raises:
            UpstreamRefused, UpstreamUnavailable: as above.
        """
        try:
            await self._get(f"/v2/assets/{quote(symbol, safe='')}", _Asset)
        except UpstreamRefused as error:
            if error.code == 404:
                return False
            raise
        return True

    async def clock(self) -> Clock:
        """What time it is at the market, and when it opens and closes (`GET /v2/clock`).

        Raises:
            UpstreamRefused, UpstreamUnavailable: as above.
        """
        return await self._get("/v2/clock", Clock)

    async def calendar(self, first: date, last: date) -> list[CalendarDay]:
        """The trading days from `first` to `last` (`GET /v2/calendar`).

        Raises:
            UpstreamRefused, UpstreamUnavailable: as above.
        """
        return await self._get(f"/v2/calendar?start={first}&end={last}", list[CalendarDay])


class DataRest(_Rest):
    """Market data's REST API, for what the stream does not tell."""

    async def latest_trades(self, path: str, symbols: Iterable[str]) -> dict[str, LatestTrade]:
        """The last trade of each symbol that has one; `path` ends where the symbols begin.

        Raises:
            UpstreamRefused, UpstreamUnavailable: as above.
        """
        answer = await self._get(path + quote(",".join(symbols), safe=""), _LatestTrades)
        return answer.trades

    async def past_trades(self, path: str, symbols: Iterable[str], **span: str) -> TradePage:
        """The newest trades of these symbols in a span of time; `path` ends with `?` or `&`.

        Raises:
            UpstreamRefused: as above; 403 is what the plan does not show.
            UpstreamUnavailable: as above.
        """
        query = urlencode({"symbols": ",".join(symbols), **span, "sort": "desc"})
        return await self._get(path + query, TradePage)

    async def past_bars(self, path: str, symbols: Iterable[str], **span: str) -> BarPage:
        """The newest minute bars that begin in a span of time; otherwise as `past_trades`."""
        query = urlencode({"symbols": ",".join(symbols), **span, "timeframe": "1Min"})
        return await self._get(f"{path}{query}&sort=desc", BarPage)


async def _whole(answer: aiohttp.ClientResponse) -> bytes:
    """The whole body, in however many pieces it comes; cut at a bound, then it cannot be read."""
    body = bytearray()
    async for piece in answer.content.iter_any():
        body += piece
        if len(body) > MOST_BYTES:
            break
    return bytes(body)


def _count(text: str | None) -> int | None:
    """A header's number, or None where it is none."""
    return int(text[:12]) if text is not None and text.isascii() and text.isdigit() else None


def _message(body: bytes) -> str:
    """Alpaca's own words in an error body, `{"code":…,"message":…}`."""
    try:
        return str(msgspec.json.decode(body, type=dict[str, Any]).get("message", ""))[:300]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return "refused"
