"""The arrows of docs/architecture.md: who may import whom, held as a test."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "alpaca_broker"
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))

IO = {
    *("asyncio", "time", "random", "os", "socket", "logging", "threading", "subprocess"),
    *("redis", "aiohttp", "hiredis", "uvloop", "typer", "rich", "pydantic", "pydantic_settings"),
}
SHELLS = {"alpaca", "bus"}
PRODUCERS = {"market", "trading"}


def imported(module: Path) -> set[str]:
    """Every module that a file imports, wherever in the file, as dotted names."""
    names: set[str] = set()
    for node in ast.walk(ast.parse((PACKAGE / module).read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative imports hide the arrow"
            names |= {node.module or ""}
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def rooms(module: Path) -> set[str]:
    """The parts of our own package that a file imports: `core`, `bus`, `settings`, …"""
    ours = {name.split(".")[1] for name in imported(module) if name.startswith("alpaca_broker.")}
    return ours - {"__version__"}


def within(folder: str) -> list[Path]:
    """The modules of a folder."""
    return [module for module in MODULES if module.parts[0] == folder]


@pytest.mark.parametrize("module", within("core"), ids=str)
def test_what_decides_does_not_touch_the_world(module: Path) -> None:
    """core/ imports no clock, no chance and no I/O, and nothing of ours but errors."""
    assert not {name.split(".")[0] for name in imported(module)} & IO
    assert rooms(module) <= {"core", "errors"}


@pytest.mark.parametrize("module", within("alpaca") + within("bus"), ids=str)
def test_shells_know_neither_each_other_nor_what_is_above_them(module: Path) -> None:
    """alpaca/ and bus/ stand on core, errors, settings and telemetry."""
    own = module.parts[0]
    assert rooms(module) <= {own, "core", "errors", "settings", "telemetry"}


@pytest.mark.parametrize("module", within("simulator"), ids=str)
def test_the_simulator_shares_no_code_with_the_broker(module: Path) -> None:
    """Else both repeat one misreading of Alpaca's protocol."""
    assert rooms(module) <= {"simulator"}


def test_only_the_command_line_imports_the_simulator() -> None:
    """Nothing that runs against the real Alpaca pulls in the pretended one."""
    users = {module.parts[0] for module in MODULES if "simulator" in rooms(module)}
    assert users <= {"simulator", "cli"}


def test_the_client_imports_no_server_part() -> None:
    """What bots import stands on core and errors; settings are read when needed."""
    for module in within("client"):
        assert rooms(module) <= {"client", "core", "errors", "settings"}


def test_the_broker_is_above_its_parts_and_below_the_command_line() -> None:
    """Producers know neither each other nor the broker; the broker not the command line."""
    for name in PRODUCERS:
        for module in within(name):
            above = {"broker", "control", "cli", "simulator", "client"}
            assert not rooms(module) & (above | PRODUCERS - {name})
    for name in ("control", "supervision", "tenure"):
        assert not rooms(Path(f"{name}.py")) & {"broker", "cli", "simulator", "client", *PRODUCERS}
    assert not rooms(Path("broker.py")) & {"cli", "simulator", "client"}
    for module in [Path("settings.py"), Path("telemetry.py"), Path("errors.py")]:
        assert rooms(module) <= {"core", "errors"}


def test_the_page_names_every_module() -> None:
    """Whoever reads docs/architecture.md meets each; of client, cli and simulator the folder."""
    page = (PACKAGE.parents[1] / "docs" / "architecture.md").read_text()
    named = {name.removesuffix(".py") for name in re.findall(r"`([a-z_/.]+)`", page)}
    met = {name.rpartition("/")[2] for name in named}
    rest = [m for m in MODULES if m.parts[0] not in {"client", "cli", "simulator"}]
    assert [str(m) for m in rest if m.stem != "__init__" and m.stem not in met] == []


def test_no_file_is_long() -> None:
    """Above 400 lines a file is split."""
    long = {str(m): n for m in MODULES if (n := len((PACKAGE / m).read_text().splitlines())) > 400}
    assert long == {}


def test_the_broker_starts_without_test_libraries() -> None:
    """alpaca-py, pandas and numpy are the tests' own."""
    code = (
        "import sys, alpaca_broker.broker, alpaca_broker.cli, alpaca_broker.simulator\n"
        "print([m for m in ('alpaca', 'pandas', 'numpy', 'pytest') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == "[]"
