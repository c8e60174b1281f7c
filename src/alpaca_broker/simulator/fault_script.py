"""Fault scripts as people write them, and storms: schedules of faults by the seed.

Owns the grammar `NAME@WHEN[+DURATION][:COUNT, STREAM or PATH]`. Invariant: what `str(fault)` writes
is read as the same fault; the same seed is the same storm. Pure.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from fractions import Fraction

from alpaca_broker.simulator.faults import KINDS, LONGEST_MS, Fault, span

STORM = "storm"
MOST_FAULTS = 10_000
_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}
_TIME = r"[0-9]{1,9}(?:\.[0-9]{1,3})?(?:ms|s|m|h)"
_WORD = re.compile(
    rf"(?P<name>[a-z0-9-]+)@(?P<at>{_TIME})(?:\+(?P<lasts>{_TIME}))?(?::(?P<what>\S+))?"
)
_SHAPE = "a fault is NAME@WHEN[+DURATION][:COUNT, STREAM or PATH], as in mute@10s or cut@1m:market"
_STORM_MS, _BETWEEN_MS = 60_000, 2_000


def script(words: Iterable[str]) -> list[Fault]:
    """The faults of a script in the order of their times. Raises `ValueError`."""
    faults = [fault for word in words for fault in _read(word)]
    if len(faults) > MOST_FAULTS:
        raise ValueError(f"a script has at most {MOST_FAULTS} faults, not {len(faults)}")
    return sorted(faults)


def parse(word: str) -> Fault:
    """One fault, not a storm. Raises `ValueError`."""
    match = _matched(word)
    lasts = match["lasts"]
    return Fault(
        _milliseconds(match["at"]),
        match["name"],
        None if lasts is None else _milliseconds(lasts),
        match["what"] or "",
    )


def storm(
    seed: int,
    seconds: float = _STORM_MS / 1000,
    *,
    faults: int | None = None,
    longest_s: float = 2.0,
    only: Collection[str] = (),
) -> list[Fault]:
    """A schedule of faults by chance, always the same one for the same arguments.

    Args:
        seed: Of the chance.
        seconds: By then the last of them has ended.
        faults: How many; one every two seconds if it is left out.
        longest_s: How long one lasts at most.
        only: Names to choose from; without it all those that a broker has to survive.
    """
    chance = random.Random(seed)  # noqa: S311 - a plan, no secret
    if unknown := set(only) - KINDS.keys():
        raise ValueError(f"no such fault: {', '.join(sorted(unknown))}")
    names = [name for name, kind in KINDS.items() if (name in only if only else kind.in_storms)]
    whole_ms = round(seconds * 1000)
    count = whole_ms // _BETWEEN_MS if faults is None else faults
    if not 0 <= whole_ms <= LONGEST_MS or not 0 <= count <= MOST_FAULTS:
        raise ValueError(f"a storm has at most {MOST_FAULTS} faults in 24h")
    return sorted(_by_chance(chance, names, whole_ms, longest_s) for _ in range(count))


def listing() -> list[str]:
    """One line for each fault: how it is written, and what it means."""
    lines = [f"{usage(name):<42} {kind.meaning}" for name, kind in KINDS.items()]
    return [*lines, f"{usage(STORM):<42} one fault by chance every 2 s, the same for a SEED"]


def usage(name: str) -> str:
    """How a fault is written, with the usual length and choice."""
    if name == STORM:
        return f"{STORM}@WHEN[+{span(_STORM_MS)}][:SEED]"
    kind = KINDS[name]
    lasts = "" if kind.lasts_ms is None else f"[+{span(kind.lasts_ms)}]"
    what = {"": "", "count": "[:COUNT]", "stream": "[:STREAM]", "path": "[:PATH]"}[kind.takes]
    return f"{name}@WHEN{lasts}{what}"


def _read(word: str) -> list[Fault]:
    match = _matched(word)
    if match["name"] != STORM:
        return [parse(word)]
    seed, at_ms = match["what"] or "1", _milliseconds(match["at"])
    if not (seed.isascii() and seed.isdigit() and len(seed) <= 18):
        raise ValueError(f"{STORM} takes the number of a seed, not {seed!r}")
    lasts_ms = _STORM_MS if match["lasts"] is None else _milliseconds(match["lasts"])
    return [
        Fault(at_ms + fault.at_ms, fault.name, fault.lasts_ms, fault.what)
        for fault in storm(int(seed), lasts_ms / 1000)
    ]


def _matched(word: str) -> re.Match[str]:
    if (match := _WORD.fullmatch(word)) is None:
        raise ValueError(f"{word!r} is no fault: {_SHAPE}")
    if (name := match["name"]) not in {*KINDS, STORM}:
        near = get_close_matches(name, [*KINDS, STORM], 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(f"no such fault: {name!r}; {hint}`--fault help` lists them")
    return match


def _milliseconds(text: str) -> int:
    number = text.rstrip("hms")
    exact = Fraction(number) * _UNITS_MS[text[len(number) :]]
    if exact.denominator != 1:
        raise ValueError(f"{text} is no whole number of milliseconds")
    if exact > LONGEST_MS:
        raise ValueError(f"{text} is too long: a time is at most {LONGEST_MS // 3_600_000}h")
    return int(exact)


def _by_chance(chance: random.Random, names: list[str], whole_ms: int, longest_s: float) -> Fault:
    name = chance.choice(names)
    kind = KINDS[name]
    lasts_ms = None
    if kind.lasts_ms is not None:
        lasts_ms = min(whole_ms, chance.randint(50, max(50, round(longest_s * 1000))))
    at_ms = chance.randint(0, whole_ms - (lasts_ms or 0))
    what = {
        "": "",
        "count": str(chance.randint(1, 3)),
        "stream": chance.choice(("market", "trading", "all")),
        "path": chance.choice(("/", "/v2/orders", "/v2/account")),
    }[kind.takes]
    return Fault(at_ms, name, lasts_ms, what)
