"""`python -m alpaca_broker`: the same as the command `alpaca-broker`."""

from __future__ import annotations

from alpaca_broker.cli import main

if __name__ == "__main__":
    main()
