"""What runs in processes of its own: feeder, rivals, listeners, bots.

Each module is started as `python -m bench.children.NAME` and answers lines of JSON (`lines.py`).
"""
