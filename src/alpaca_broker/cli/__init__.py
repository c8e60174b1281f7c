"""The command line: `main` is the entry point of `alpaca-broker`.

Owns how failures end: one line each on standard error and an exit code, never a traceback. 0 is a
normal end, signals included; 1 a failure; 2 a wrong setting or a wrong command line.
"""

from __future__ import annotations

import sys
from typing import NoReturn

from alpaca_broker.errors import BrokerError, ConfigError

NAME = "alpaca-broker"


def main(argv: list[str] | None = None) -> NoReturn:
    """Run one command and exit with its code; without `argv` the process' own arguments."""
    from alpaca_broker.cli.app import app

    try:
        app(args=argv, prog_name=NAME)
    except BrokerError as error:
        for line in str(error).splitlines() or [type(error).__name__]:
            print(f"{NAME}: {line}", file=sys.stderr)
        sys.exit(2 if isinstance(error, ConfigError) else 1)
    sys.exit(0)


__all__ = ["main"]
