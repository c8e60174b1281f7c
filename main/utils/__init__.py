"""What bots import from `main.utils`."""
