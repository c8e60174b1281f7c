"""Which of Alpaca's accounts the broker serves, and by which variables each was given.

Owns the names of accounts and of their variables, and what can be told of keys by looking at them.
A key's id begins with PK for paper and with AK for live accounts; whether a key is right, only
Alpaca can say. No secret enters a text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from alpaca_broker.errors import ConfigError

Environment = Literal["paper", "live"]

PAPER = ("PAPER_ALPACA_API_KEY_ID", "PAPER_ALPACA_API_SECRET_KEY")
LIVE = ("ALPACA_API_KEY_ID", "ALPACA_API_SECRET_KEY")
MOST_ACCOUNTS = 50

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")
_KINDS: dict[str, Environment] = {"PK": "paper", "AK": "live"}


class KeyPair(Struct, frozen=True):
    """One pair of Alpaca keys and the account kind that it opens. Its repr shows no secret."""

    environment: Environment
    key_id: str
    secret: str
    name: str = ""
    variables: tuple[str, str] = PAPER

    def __repr__(self) -> str:
        return f"KeyPair({self.label!r})"

    @property
    def label(self) -> str:
        """What people call it: `paper`, `live`, or the name that it was given."""
        return self.name or self.environment

    @property
    def doubt(self) -> str | None:
        """Why the key looks like one of the other environment's; None where it does not."""
        kind = _KINDS.get(self.key_id[:2])
        if kind is None or kind == self.environment:
            return None
        looks = f"{self.variables[0]} begins with {self.key_id[:2]}, as keys of {kind} accounts do"
        if not self.name:
            return f"{looks}: those are for {' and '.join(LIVE if kind == 'live' else PAPER)}"
        return f"{looks}, but {_environment_variable(self.name)} is {self.environment}"

    @property
    def advice(self) -> str:
        """What to check where Alpaca refuses these keys."""
        return f"check {' and '.join(self.variables)}" + (f": {self.doubt}" if self.doubt else "")


def account_names(text: str) -> tuple[str, ...]:
    """The names in ALPACA_ACCOUNTS, `swing,scalp`.

    Raises:
        ValueError: one of them cannot be a name.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name: letters, digits and _ only, a letter first")
        if name.lower() in ("paper", "live"):
            raise ValueError(f"{name!r} has variables of its own: leave it out here")
    if len({name.upper() for name in names}) != len(names):
        raise ValueError("each name may stand there once")
    if len(names) > MOST_ACCOUNTS:
        raise ValueError(f"at most {MOST_ACCOUNTS} accounts")
    return tuple(names)


def named_accounts(
    names: tuple[str, ...], variables: Mapping[str, str], where: str
) -> tuple[KeyPair, ...]:
    """The accounts of these names, from variables such as SWING_ALPACA_API_KEY_ID.

    Raises:
        ConfigError: one line for each variable that is missing or wrong.
    """
    pairs: list[KeyPair] = []
    problems: list[str] = []
    for name in names:
        ours = tuple(f"{name.upper()}_{variable}" for variable in LIVE)
        missing = [variable for variable in ours if not variables.get(variable)]
        problems += [
            f"{variable} is missing: ALPACA_ACCOUNTS names {name!r}. Set it in the environment or "
            f"in {where}"
            for variable in missing
        ]
        environment = variables.get(_environment_variable(name), "paper").lower()
        if environment not in ("paper", "live"):
            problems.append(f"{_environment_variable(name)} must be paper or live")
        elif not missing:
            id_name, secret_name = ours
            kind: Environment = "live" if environment == "live" else "paper"
            given = (variables[id_name], variables[secret_name])
            pairs.append(KeyPair(kind, *given, name, (id_name, secret_name)))
    if problems:
        raise ConfigError(problems)
    return tuple(pairs)


def _environment_variable(name: str) -> str:
    return f"{name.upper()}_ALPACA_ENVIRONMENT"
