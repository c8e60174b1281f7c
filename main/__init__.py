"""The names that existing users know; everything behind them is in `src/alpaca_broker`."""
