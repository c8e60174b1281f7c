"""The broker: builds the parts, starts them, and stops them in a written order.

Owns three threads (`price-producer`, `order-producer`, `control`) and nothing they own. Threads
share no object that two of them write: epochs, wishes and account names are handed over as
immutable values, and statuses are read as such.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from math import inf
from queue import Empty, SimpleQueue
from secrets import token_hex
from time import monotonic, time

from alpaca_broker import telemetry
from alpaca_broker.alpaca.hours import MarketHours
from alpaca_broker.alpaca.quota import GRANTED_PER_MINUTE, LEFT_FOR_ORDERS, Quota, Quotas
from alpaca_broker.alpaca.rest import TradingRest
from alpaca_broker.bus.fence import Fence
from alpaca_broker.bus.publisher import Publisher
from alpaca_broker.bus.redis_client import connect
from alpaca_broker.bus.registrar import Registrar, Rules
from alpaca_broker.control import Control, MakeRest
from alpaca_broker.core.accounts import KeyPair
from alpaca_broker.core.channels import Channels
from alpaca_broker.core.feeds import Feed, Feeds, Topic
from alpaca_broker.core.lease import fingerprints
from alpaca_broker.core.messages import AccountStatus, FeedStatus, Gap, OverallState, Status
from alpaca_broker.core.registration import Limits
from alpaca_broker.errors import BrokerError, ConfigError
from alpaca_broker.loop_thread import LoopThread
from alpaca_broker.market.market_feed import MarketFeed
from alpaca_broker.market.price_producer import PriceProducer
from alpaca_broker.market.trade_frames import COMPILED
from alpaca_broker.market.upstream import Upstream
from alpaca_broker.settings import Settings
from alpaca_broker.trading.account_stream import AccountStream
from alpaca_broker.trading.order_producer import OrderProducer

log = logging.getLogger(__name__)

# How long a thread that has the interpreter may keep the others waiting. Python's own 5 ms are what
# an order event would wait at each of its steps while prices saturate their thread.
SWITCH_S = 0.0002

STOP_WITHIN_S = 4.5
LOOK_EVERY_S = 0.25


class AlpacaBroker:
    """The hub between Alpaca's streams and Redis.

    broker = AlpacaBroker(load_settings())
    broker.start()
    broker.wait()   # until `request_stop`, or a failure
    broker.stop()
    """

    def __init__(self, settings: Settings) -> None:
        """Build the parts; nothing is opened yet.

        Raises:
            ConfigError: the settings name no usable keys.
        """
        self._settings = settings
        target = settings.redis()
        channels = Channels(settings.channel_prefix)
        # In containers host and process number may be the same for two brokers.
        self._leader = f"{socket.gethostname()}:{os.getpid()}:{token_hex(3)}"
        self._records = telemetry.RecordQueue(telemetry.Redactor(settings.secrets()))
        # Reentrant, so that a signal handler may put into it while the main thread waits.
        self._ends: SimpleQueue[BaseException | None] = SimpleQueue()
        self._stopping = False
        fence = Fence()
        self._quotas = Quotas(max(GRANTED_PER_MINUTE, int(2 * settings.reconcile_calls_per_minute)))
        data_keys = settings.data_keys()
        fence.on_entered = lambda: self._control_thread.call(self._control.lease.renew_now)
        self._feeds = settings.feeds()
        registrar = Registrar(
            self._wished,
            rules=_rules(settings),
            feeds=self._feeds,
            account=self._account_id,
            on_books=lambda symbols: self._price_thread.call(self._prices.show_books, symbols),
        )
        self._control = Control(
            target=target,
            channels=channels,
            fence=fence,
            leader=self._leader,
            keys=fingerprints(pair.key_id for pair in settings.key_pairs()),
            records=self._records,
            registrar=registrar,
            compose=self.status,
            on_lead=self._lead,
            on_loss=self._unlead,
            rest=self._trading_rests()[0] if settings.check_symbols else None,
        )
        hours = MarketHours(self._trading_rests())
        self._prices = PriceProducer(
            tuple(
                MarketFeed(
                    Upstream(
                        feed=feed,
                        url=settings.market_stream_url(feed),
                        data_url=settings.alpaca_data_url,
                        keys=data_keys,
                        quota=self._quotas.of(data_keys.key_id, settings.alpaca_data_url),
                        hours=hours,
                        backfill_trades=settings.backfill_trades,
                        canary=_canary(settings.canary_symbol, self._feeds, feed),
                    ),
                    channels=channels,
                    linger_s=settings.feed_linger,
                    changed=self._changed,
                    on_view=lambda view: self._control_thread.call(self._control.view, view),
                    on_gap=self._gap,
                )
                for feed in self._feeds
            ),
            channels=channels,
            hours=hours,
            publisher=lambda: Publisher(
                target,
                bound=settings.price_buffer,
                conflates=settings.prices_when_behind == "conflate",
                fence=fence,
            ),
        )
        self._orders = OrderProducer(
            lambda claim: tuple(
                AccountStream(
                    keys=pair,
                    url=settings.trading_stream_url(pair.environment),
                    rest_url=settings.trading_url(pair.environment),
                    order_channel=channels.order,
                    changed=self._changed,
                    on_gap=self._gap,
                    claim=claim,
                    calls_per_minute=settings.reconcile_calls_per_minute,
                    quota=self._quota(pair),
                )
                for pair in settings.key_pairs()
            ),
            channels=channels,
            target=target,
            client=lambda: connect(target, "alpaca-broker:orders", on_connected=fence.connected),
            fence=fence,
            journal_length=settings.order_journal_length,
        )
        self._control_thread = LoopThread("control", self._control.run, self._ends.put)
        self._price_thread = LoopThread("price-producer", self._prices.run, self._ends.put)
        self._order_thread = LoopThread("order-producer", self._orders.run, self._ends.put)

    def start(self) -> None:
        """Start the threads; returns at once. What cannot be reached yet is tried for ever."""
        sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_S))
        self._records.notify = lambda: self._control_thread.call(self._control.logbook.wake)
        logging.getLogger(telemetry.LOGGER).addHandler(self._records)
        log.info(
            "starting: %s feed, accounts %s, Redis at %s",
            self._settings.alpaca_feed,
            ", ".join(pair.label for pair in self._settings.key_pairs()),
            self._settings.redis().where,
        )
        for doubt in filter(None, (pair.doubt for pair in self._settings.key_pairs())):
            log.warning("%s", doubt)
        if not COMPILED:
            log.info("prices are read in Python: install with a C compiler and it costs a third")
        self._price_thread.start()
        self._order_thread.start()
        self._control_thread.start()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until a stop is requested; False where `timeout` seconds passed before.

        Raises:
            ConfigError: Alpaca refused every key for good, or our prefix is another deployment's.
            BrokerError: a thread failed.
        """
        until = inf if timeout is None else monotonic() + timeout
        while True:
            # In short waits: a signal that the system hands to another thread does not wake this
            # one, whose handler would then never run (seen once in 8 runs).
            try:
                failure = self._ends.get(timeout=max(0.0, min(LOOK_EVERY_S, until - monotonic())))
                break
            except Empty:
                if monotonic() >= until:
                    return False
        if failure is not None:
            raise _as_broker_error(failure)
        return True

    def request_stop(self) -> None:
        """Make `wait` return. May be called from a signal handler or any thread."""
        self._ends.put(None)

    def stop(self) -> bool:
        """Stop everything in order within five seconds; False where a thread did not end.

        First the streams (close frames sent, what was read is delivered), then control, whose
        last words tell the bots. May be called again.
        """
        began = monotonic()
        self._stopping = True
        self._changed()
        ended = True
        for threads in ((self._price_thread, self._order_thread), (self._control_thread,)):
            for thread in threads:
                thread.stop()
            for thread in threads:
                if not thread.join(max(0.1, STOP_WITHIN_S - (monotonic() - began))):
                    log.error("thread %s did not end in time", thread.name)
                    ended = False
        logging.getLogger(telemetry.LOGGER).removeHandler(self._records)
        return ended

    def status(self) -> Status:
        """The heartbeat's content (contract, section 5). May be called from any thread."""
        feeds, accounts = self._prices.status, self._orders.status
        states: list[str] = [f.state for f in feeds.values() if f.state != "idle"]
        states += [a.state for a in accounts.values()]
        state: OverallState = "degraded"
        if self._stopping or all(s != "live" for s in states):
            state = "down"
        elif all(s == "live" for s in states):
            state = "live"
        return Status(
            epoch=self._control.lease.epoch,
            leader=self._leader,
            timestamp=round(time(), 6),
            state=state,
            feeds=feeds,
            accounts=accounts,
            bots=len(self._control.registrar.registry),
            conflating=self._prices.conflating,
        )

    @property
    def topics(self) -> frozenset[Topic]:
        """What Alpaca has confirmed to send."""
        return self._prices.topics

    @property
    def symbols(self) -> frozenset[str]:
        """The symbols of those topics."""
        return self._prices.symbols

    @property
    def counters(self) -> dict[str, int]:
        """What went through since the start, for summaries."""
        return {"prices": self._prices.messages, "order_events": self._orders.events}

    def _changed(self) -> None:
        """A link's state is new (called in its thread): tell the bots, and see if any is left."""
        self._control_thread.call(self._control.heartbeat.beat_now)
        states: dict[str, FeedStatus | AccountStatus] = {
            **{f"{n} feed": f for n, f in self._prices.status.items() if f.state != "idle"},
            **{f"{a.name} account": a for a in self._orders.status.values()},
        }
        if not self._stopping and all(s.state == "refused" for s in states.values()):
            reasons = "; ".join(f"{name}: {s.error}" for name, s in states.items())
            self._ends.put(
                ConfigError(
                    f"Alpaca refused everything ({reasons}). The variables are in the environment "
                    f"or in {self._settings.env_file}"
                )
            )

    def _wished(self, topics: tuple[Topic, ...], account_names: frozenset[str]) -> None:
        """In the control thread: hand the bots' wishes over."""
        self._price_thread.call(self._prices.want, self._feeds.route(topics))
        self._order_thread.call(self._orders.named, account_names)

    def _lead(self, epoch: int, received: dict[str, float]) -> None:
        """In the control thread: from now on both producers speak under this epoch."""
        self._price_thread.call(self._prices.missed_since, received)
        self._price_thread.call(self._prices.lead, epoch)
        self._order_thread.call(self._orders.lead, epoch, received)

    def _unlead(self) -> None:
        """In the control thread: another broker leads, so both producers close and stand by."""
        self._price_thread.call(self._prices.unlead)
        self._order_thread.call(self._orders.unlead)

    def _gap(self, gap: Gap) -> None:
        """In a producer's thread: something was missed."""
        self._control_thread.call(self._control.announce, gap)

    def _quota(self, keys: KeyPair) -> Quota:
        return self._quotas.of(keys.key_id, self._settings.trading_url(keys.environment))

    def _trading_rests(self) -> list[MakeRest]:
        """Each account's, first that of the keys for market data."""
        first, pairs = self._settings.data_keys(), self._settings.key_pairs()
        return [self._trading_rest(p) for p in (first, *(p for p in pairs if p != first))]

    def _trading_rest(self, keys: KeyPair) -> MakeRest:
        """For what can wait until orders have been held against REST."""
        url, quota = self._settings.trading_url(keys.environment), self._quota(keys)
        return lambda http: TradingRest(http, url, keys, quota, leaving=LEFT_FOR_ORDERS)

    def _account_id(self, name: str) -> str | None:
        """The id of the account of that id or number, or None where it is none of ours."""
        accounts = self._orders.status
        for account_id, account in accounts.items():
            if name in (account_id, account.account_number):
                return account_id
        # While Alpaca has not told us who an account is, it may be this one.
        return name if any(a.account_number is None for a in accounts.values()) else None


def _rules(settings: Settings) -> Rules:
    return Rules(
        limits=Limits(settings.max_message_bytes, settings.max_symbols_per_message),
        symbols_per_bot=settings.max_symbols_per_bot,
        messages_per_second=settings.max_messages_per_second,
        linger_s=settings.symbol_linger,
        idle_s=settings.forget_unheard_after,
        discover=settings.listening_is_enough,
        verify=settings.check_symbols,
    )


def _canary(symbol: str, feeds: Feeds, feed: Feed) -> Topic | None:
    """The canary's trades, where this feed has them."""
    topic = ("trades", symbol)
    return topic if symbol and feeds.of(topic) is feed and feeds.have(topic) else None


def _as_broker_error(failure: BaseException) -> BrokerError:
    """A thread's failure as the one error it began with; what nobody foresaw is logged whole."""
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    if isinstance(failure, BrokerError):
        return failure
    log.critical("a thread failed", exc_info=failure)
    return BrokerError(f"the broker failed: {type(failure).__name__}: {failure}")
