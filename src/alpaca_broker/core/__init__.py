"""What decides and what is said: pure values and functions, no clock, no chance, no I/O."""
