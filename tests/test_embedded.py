"""The embedded server's port: another one's, or its own again."""

from __future__ import annotations

import socket
import threading

import pytest
import redis
from support import closed_port

from alpaca_broker import embedded
from alpaca_broker.embedded import EmbeddedRedis
from alpaca_broker.errors import BusError


def answers(server: EmbeddedRedis) -> bool:
    """Whether it is there."""
    with redis.Redis(port=server.port) as client:
        return bool(client.ping())


def test_a_port_that_somebody_else_took_first_is_left_to_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was free when it was chosen: another one is."""
    choose, taken = embedded._free_port, closed_port()
    chosen = iter([taken, choose()])
    monkeypatch.setattr(embedded, "_free_port", lambda: next(chosen))
    with EmbeddedRedis() as server:
        assert server.port != taken
        assert answers(server)


def test_its_own_port_is_waited_for() -> None:
    """A client that tries while it is away may hold it for a moment, connected to itself."""
    with EmbeddedRedis() as server:
        port = server.port
        server.stop()
        with socket.socket() as other:
            other.bind(("127.0.0.1", port))
            freed = threading.Timer(0.3, other.close)
            freed.start()
            server.start()
            freed.join()
        assert server.port == port
        assert answers(server)


def test_a_port_that_stays_taken_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing is left running."""
    monkeypatch.setattr(embedded, "PORT_FREE_WITHIN_S", 0.2)
    port = closed_port()
    with pytest.raises(BusError, match=f"Port {port} is already in use"):
        EmbeddedRedis(port=port).start()
