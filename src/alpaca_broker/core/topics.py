"""Sets of topics, grouped by kind.

Owns the one thing that makes a hundred thousand topics cheap: a string knows its hash and a tuple
does not, so that what is compared and subtracted here are sets of symbols, one for each kind.
Immutable; equal to any set of the same topics.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any

Topic = tuple[str, str]  # (kind of data, symbol)

NOBODY: frozenset[str] = frozenset()


class Topics(Set[Topic]):
    """Topics; `topics["trades"]` are the symbols of a kind."""

    __slots__ = ("_kinds", "_symbols")

    def __init__(self, kinds: Mapping[str, Iterable[str]]) -> None:
        sets = ((kind, frozenset(symbols)) for kind, symbols in kinds.items())
        self._kinds = {kind: symbols for kind, symbols in sets if symbols}
        self._symbols: frozenset[str] | None = None

    @classmethod
    def of(cls, topics: Iterable[Topic]) -> Topics:
        """These topics."""
        if isinstance(topics, Topics):
            return topics
        kinds: dict[str, list[str]] = {}
        for kind, symbol in topics:
            found = kinds.get(kind)
            if found is None:
                kinds[kind] = [symbol]
            else:
                found.append(symbol)
        return cls(kinds)

    @classmethod
    def _from_iterable(cls, it: Iterable[Any]) -> Topics:  # type: ignore[override]
        return cls.of(it)  # so `collections.abc.Set` builds what `&`, `|` and `-` return

    def __getitem__(self, kind: str) -> frozenset[str]:
        return self._kinds.get(kind, NOBODY)

    def __contains__(self, topic: object) -> bool:
        return isinstance(topic, tuple) and topic[1] in self._kinds.get(topic[0], NOBODY)

    def __iter__(self) -> Iterator[Topic]:
        return ((kind, symbol) for kind, symbols in self._kinds.items() for symbol in symbols)

    def __len__(self) -> int:
        return sum(map(len, self._kinds.values()))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Topics):
            return self._kinds == other._kinds
        return super().__eq__(other)

    def __hash__(self) -> int:
        return self._hash()

    def __repr__(self) -> str:
        return f"Topics({self._kinds!r})"

    def without(self, others: Topics) -> Topics:
        """These, less the others."""
        return Topics({kind: symbols - others[kind] for kind, symbols in self._kinds.items()})

    def plus(self, topic: Topic) -> Topics:
        """These, and one more."""
        kind, symbol = topic
        return Topics(self._kinds | {kind: self[kind] | {symbol}})

    def kinds_of(self, symbol: str) -> frozenset[str]:
        """What there is of this symbol."""
        return frozenset(kind for kind, symbols in self._kinds.items() if symbol in symbols)

    @property
    def symbols(self) -> frozenset[str]:
        """The symbols of which there is anything."""
        if self._symbols is None:  # at worst two threads find the same
            self._symbols = NOBODY.union(*self._kinds.values())
        return self._symbols


NO_TOPICS = Topics({})
