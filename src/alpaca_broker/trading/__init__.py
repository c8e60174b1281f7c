"""Orders: from the account streams, held against REST, to the journal; thread `order-producer`."""
