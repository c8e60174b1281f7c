"""The demo's parts, started and stopped in order: Redis, the simulator, the broker, the bots.

Owns their lives. Nothing of the user's environment reaches the broker here, and nothing leaves the
machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from alpaca_broker.broker import AlpacaBroker
from alpaca_broker.cli.demo.board import Board
from alpaca_broker.cli.demo.bots import MomentumBot, WatchingBot
from alpaca_broker.cli.demo.listener import Listener
from alpaca_broker.cli.demo.rest_account import KEY_ID, SECRET, RestAccount
from alpaca_broker.cli.stop_request import StopRequest
from alpaca_broker.embedded import EmbeddedRedis
from alpaca_broker.errors import BrokerError, ConfigError
from alpaca_broker.settings import Settings
from alpaca_broker.simulator import SimulatorOptions, SimulatorThread, TickFileError

INVENTED = ("AAPL", "MSFT", "NVDA", "SPY", "TSLA", "AMD")
_TRADES = re.compile(r"([A-Za-z.]+)_\d{8}_trade\.zip")


class Stage:
    """Everything that plays."""

    def __init__(self, broker: AlpacaBroker, url: str, redis_port: int) -> None:
        self.broker, self.url, self.redis_port = broker, url, redis_port
        self.board: Board
        self._failure: BaseException | None = None

    def failed(self, error: BaseException) -> None:
        """A bot cannot go on (called in its thread): the demo ends."""
        self._failure = self._failure or error
        self.broker.request_stop()

    def check(self) -> None:
        """Raise BrokerError where a bot has failed."""
        if self._failure is not None:
            text = f"a bot failed: {type(self._failure).__name__}: {self._failure}"
            raise BrokerError(text) from self._failure

    def bots(self, symbols: Sequence[str], account: RestAccount) -> list[Listener]:
        """Make the bots and the board that shows them; their listeners are not yet started."""
        account_id = account.account_id()
        if not account_id:
            raise BrokerError("the simulator does not answer")
        port = self.redis_port
        trader = MomentumBot(port, symbols[:4], account, account_id, self.failed)
        watchers = [
            WatchingBot("breadth", port, symbols, self.failed),
            WatchingBot("pairs", port, symbols[:2], self.failed),
        ]
        self.board = Board(trader, watchers)
        status = Listener(
            "status", port, ["broker:status"], hear=self.board.hear_status, failed=self.failed
        )
        return [status, trader.listener, *(bot.listener for bot in watchers)]


@contextmanager
def stage(stop: StopRequest, ticks: tuple[Path, ...], speed: str, rate: float) -> Iterator[Stage]:
    """Everything, up and running; on leaving, everything is stopped in the opposite order.

    Raises:
        ConfigError: a tick file cannot be read, or an option is wrong.
        BrokerError: a part could not be started.
    """
    with ExitStack() as parts:
        simulator = parts.enter_context(_simulator(ticks, speed, rate))
        redis = parts.enter_context(EmbeddedRedis())
        broker = AlpacaBroker(_settings(simulator.url, redis.port))
        stop.then(broker.request_stop)
        parts.callback(broker.stop)
        broker.start()
        playing = Stage(broker, simulator.url, redis.port)
        account = RestAccount("127.0.0.1", simulator.port)
        listeners = playing.bots(_symbols(ticks), account)
        parts.callback(_stop_all, listeners)
        for listener in listeners:
            listener.start()
        yield playing


def _stop_all(listeners: list[Listener]) -> None:
    for listener in listeners:
        listener.stop()
    for listener in listeners:
        listener.join()


def _simulator(ticks: tuple[Path, ...], speed: str, rate: float) -> SimulatorThread:
    try:
        return SimulatorThread(
            SimulatorOptions(
                keys={KEY_ID: SECRET},
                ticks=ticks,
                speed=speed,
                rate=rate,
                rest_limit_per_min=None,
            )
        )
    except (TickFileError, ValueError) as error:
        raise ConfigError(str(error)) from error


def _settings(url: str, redis_port: int) -> Settings:
    # Every field is given, so that no variable of the user's environment fills one.
    values = {
        name: field.get_default(call_default_factory=True)
        for name, field in Settings.model_fields.items()
    }
    values |= {
        "paper_alpaca_api_key_id": KEY_ID,
        "paper_alpaca_api_secret_key": SECRET,
        "alpaca_data_stream_url": url,
        "alpaca_data_url": url,
        "alpaca_paper_url": url,
        "alpaca_live_url": url,
        "redis_port": redis_port,
    }
    return Settings(_env_file=None, **values)


def _symbols(ticks: tuple[Path, ...]) -> tuple[str, ...]:
    names = [match[1].upper() for path in ticks if (match := _TRADES.fullmatch(path.name))]
    return tuple(dict.fromkeys(names)) or INVENTED
