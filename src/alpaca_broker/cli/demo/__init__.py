"""The demo: a pretend Alpaca, an embedded Redis, the broker and a few bots, in one process."""
