"""Help, version and wrong command lines."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from alpaca_broker import __version__
from alpaca_broker.cli.app import app

COMMANDS = ("run", "demo", "simulate", "bench", "watch", "register", "unregister")


def test_help_names_every_command() -> None:
    """The root's help lists all commands and gives examples."""
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    assert all(f" {command} " in result.output for command in COMMANDS)
    assert "Examples" in result.output
    assert "completion" not in result.output


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    """`COMMAND --help` exits with 0 and says how to use it."""
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert f"{command} [OPTIONS]" in result.output


def test_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` prints one line and exits with 0."""
    from alpaca_broker.cli import main

    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"alpaca-broker {__version__}\n"


def test_unknown_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong command line exits with 2."""
    from alpaca_broker.cli import main

    with pytest.raises(SystemExit) as end:
        main(["fly"])
    assert end.value.code == 2
    assert "fly" in capsys.readouterr().err


def test_python_m_is_the_same_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`python -m alpaca_broker` leads to `main`."""
    monkeypatch.setattr(sys, "argv", ["alpaca_broker", "--version"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("alpaca_broker", run_name="__main__")
    assert end.value.code == 0
    assert __version__ in capsys.readouterr().out


def test_help_imports_nothing_heavy(start) -> None:  # type: ignore[no-untyped-def]
    """Help needs no broker, no simulator and no Redis client, and so comes at once."""
    command = start("--help", PYTHONPROFILEIMPORTTIME="1")
    assert command.code() == 0
    for heavy in ("redis", "aiohttp", "pydantic", "rich.live", "alpaca_broker.simulator"):
        assert f" {heavy}\n" not in command.err


def test_bench_says_where_it_is_to_be_had(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Installed without its repository there is nothing to run: exit code 2 and what to do."""
    from alpaca_broker.cli import bench, main

    monkeypatch.setattr(bench, "CHECKOUT", tmp_path)
    with pytest.raises(SystemExit) as end:
        main(["bench", "--short"])
    assert end.value.code == 2
    assert "make bench" in capsys.readouterr().err
