"""The invented markets behind the feeds, without a socket: what depends on values only."""

from datetime import date

import msgspec

from alpaca_broker.simulator.codec import Codec, message_of
from alpaca_broker.simulator.coins import COINS, Coins, OrderBook, is_pair
from alpaca_broker.simulator.contracts import Contracts, contracts, is_contract
from alpaca_broker.simulator.feeds import FEEDS
from alpaca_broker.simulator.incidents import Incidents
from alpaca_broker.simulator.market import (
    COIN_UNIT,
    MINUTE_NS,
    Batches,
    CryptoBar,
    CryptoTrade,
    Market,
    Trade,
)
from alpaca_broker.simulator.newsroom import Newsroom
from alpaca_broker.simulator.subscriptions import CHANNEL_OF
from alpaca_broker.simulator.synthetic import SyntheticMarket


def traded(ns: int, price: int, size: int = 100, number: int = 1) -> Trade:
    return Trade("A", ns, number, "V", price, size, "A")


def test_every_feed_has_a_path_of_its_own() -> None:
    """And only channels that some message belongs to."""
    assert len({feed.path for feed in FEEDS.values()}) == len(FEEDS) == 12
    known = {*CHANNEL_OF.values(), "corrections", "cancelErrors"}
    assert all(set(feed.accepted + feed.implicit) <= known for feed in FEEDS.values())


def test_pairs_and_contracts_are_told_from_stocks() -> None:
    """By their spelling alone."""
    assert all(map(is_pair, COINS))
    assert not any(map(is_pair, ("AAPL", "/USD", "BTC/", "A/B/C", "BTC-USD")))
    assert is_contract("AAPL240315C00172500")
    assert not any(map(is_contract, ("AAPL", "AAPL240315X00172500", "AAPL240315C172500")))


def test_contracts_expire_on_a_third_friday_a_week_away() -> None:
    """Also when this month's is over, or the year is."""
    expiries = {
        date(2026, 11, 2): "261120",
        date(2026, 11, 13): "261120",
        date(2026, 11, 14): "261218",
        date(2026, 12, 30): "270115",
    }
    for today, expiry in expiries.items():
        assert {symbol[-15:-9] for symbol in contracts(today)} == {expiry}
        assert all(map(is_contract, contracts(today)))


def test_equal_seeds_make_equal_coins_and_contracts() -> None:
    """The same trades in the same order; another seed makes others."""
    for style, symbol in ((Coins(), "ETH/USD"), (Contracts(), "SPY261218P00500000")):

        def told(seed: int, style=style, symbol=symbol):  # type: ignore[no-untyped-def]
            market = SyntheticMarket(seed, 50.0, style)
            return [market.advance([symbol], n, 0.1) for n in range(20)]

        assert told(3) == told(3) != told(4)


def test_coin_prices_and_sizes_fit_a_message() -> None:
    """No price is 0, also for the cheapest coin; nothing is lost on the way out."""
    market = SyntheticMarket(1, 10.0, Coins())
    for symbol in COINS:
        for record in market.advance([symbol], MINUTE_NS, 1.0):
            message = msgspec.json.decode(Codec.JSON.encode_records([record]))[0]
            assert message["S"] == symbol
            if isinstance(record, CryptoTrade):
                assert message["p"] > 0 < message["s"]
                assert round(message["p"] * COIN_UNIT) == record.price


def test_an_order_book_tells_only_what_changed() -> None:
    """Nothing while the price stands; removals and news when it moves."""
    walk = SyntheticMarket(1, 10.0, Coins()).walk("BTC/USD")
    book = OrderBook(walk)
    assert book.update() is None
    walk.price += walk.step
    update = book.update()
    assert update is not None
    assert [len(update[side]) for side in "ba"] == [2, 2]
    assert [[level["s"] for level in update[side]].count(0) for side in "ba"] == [1, 1]
    assert book.update() is None


def test_crypto_bars_add_up_fractions() -> None:
    """Volume in coins, the average weighted by them."""
    market = Market(bar=CryptoBar)
    half, dollar = COIN_UNIT // 2, COIN_UNIT
    trades = [
        CryptoTrade("BTC/USD", 1, n, "", price * dollar, half, "", conditions=())
        for n, price in enumerate((10, 40))
    ]
    market.absorb(Batches(trades))
    bar, day = market.close_minutes(MINUTE_NS)
    message = message_of(bar)
    assert (message["T"], message["v"], message["vw"], message["c"]) == ("b", 1.0, 25.0, 40.0)
    assert message_of(day)["T"] == "d"


def test_late_trades_change_the_bar_that_was_sent() -> None:
    """High, low and volume, not the close; told once, as an update."""
    market = Market()
    market.absorb(Batches([traded(10, 100)]))
    market.absorb(Batches([traded(MINUTE_NS + 1, 110)]))
    assert market.updated_bars() == []
    market.absorb(Batches([traded(20, 150, 50)]))
    (bar,) = market.updated_bars()
    assert (bar.kind, bar.ns, bar.high, bar.close, bar.volume) == ("u", 0, 150, 100, 150)
    assert bar.channel == "updatedBars"
    assert market.bars["A"][0].volume == 150
    assert market.updated_bars() == []


def test_a_jump_in_time_begins_new_bars() -> None:
    """Going back in time does not wait for the future to end."""
    market = Market()
    market.absorb(Batches([traded(1000 * MINUTE_NS, 100)]))
    market.jump()
    market.absorb(Batches([traded(10 * MINUTE_NS, 200)]))
    minute, day = market.close_minutes(11 * MINUTE_NS)
    assert (minute.ns, minute.open, day.volume) == (10 * MINUTE_NS, 200, 100)


def test_the_newsroom_keeps_its_rate() -> None:
    """The first article at once, then one each time another is due; none at rate 0."""
    room = Newsroom(1, 6.0, ("A", "B"))
    told = [room.advance(n, 1.0) for n in range(21)]
    assert sum(map(len, told)) == 3
    assert len(told[0]) == 1
    assert Newsroom(1, 0.0, ("A",)).advance(0, 1000.0) == []
    again = Newsroom(1, 6.0, ("A", "B"))
    assert [again.advance(n, 1.0) for n in range(21)] == told


def test_incidents_keep_their_rate_and_every_halt_ends() -> None:
    """The same seed brings the same ones; none for a symbol while it is halted."""
    incidents, again = Incidents(3, 6.0), Incidents(3, 6.0)
    found = [incidents.advance(["A", "B"], 0.5) for _ in range(2000)]
    assert found == [again.advance(["B", "A"], 0.5) for _ in range(2000)]
    told = [incident for beat in found for incident in beat]
    assert 150 < sum(kind != "resume" for kind, _ in told) <= 200
    halted: set[str] = set()
    for kind, symbol in told:
        assert (symbol in halted) == (kind == "resume")
        if kind in {"halt", "resume"}:
            halted ^= {symbol}
    assert {kind for kind, _ in told} >= {"correct", "cancel_trade", "update_bar", "halt"}
    for _ in range(60):
        halted -= {symbol for _, symbol in incidents.advance([], 0.5)}
    assert not halted
    assert Incidents(3, 0.0).advance(["A"], 1000.0) == []
