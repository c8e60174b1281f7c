"""How a child process is spoken to: a line of JSON in, a line of JSON out.

Owns the child's side. A child ends when its standard input does, so none outlives its parent.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

Act = Callable[..., dict[str, Any]]


def answer(**acts: Act) -> None:
    """Answer requests until standard input ends: `{"do": NAME, …}` calls that act."""
    print("{}", flush=True)  # ready
    for line in sys.stdin:
        request = json.loads(line)
        reply = acts[request.pop("do")](**request)
        print(json.dumps(reply), flush=True)


def leave() -> None:
    """End now, whatever threads still run: the parent has what it wanted."""
    sys.stdout.flush()
    os._exit(0)
