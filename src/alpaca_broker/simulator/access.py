"""Who may come in: key pairs, and one market-data connection per key and endpoint.

Owns the keys and the connection slots. Invariant: a slot has at most one holder.
Secrets stay in here; nothing it returns or logs holds one.
"""

import base64
import binascii
from collections.abc import Mapping

OWNER_LIMIT = 1000
_TOKEN_KEYS = frozenset({"oauth", "access_token"})  # the secret is the token [D WSS]


class Access:
    """Checks credentials. An owner is the key id an account and its slots belong to."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        self._keys = dict(keys)
        self._owner_by_secret = {secret: key for key, secret in keys.items()}
        self._owners: set[str] = set()

    def owner(self, key: object, secret: object) -> str | None:
        """The owner behind a key pair, or None if it is wrong."""
        if not (isinstance(key, str) and isinstance(secret, str) and key and secret):
            return None
        if key in _TOKEN_KEYS:
            return self.token_owner(secret)
        if self._keys and self._keys.get(key) != secret:
            return None
        return self._admitted(key)

    def token_owner(self, token: object) -> str | None:
        """The owner behind a bare token, which counts as a key pair by its secret."""
        if not (isinstance(token, str) and token):
            return None
        if self._keys:
            return self._owner_by_secret.get(token)
        return self._admitted(token)

    def header_owner(self, headers: Mapping[str, str]) -> tuple[bool, str | None]:
        """Whether headers carry credentials at all, and the owner behind them [D WSS]."""
        if "APCA-API-KEY-ID" in headers or "APCA-API-SECRET-KEY" in headers:
            key, secret = headers.get("APCA-API-KEY-ID"), headers.get("APCA-API-SECRET-KEY")
            return True, self.owner(key, secret)
        scheme, _, value = headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return True, self.token_owner(value.strip())
        if scheme.lower() == "basic":
            return True, self.owner(*_basic(value))
        return False, None

    def _admitted(self, owner: str) -> str | None:
        # Any pair is welcome without configured keys, but memory is bounded all the same.
        if owner not in self._owners and len(self._owners) >= OWNER_LIMIT:
            return None
        self._owners.add(owner)
        return owner


class Slots:
    """One authenticated session per owner and endpoint [D WSS]; time is an argument."""

    def __init__(self) -> None:
        self._holders: dict[tuple[str, str], object] = {}
        self._lingering: dict[tuple[str, str], float] = {}

    def take(self, feed: str, owner: str, holder: object, now: float) -> bool:
        """Whether `holder` has the slot now. The older one keeps it."""
        slot = (feed, owner)
        if self._lingering.get(slot, now) > now:
            return False
        return self._holders.setdefault(slot, holder) is holder

    def release(self, feed: str, owner: str, holder: object, linger_until: float = 0.0) -> None:
        """Free the slot, from `linger_until` on; may be called again."""
        slot = (feed, owner)
        if self._holders.get(slot) is holder:
            del self._holders[slot]
            self._lingering[slot] = linger_until


def _basic(value: str) -> tuple[str, str]:
    try:
        text = base64.b64decode(value.strip(), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    key, _, secret = text.partition(":")
    return key, secret
