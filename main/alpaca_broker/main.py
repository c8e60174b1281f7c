"""`python -m main.alpaca_broker.main`: the same as `alpaca-broker run`, options included."""

from __future__ import annotations

import sys

from alpaca_broker.cli import main

if __name__ == "__main__":
    main(["run", *sys.argv[1:]])
