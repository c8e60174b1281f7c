"""What all REST calls share: credentials, rate limit, and errors as JSON.

Owns the middleware and the rate windows. Invariant: every answer of a REST path is JSON in
Alpaca's error shape, whatever went wrong. It implements no endpoint.
"""

import asyncio
import http.client
import logging
import time
from collections.abc import Collection, Mapping
from typing import Any

import msgspec
from aiohttp import web

from alpaca_broker.simulator.access import Access
from alpaca_broker.simulator.codec import nanoseconds
from alpaca_broker.simulator.orders import OrderRefused, invalid
from alpaca_broker.simulator.stats import Stats
from alpaca_broker.simulator.switches import RestTrouble, Switches

log = logging.getLogger(__name__)

OWNER = web.RequestKey("owner", str)
STATUS_PATH = "/simulator/status"
_DATA_PATHS = ("/v2/stocks", "/v1beta1/", "/v1beta3/")
_TWOFOLD_PATHS = ("/v1beta1/news",)  # a WebSocket on one of Alpaca's hosts, REST on another
_KEYLESS_PATHS = ("/v1beta3/crypto/",)  # historical crypto needs no key [OAS oas_data]
_WINDOW_S = 60


def answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """A JSON response."""
    return web.Response(
        body=msgspec.json.encode(value),
        status=status,
        headers=headers,
        content_type="application/json",
    )


def failure(status: int, code: int, message: str) -> web.Response:
    """An error in Alpaca's shape [D]."""
    return answer({"code": code, "message": message}, status)


async def body_of(request: web.Request) -> dict[str, Any]:
    """The JSON object in a request. Raises `OrderRefused` with 422."""
    try:
        value = msgspec.json.decode(await request.read())
    except (msgspec.DecodeError, RecursionError) as error:
        raise invalid("request body is not JSON") from error
    if not isinstance(value, dict):
        raise invalid("request body must be a JSON object")
    return value


def time_of(query: Mapping[str, str], name: str) -> int | None:
    """Nanoseconds of a query parameter. Raises `OrderRefused` with 422."""
    if not (text := query.get(name)):
        return None
    try:
        return nanoseconds(text)
    except ValueError as error:
        raise invalid(f"{name} is not a time") from error


def count_of(query: Mapping[str, str], name: str, default: int, most: int) -> int:
    """A positive number of a query parameter. Raises `OrderRefused` with 422."""
    text = query.get(name) or str(default)
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= most):
        raise invalid(f"{name} must be between 1 and {most}")
    return int(text)


def list_of(query: Mapping[str, str], name: str) -> list[str]:
    """The comma-separated values of a query parameter."""
    return [part.strip() for part in query.get(name, "").split(",") if part.strip()]


def asks_rest(request: web.Request) -> bool:
    """Whether this is a REST call on a path that WebSockets use, too."""
    upgrade = request.headers.get("Upgrade", "").lower()
    return request.path in _TWOFOLD_PATHS and upgrade != "websocket"


class RateWindows:
    """Calls per owner and API in one-minute windows; time is an argument."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._window = 0
        self._calls: dict[tuple[str, str], int] = {}

    def count(self, owner: str, api: str, now_s: float) -> tuple[bool, dict[str, str]]:
        """Count one call: whether it is within the limit, and the headers that say so [D]."""
        if self._limit is None:
            return True, {}
        window = int(now_s) // _WINDOW_S
        if window != self._window:
            self._window, self._calls = window, {}
        calls = self._calls[owner, api] = self._calls.get((owner, api), 0) + 1
        return calls <= self._limit, {
            "X-RateLimit-Limit": str(self._limit),
            "X-RateLimit-Remaining": str(max(0, self._limit - calls)),
            "X-RateLimit-Reset": str((window + 1) * _WINDOW_S),
        }


class Gate:
    """The middleware before every REST endpoint; `open_paths` look after themselves."""

    def __init__(
        self,
        access: Access,
        stats: Stats,
        limit_per_min: int | None,
        open_paths: Collection[str],
        switches: Switches,
    ) -> None:
        self.refuse_all_with: int | None = None
        self.refuse_sockets_with: int | None = None
        self._access = access
        self._stats = stats
        self._windows = RateWindows(limit_per_min)
        self._open_paths = frozenset(open_paths)
        self._switches = switches

    @web.middleware
    async def middleware(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """Check, count, call, and turn every failure into JSON."""
        if request.path in self._open_paths and not asks_rest(request):
            if (status := await self._refused_upgrade(request.path)) is not None:
                return _refusal(status)
            response: web.StreamResponse = await handler(request)
            return response
        self._stats.rest_requests += 1
        if self.refuse_all_with is not None:
            return _refusal(self.refuse_all_with)
        is_data = request.path.startswith(_DATA_PATHS)
        offered, owner = self._access.header_owner(request.headers)
        if not offered and request.path.startswith(_KEYLESS_PATHS):
            owner = "anybody"
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return failure(404, 40410000, "endpoint not found.")
        if owner is None:
            if is_data:
                return answer({"message": "forbidden."}, 403)
            return failure(401, 40110000, "request is not authorized")
        fits, headers = self._windows.count(owner, "data" if is_data else "trading", time.time())
        request[OWNER] = owner
        trouble = self._switches.rest_trouble(request.path)
        if trouble is not None and trouble.delay_s:
            await asyncio.sleep(trouble.delay_s)
        if trouble is not None and trouble.status is not None:
            return _mistaken(trouble, trouble.status, headers)
        response = await _call(request, handler) if fits else _refusal(429)
        response.headers.update(headers)
        if trouble is not None and trouble.cut:
            return await _cut(request, response)
        return response

    async def _refused_upgrade(self, path: str) -> int | None:
        if path == STATUS_PATH:
            return None
        stream = "trading" if path.startswith("/stream") else "market"
        if stalled := self._switches.stalled[stream]:
            await stalled[-1].wait()
            return 503
        refused = [*self._switches.upgrade_status[stream]]
        if self.refuse_sockets_with is not None:
            refused.append(self.refuse_sockets_with)
        return refused[-1] if refused else None


def _refusal(status: int) -> web.Response:
    if status == 429:
        return failure(429, 42910000, "too many requests.")
    return failure(
        status, status * 100_000 + 10_000, http.client.responses.get(status, "error").lower()
    )


def _mistaken(trouble: RestTrouble, status: int, headers: Mapping[str, str]) -> web.Response:
    response = _refusal(status)
    if trouble.body is not None:
        response.body = trouble.body
    response.headers.update(headers)
    response.headers.update(trouble.headers)
    return response


async def _cut(request: web.Request, whole: web.StreamResponse) -> web.StreamResponse:
    """Promise the whole body, send half of it, and cut the connection."""
    body = whole.body if isinstance(whole, web.Response) else b""
    assert isinstance(body, bytes)
    half = web.StreamResponse(status=whole.status, headers=whole.headers)
    half.content_length = max(2, len(body))
    await half.prepare(request)
    await half.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.close()  # once what was written has left
    return half


async def _call(request: web.Request, handler: Any) -> web.StreamResponse:
    try:
        response: web.StreamResponse = await handler(request)
    except OrderRefused as refusal:
        return failure(refusal.status, refusal.code, refusal.message)
    except web.HTTPNotFound:
        return failure(404, 40410000, "endpoint not found.")
    except web.HTTPException as error:
        return failure(error.status, error.status * 100_000 + 10_000, error.reason.lower())
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        return failure(500, 50010000, "internal server error")
    return response
