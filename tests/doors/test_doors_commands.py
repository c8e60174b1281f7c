"""The lines that existing users know work as they stand, from the repository root."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from alpaca_broker.embedded import EmbeddedRedis

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "main/alpaca_broker/requirements.txt"
SETTINGS = ("ALPACA_", "PAPER_ALPACA_", "REDIS_", "CHANNEL_", "PRICE", "ORDER_", "LOG_LEVEL")
UNREACHABLE = re.compile(r"connection|timed out|name resolution|proxy", re.IGNORECASE)

# What the user has already, then the known lines, then what proves that they worked.
BOT = """
import threading
account_id = "your_account_id"
prices, orders = [], []
both = threading.Barrier(3)
def handle_price_update(message):
    prices.append(message)
    both.wait(60)
def handle_order_update(message):
    orders.append(message)
    both.wait(60)

from main.utils.redis import RedisPublisher, RedisSubscriber, CHANNELS
publisher = RedisPublisher()
publisher.publish(CHANNELS.BROKER_REGISTRATION, {"action": "register", "symbols": ["AAPL"], "account_id": "your_account_id"})
subscriber = RedisSubscriber()
subscriber.subscribe("price:AAPL", handle_price_update)
subscriber.subscribe(f"order:{account_id}", handle_order_update)
subscriber.start_listening()

both = threading.Barrier(2)
publisher.publish("price:AAPL", {"type": "price_update", "symbol": "AAPL", "price": 150.25})
both.wait(60)
publisher.publish("order:your_account_id", {"type": "order_update", "filled_qty": 10})
both.wait(60)
subscriber.close()
publisher.close()
print(prices, orders)
"""  # noqa: E501


def clean(**variables: str) -> dict[str, str]:
    """The environment without settings of ours, and without what make tells its children."""
    ours = (*SETTINGS, "MAKE", "MFLAGS", "PYTHON", "VIRTUAL_ENV")
    kept = {k: v for k, v in os.environ.items() if not k.upper().startswith(ours)}
    return kept | {"PIP_DISABLE_PIP_VERSION_CHECK": "1", **variables}


def run(
    command: Sequence[str], within_s: float = 120.0, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a command in the repository's root."""
    return subprocess.run(
        command,
        cwd=ROOT,
        env=clean(**variables),
        capture_output=True,
        text=True,
        timeout=within_s,
        check=False,
    )


def test_the_known_bot_works(valkey: EmbeddedRedis, prefix: str) -> None:
    """The known lines register, and hand prices and orders to their handlers as dicts."""
    done = run(
        [sys.executable, "-W", "error", "-c", BOT],
        REDIS_PORT=str(valkey.port),
        CHANNEL_PREFIX=prefix,
    )
    assert done.stderr == ""
    assert done.stdout == (
        "[{'type': 'price_update', 'symbol': 'AAPL', 'price': 150.25}] "
        "[{'type': 'order_update', 'filled_qty': 10}]\n"
    )


@pytest.fixture
def no_env_file() -> None:
    """Sees to it that a developer's own keys are not used by a test."""
    if (ROOT / "configs/.env").exists():
        pytest.skip("configs/.env holds keys, so a start without keys cannot be tried here")


@pytest.mark.usefixtures("no_env_file")
def test_the_module_without_keys_says_what_is_missing() -> None:
    """`python -m main.alpaca_broker.main` ends with code 2 and one line that names the keys."""
    done = run([sys.executable, "-m", "main.alpaca_broker.main"])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "PAPER_ALPACA_API_KEY_ID" in done.stderr


def test_the_module_takes_the_options_of_run() -> None:
    """`python -m main.alpaca_broker.main --help` is the help of `alpaca-broker run`."""
    done = run([sys.executable, "-m", "main.alpaca_broker.main", "--help"])
    assert done.returncode == 0
    assert "--embedded-redis" in done.stdout


@pytest.mark.soak
@pytest.mark.usefixtures("no_env_file")
def test_requirements_are_all_that_the_module_needs(soak: bool) -> None:
    """In a new environment that holds them alone it starts; under --soak pip installs them."""
    with tempfile.TemporaryDirectory() as folder:
        make = [sys.executable, "-m", "venv", *([] if soak else ["--without-pip"]), folder]
        assert run(make, 180).returncode == 0
        path = f"{folder}/bin{os.pathsep}{os.environ['PATH']}"
        if soak:
            pip_installs(folder, path)
        else:
            lend_packages(Path(folder))
        start = run([f"{folder}/bin/python", "-m", "main.alpaca_broker.main"], PATH=path)
        assert start.returncode == 2, start.stderr
        assert "PAPER_ALPACA_API_KEY_ID" in start.stderr


def pip_installs(folder: str, path: str) -> None:
    """`pip install -r main/alpaca_broker/requirements.txt`, as the README has it."""
    done = run([f"{folder}/bin/pip", "install", "-r", str(REQUIREMENTS)], 100, PATH=path)
    if done.returncode and UNREACHABLE.search(done.stderr):
        pytest.skip(f"no package index within reach: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr


def lend_packages(folder: Path) -> None:
    """Links to what is installed here of the requirements, in the very versions; no more."""
    (site,) = folder.glob("lib/python*/site-packages")
    *pins, project = [line for line in REQUIREMENTS.read_text().splitlines() if line[0] != "#"]
    assert project == "-e ."
    for pin in map(Requirement, pins):
        if pin.marker is not None and not pin.marker.evaluate():
            continue
        package = distribution(pin.name)
        assert package.version in pin.specifier
        for top in {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(str(package.locate_file(top)))
    (site / "project.pth").write_text(f"{ROOT / 'src'}\n")


needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@needs_make
def test_make_test_runs_all_checks() -> None:
    """`make test` formats, lints, checks types and tests; nothing is left to CI."""
    done = run(["make", "-n", "test"])
    assert done.returncode == 0, done.stderr
    for step in ("ruff check", "ruff format --check", "mypy", "pytest"):
        assert step in done.stdout


@needs_make
def test_make_demo_installs_no_test_packages() -> None:
    """`make demo` needs the run-time lock only, and passes options on."""
    done = run(["make", "-n", "demo", "ARGS=--seconds 5"])
    assert done.returncode == 0, done.stderr
    assert "alpaca-broker demo --seconds 5" in done.stdout
    assert "requirements-dev.lock" not in done.stdout


@needs_make
def test_make_refuses_an_old_python(tmp_path: Path) -> None:
    """An environment is made with Python 3.11 or newer only, and the message says so."""
    (tmp_path / "requirements.lock").touch()
    (tmp_path / "pyproject.toml").touch()
    shutil.copy(ROOT / "Makefile", tmp_path)
    old = tmp_path / "python3.6"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = run(["make", "-C", str(tmp_path), "demo", f"PYTHON={old}"])
    assert done.returncode != 0
    assert "Python 3.11 or newer is needed" in done.stderr
    assert not (tmp_path / ".venv").exists()


@needs_make
def test_every_target_is_explained() -> None:
    """`make` lists what there is, and what the documents tell to run exists."""
    listed = set(re.findall(r"^make (\w+) - ", run(["make"]).stdout, re.MULTILINE))
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    assert listed == set(phony[1].split())
    assert {"demo", "test", "lock"} <= listed
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / ".ci/run"):
        text = page.read_text() if page.exists() else ""
        assert set(re.findall(r"(?:^|`|exec )make (\w+)", text, re.MULTILINE)) <= listed, page


def test_ci_runs_what_developers_run() -> None:
    """CI has no checks of its own: it calls `make test`."""
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    assert script.read_text().rstrip().endswith("exec make test")
