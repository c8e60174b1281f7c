"""The few endpoints of Alpaca's trading REST that the broker needs.

Owns authentication, deadlines and the reading of errors. It retries nothing: its callers have the
patience.
"""

from __future__ import annotations

from typing import Any, TypeVar

import aiohttp
import msgspec
from msgspec import Struct

from alpaca_broker.alpaca.link import HEADERS
from alpaca_broker.errors import UpstreamRefused, UpstreamUnavailable
from alpaca_broker.settings import KeyPair, as_http

ANSWER_WITHIN_S = 10.0
T = TypeVar("T")

MOST_BYTES = 32 * 1024 * 1024


class Account(Struct, frozen=True):
    """`GET /v2/account`, as far as it is needed."""

    id: str
    account_number: str = ""


class TradingRest:
    """One account's REST API."""

    def __init__(self, http: aiohttp.ClientSession, base_url: str, keys: KeyPair) -> None:
        self._http, self._base = http, as_http(base_url)
        self._headers = HEADERS | {
            "APCA-API-KEY-ID": keys.key_id,
            "APCA-API-SECRET-KEY": keys.secret,
        }

    async def account(self) -> Account:
        """Who the keys belong to.

        Raises:
            UpstreamRefused: with the HTTP status; 401 and 403 mean the keys.
            UpstreamUnavailable: no answer, or one that cannot be read.
        """
        return await self._get("/v2/account", Account)

    async def _get(self, path: str, kind: type[T]) -> T:
        url = self._base + path
        timeout = aiohttp.ClientTimeout(total=ANSWER_WITHIN_S)
        try:
            async with self._http.get(url, headers=self._headers, timeout=timeout) as answer:
                body = await answer.content.read(MOST_BYTES)
                if answer.status != 200:
                    raise UpstreamRefused(answer.status, f"{url}: {_message(body)}", http=True)
                return msgspec.json.decode(body, type=kind)
        except msgspec.MsgspecError as error:
            raise UpstreamUnavailable(url, f"an answer that cannot be read: {error}") from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise UpstreamUnavailable(url, str(error) or type(error).__name__) from error


def _message(body: bytes) -> str:
    """Alpaca's own words in an error body, `{"code":…,"message":…}`."""
    try:
        return str(msgspec.json.decode(body, type=dict[str, Any]).get("message", ""))[:300]
    except msgspec.MsgspecError:
        return "refused"
