"""The broker as `python -m main.alpaca_broker.main`."""
