"""A fake broker and a client of it, on the shared server or on one of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fake_broker import FakeBroker

from alpaca_broker import Client, client
from alpaca_broker.client import catch_up, conversation, tracking
from alpaca_broker.client.session import Session
from alpaca_broker.embedded import EmbeddedRedis


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Whatever a test does, the client's threads end with it."""
    before = set(threading.enumerate())
    yield
    left = [t.name for t in set(threading.enumerate()) - before if t.name.startswith("alpaca-")]
    assert left == []


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """No client here takes a busy machine for a silent broker or a dead Redis, nor looks for holes
    by itself. Modules whose tests are about that have a fixture of their own by this name.
    """
    monkeypatch.setattr(tracking, "HEARTBEAT_WITHIN_S", 3_600.0)
    monkeypatch.setattr(conversation, "PONG_WITHIN_S", 3_600.0)
    monkeypatch.setattr(client, "ANSWER_WITHIN_S", 3_600.0)
    monkeypatch.setattr(catch_up, "COMPARE_EVERY_S", 3_600.0)


@pytest.fixture
def broker(valkey: EmbeddedRedis, prefix: str) -> Iterator[FakeBroker]:
    """A fake broker on the shared server."""
    with FakeBroker(valkey.port, prefix) as fake:
        yield fake


@pytest.fixture
def own_broker(own_valkey: EmbeddedRedis) -> Iterator[FakeBroker]:
    """A fake broker on a server that may be stopped."""
    with FakeBroker(own_valkey.port) as fake:
        yield fake


@pytest.fixture
def connect(valkey: EmbeddedRedis, prefix: str) -> Iterator[Callable[..., Client]]:
    """Makes clients of the shared server, and closes them."""
    clients: list[Client] = []

    def make(**options: Any) -> Client:
        values: dict[str, Any] = {"host": "127.0.0.1", "port": valkey.port, "prefix": prefix}
        clients.append(Client(**(values | options)))
        return clients[-1]

    yield make
    for made in clients:
        made.close()


@pytest.fixture
def own_client(own_valkey: EmbeddedRedis) -> Iterator[Client]:
    """A client of a server that may be stopped."""
    with Client(host="127.0.0.1", port=own_valkey.port) as client:
        yield client


@pytest.fixture
def readers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The threads that read something, piece by piece."""
    threads: list[int] = []
    hear = Session.hear

    def noted(session: Session, *words: Any) -> None:
        threads.append(threading.get_ident())
        hear(session, *words)

    monkeypatch.setattr(Session, "hear", noted)
    return threads
