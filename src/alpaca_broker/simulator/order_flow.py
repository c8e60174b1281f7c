"""A day of orders by the seed: mixed lifecycles as a list of moves, and their doing.

Owns the plan. Invariant: the same seed and count are the same moves in the same order, and exactly
`events` order events follow from them. It decides nothing by chance once the plan is made.
"""

import asyncio
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from alpaca_broker.simulator.by_hand import ByHand

SYMBOLS = ("AAPL", "MSFT", "SPY", "TSLA")
_AT_A_TIME = 40  # orders open at once
_BEAT_S = 0.01
_ENDS = ("fill", "fill", "fill", "fill", "cancel", "cancel", "replace", "expire", "reject")


@dataclass(frozen=True)
class Move:
    """One thing done to one order; `leg` is the exit of a bracket it is done to."""

    what: str
    order: int
    symbol: str = ""
    side: str = ""
    qty: int = 0
    price: str = "0"
    leg: int | None = None
    events: int = 1


def plan(seed: int, events: int) -> list[Move]:
    """Moves that make `events` order events: new, partial fills, ends, replacements, brackets."""
    chance = random.Random(seed)  # noqa: S311 - a plan, no secret
    moves: list[Move] = []
    waiting: list[list[Move]] = []  # what is still to come of each open order, next one last
    made = orders = 0
    while made < events:
        if len(waiting) < _AT_A_TIME and (not waiting or chance.random() < 0.4):
            waiting.append(_life(chance, orders)[::-1])
            orders += 1
        place = chance.randrange(len(waiting))
        move = waiting[place].pop()
        if not waiting[place]:
            del waiting[place]
        if made + move.events > events:  # what is left is filled up with single events
            move = Move("place", orders, "SPY", "buy", 1)
            orders += 1
        moves.append(move)
        made += move.events
    return moves


def _life(chance: random.Random, order: int) -> list[Move]:
    symbol, side = chance.choice(SYMBOLS), chance.choice(("buy", "sell"))
    qty = chance.randint(2, 100)

    def price() -> str:
        return f"{chance.randint(1_000, 50_000) / 100:.2f}"

    if chance.random() < 0.1:
        exit_ = chance.randrange(2)
        return [
            Move("bracket", order, symbol, side, qty, events=3),  # new, held, held
            Move("fill", order, qty=qty, price=price(), events=3),  # fill, new, new
            Move("fill", order, qty=qty, price=price(), leg=exit_, events=2),  # fill, canceled
        ]
    moves = [Move("place", order, symbol, side, qty)]
    for _ in range(chance.choice((0, 0, 1, 2, 3))):
        if qty > 1:
            part = chance.randint(1, qty - 1)
            moves.append(Move("fill", order, qty=part, price=price()))
            qty -= part
    end = chance.choice(_ENDS)
    if end == "replace":
        more = chance.randint(1, 50)
        moves.append(Move("replace", order, qty=qty + more, events=2))  # replaced, new
        moves.append(Move("fill", order, qty=qty + more, price=price()))
    elif end == "fill":
        moves.append(Move("fill", order, qty=qty, price=price()))
    else:
        moves.append(Move(end, order))
    return moves


class Flow:
    """Does the moves of a plan to the orders of one account."""

    def __init__(self, hand: ByHand, seed: int = 1) -> None:
        self._hand = hand
        self._prefix = f"flow{seed}"
        self._ids: dict[int, str] = {}
        self._filled: dict[int, int] = {}
        self.events = 0

    async def run(self, moves: Iterable[Move], per_second: float | None = None) -> int:
        """Do all moves, so many events a second at most; how many events there were."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        for move in moves:
            early_s = self.events / per_second - (loop.time() - began) if per_second else 0.0
            if early_s > _BEAT_S or not per_second:
                await asyncio.sleep(early_s)
            self.do(move)
        return self.events

    def do(self, move: Move) -> None:
        """Do one move."""
        if move.what in {"place", "bracket"}:
            self._ids[move.order] = self._placed(move)
        else:
            self._moved(move, self._ids[move.order])
        self.events += move.events

    def _placed(self, move: Move) -> str:
        more: dict[str, Any] = {"client_order_id": f"{self._prefix}.{move.order}"}
        if move.what == "bracket":
            more |= {
                "order_class": "bracket",
                "take_profit": {"limit_price": "600"},
                "stop_loss": {"stop_price": "5"},
            }
        return self._hand.place(move.symbol, move.qty, move.side, **more)

    def _moved(self, move: Move, order_id: str) -> None:
        filled = self._filled.get(move.order, 0)
        if move.leg is not None:
            self._hand.fill(self._hand.legs(order_id)[move.leg], move.qty, move.price)
        elif move.what == "fill":
            self._hand.fill(order_id, move.qty, move.price)
            self._filled[move.order] = filled + move.qty
        elif move.what == "replace":  # the successor has what is still to fill
            self._ids[move.order] = self._hand.replace(order_id, qty=str(filled + move.qty))
        else:
            {
                "cancel": self._hand.cancel,
                "expire": self._hand.expire,
                "reject": self._hand.reject,
            }[move.what](order_id)
