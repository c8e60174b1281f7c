"""The hub between Alpaca's streams and many trading bots."""

__version__ = "0.1.0"
