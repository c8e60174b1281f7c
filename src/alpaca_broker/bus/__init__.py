"""The shells towards Redis: the hot path of prices, the order journal, and control."""
