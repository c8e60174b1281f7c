"""A whole pretend Alpaca to practise with: market data, trading and REST on one local port.

Owns nothing of the broker and imports nothing of it: it is a second, independent reading of
Alpaca's protocol, so that both sides cannot repeat the same mistake.
"""

from alpaca_broker.simulator.accounts import account_id_of
from alpaca_broker.simulator.fault_script import script, storm
from alpaca_broker.simulator.faults import Fault
from alpaca_broker.simulator.options import SimulatorOptions
from alpaca_broker.simulator.practice import practise
from alpaca_broker.simulator.server import Simulator, serve
from alpaca_broker.simulator.stats import Stats
from alpaca_broker.simulator.thread import SimulatorThread
from alpaca_broker.simulator.ticks import TickFileError
from alpaca_broker.simulator.variants import Variants

__all__ = [
    "Fault",
    "Simulator",
    "SimulatorOptions",
    "SimulatorThread",
    "Stats",
    "TickFileError",
    "Variants",
    "account_id_of",
    "practise",
    "script",
    "serve",
    "storm",
]
