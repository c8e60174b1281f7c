"""The contract's messages as lines for people.

Owns the wording and the columns; pure, so time is an argument. Whoever can publish can write here,
so nothing that a terminal would obey gets through, and a wrong field costs no line.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

Message = Mapping[str, Any]
MOST_NAMED = 20  # symbols with a line of their own


def clean(value: object, most: int = 80) -> str:
    """A value as text without control characters."""
    text = "".join(c if c.isprintable() else "?" for c in str(value))
    return text if len(text) <= most else f"{text[: most - 1]}…"


def clock(seconds: object) -> str:
    """`15:04:05.678`, local time."""
    if not isinstance(seconds, int | float) or not 0 <= seconds < 1e11:
        return "--:--:--.---"
    return f"{time.strftime('%H:%M:%S', time.localtime(seconds))}.{int(seconds * 1000) % 1000:03d}"


def age(message: Message, now: float) -> str:
    """How long ago the broker had the message: `0.8 ms`, `12 s`."""
    received_at = message.get("received_at")
    if not isinstance(received_at, int | float):
        return "-"
    seconds = now - received_at
    return f"{seconds * 1000:.1f} ms" if abs(seconds) < 1 else f"{seconds:.0f} s"


def price_line(message: Message, now: float) -> str:
    """One trade."""
    columns = (
        clock(message.get("timestamp")),
        f"{clean(message.get('symbol', '?')):<8}",
        f"{clean(message.get('price', '?')):>12}",
        f"x {clean(message.get('size', '?')):<8}",
        f"age {age(message, now)}",
    )
    return " ".join(columns)


def order_line(message: Message, now: float) -> str:
    """One order event."""
    average = message.get("filled_avg_price")
    columns = (
        clock(message.get("timestamp")),
        f"{clean(message.get('symbol') or '-'):<8}",
        f"{clean(message.get('side', '?')):>4}",
        f"{clean(message.get('filled_qty', '?'))}/{clean(message.get('qty') or '?')}",
        clean(message.get("status", "?")),
        f"at {clean(average)}" if average is not None else "",
        f"({clean(message.get('client_order_id') or message.get('order_id', '?'))},",
        f"{clean(message.get('environment', '?'))})",
        f"age {age(message, now)}",
    )
    return " ".join(column for column in columns if column)


def status_line(message: Message) -> str:
    """The heartbeat's content, without what changes every second and the feeds nobody uses."""
    parts = [f"broker {clean(message.get('state', '?'))}"]
    parts += [link_line(*link) for link in _links(message) if not is_unused(link[-1])]
    parts.append(f"bots {clean(message.get('bots', '?'))}")
    parts.append(f"epoch {clean(message.get('epoch', '?'))}")
    return ", ".join(parts)


def trouble_line(message: Message) -> str:
    """How the broker is, with what is not as it should be only: `broker live` where all is."""
    parts = [f"broker {clean(message.get('state', '?'))}"]
    for kind, name, link in _links(message):
        if link.get("state") not in ("live", "idle"):
            # Not the state where there is a reason: it goes to and fro with every attempt.
            reason = f": {clean(link['error'], 120)}" if link.get("error") else ""
            state = f" {clean(link.get('state', '?'))}"
            parts.append(f"{kind} {clean(link.get('account_number') or name)}{reason or state}")
    return ", ".join(parts)


def accepted_lines(answer: Message, *, taken_back: bool) -> list[str]:
    """What of a registration stands, by the broker's answer."""
    accepted, last = answer.get("accepted"), answer.get("last")
    symbols = accepted if isinstance(accepted, list) else []
    prices = last if isinstance(last, Mapping) else {}
    done = "taken back" if taken_back else "confirmed"
    lines = []
    for symbol in symbols[:MOST_NAMED]:
        price = prices.get(symbol) if isinstance(symbol, str) else None
        told = f", last price {clean(price.get('price'))}" if isinstance(price, Mapping) else ""
        lines.append(f"{clean(symbol)}: {done}{told}")
    if more := symbols[MOST_NAMED:]:
        lines.append(f"and {len(more)} more: {done}")
    if (account := answer.get("account_id")) is not None and not taken_back:
        lines.append(f"account {clean(account)}: its orders are followed")
    return lines


def rejected_lines(answer: Message) -> list[str]:
    """What of a registration was refused, and why, by the broker's answer."""
    rejected = answer.get("rejected")
    lines = []
    for one in rejected if isinstance(rejected, list) else []:
        if not isinstance(one, Mapping):
            continue
        account = f"account {clean(one['account_id'])}" if one.get("account_id") else ""
        words = (clean(one.get("symbol") or account), clean(one.get("channel") or ""))
        whose = " ".join(filter(None, words)) or "the message"
        reason, code = clean(one.get("reason", "?"), 200), clean(one.get("code", "?"))
        lines.append(f"{whose}: refused, {reason} ({code})")
    return lines


def is_unused(link: Message) -> bool:
    """Whether a feed is idle, and no more is to be said of it."""
    return link.get("state") == "idle" and not (link.get("error") or link.get("refused"))


def _links(message: Message) -> Iterator[tuple[str, str, Message]]:
    for kind, links in (("feed", message.get("feeds")), ("account", message.get("accounts"))):
        for name, link in (links if isinstance(links, Mapping) else {}).items():
            yield kind, name, link if isinstance(link, Mapping) else {}


def link_line(kind: str, name: str, link: Message) -> str:
    """One feed or account: `feed iex live, 3 symbols`."""
    text = f"{kind} {clean(link.get('account_number') or name)} {clean(link.get('state', '?'))}"
    if kind == "feed":
        text += f" ({symbol_count(link)})"
    if refused := link.get("refused"):
        names = ", ".join(map(str, refused)) if isinstance(refused, Mapping) else str(refused)
        text += f" refused: {clean(names)}"
    if error := link.get("error"):
        text += f" [{clean(error, 120)}]"
    return text


def symbol_count(link: Message) -> str:
    """`1 symbol`, `3 symbols`."""
    count = clean(link.get("symbols", "?"))
    return f"{count} symbol" if count == "1" else f"{count} symbols"


def gap_line(message: Message) -> str:
    """A gap: where something is missing, and whether it was recovered."""
    whose = message.get("feed") or message.get("account_id") or "?"
    recovered = "recovered" if message.get("recovered") is True else "not recovered"
    return (
        f"gap in {clean(whose)} from {clock(message.get('from'))} to {clock(message.get('to'))}, "
        f"{recovered}: {clean(message.get('reason', '?'))}"
    )
