"""The pretend account's REST API, as a bot uses it.

Owns the keys and the address. A refusal is a value: a bot goes on without that order.
"""

from __future__ import annotations

import json
from http.client import HTTPConnection, HTTPException
from typing import Any

KEY_ID, SECRET = "demo", "demo-secret"
ANSWER_WITHIN_S = 3.0


class RestAccount:
    """Orders and the account's id. Used by one thread."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port

    def account_id(self) -> str:
        """The account's id, under which its orders are published."""
        answer = self._ask("GET", "/v2/account")
        return str(answer["id"]) if answer else ""

    def submit(self, **order: str) -> str | None:
        """Place an order; its id, or None where it was refused."""
        answer = self._ask("POST", "/v2/orders", order)
        return str(answer["id"]) if answer else None

    def cancel(self, order_id: str) -> None:
        """Ask for an order's end; one that is already over stays as it is."""
        self._ask("DELETE", f"/v2/orders/{order_id}")

    def _ask(
        self, method: str, path: str, body: dict[str, str] | None = None
    ) -> dict[str, Any] | None:
        # http.client, because urllib would send our invented orders through a configured proxy.
        connection = HTTPConnection(self._host, self._port, timeout=ANSWER_WITHIN_S)
        headers = {"APCA-API-KEY-ID": KEY_ID, "APCA-API-SECRET-KEY": SECRET}
        try:
            connection.request(method, path, json.dumps(body) if body else None, headers)
            response = connection.getresponse()
            content = response.read()
            if response.status >= 300 or not content:
                return None
            answer = json.loads(content)
            return answer if isinstance(answer, dict) else None
        except (OSError, HTTPException, ValueError):
            return None
        finally:
            connection.close()
