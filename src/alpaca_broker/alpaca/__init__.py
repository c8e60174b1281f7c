"""The shells towards Alpaca: one WebSocket, and the few REST endpoints that are needed."""
