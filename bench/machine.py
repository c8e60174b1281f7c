"""On what the figures were taken: the machine, its load, and the versions of what took part.

Owns the description. Names no host and no path.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import redis

from alpaca_broker.embedded import EmbeddedRedis

PACKAGES = ("alpaca-broker", "alpaca-py", "redis", "hiredis", "msgspec", "aiohttp", "uvloop")


def describe() -> dict[str, Any]:
    """What a reader needs to compare with a machine of their own."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "server": _server(),
        "packages": {name: version(name) for name in PACKAGES},
        "commit": _commit(),
    }


def load() -> float:
    """Processes that wanted a core over the last minute."""
    return round(os.getloadavg()[0], 2)


def _processor() -> str:
    found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.machine()


def _server() -> str:
    with EmbeddedRedis() as server, redis.Redis(port=server.port) as plain:
        info: Any = plain.info("server")
    return f"{info.get('server_name', 'redis')} {info.get('valkey_version', info['redis_version'])}"


def _commit() -> str:
    if (git := shutil.which("git")) is None:
        return "unknown"
    words = [git, "describe", "--always", "--dirty"]
    done = subprocess.run(  # noqa: S603
        words, cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"
