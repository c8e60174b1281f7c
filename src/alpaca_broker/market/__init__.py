"""Market data: from Alpaca's feeds to the channels, in the thread `price-producer`."""
