"""`alpaca-broker bench`: the checkout's benchmark, from the command line.

Owns the way there. The benchmark is no part of the package: it needs the rivals, which only a
checkout's development environment has.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from alpaca_broker.errors import ConfigError

CHECKOUT = Path(__file__).resolve().parents[3]


def bench(
    short: Annotated[bool, typer.Option("--short", help="Under three minutes; a sketch.")] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="This measurement, such as latency; may be repeated."),
    ] = None,
) -> None:
    """Measure the broker beside what people build instead (in a checkout, as `make bench`)."""
    if not (CHECKOUT / "bench" / "__main__.py").is_file():
        raise ConfigError("the benchmark is in the source repository: run `make bench` there")
    if importlib.util.find_spec("alpaca") is None:
        raise ConfigError("the benchmark needs the development packages: run `make bench`")
    words = [*(["--short"] if short else []), *(w for name in only or [] for w in ("--only", name))]
    command = [sys.executable, "-m", "bench", *words]
    raise typer.Exit(subprocess.run(command, cwd=CHECKOUT, check=False).returncode)  # noqa: S603
