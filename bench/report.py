"""The results as files: a page for people, JSON for programs, the plots.

Owns the writing of `results.md`, `results.json` and `*.svg`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench import plots, targets
from bench.plan import Plan
from bench.results import Result, Table

HOW = """\
Every figure was measured beside what it is compared with, in one run: the arms take turns, round
by round, and only one moves at a time. A ratio is taken within a round; shown are the median and,
in brackets, the least and the most. All processes (simulator, broker or rival, server, subscriber,
bot) share the same cores.

- *broker*: `alpaca-broker run`, a process of its own, in its default settings, but for
  `CHECK_SYMBOLS=false` and `FORGET_UNHEARD_AFTER` (symbols are invented, and some are heard by
  nobody, on purpose); where throughput is measured with `PRICES_WHEN_BEHIND=wait`, so that every
  price counts. Messages per second are the PUBLISH commands that the server has carried out.
- *alpaca-py + redis.publish*: unmodified `StockDataStream`, and in its handler `json.dumps` of five
  fields and `redis.Redis().publish`, one process. *alpaca-py, empty handler*: without these two.
  It speaks MessagePack, as it always does, and gets it uncompressed.
- *ceiling*: a bare loop reads the same frames, throws them away, and pipelines as many PUBLISH
  commands of the broker's own wording, made in advance.
- *subscriber*: a connection that is subscribed to all symbols and throws away what it reads.
- *sent*: the simulator writes prepared frames straight into the socket; for latencies it stamps
  each in the moment of writing. Rivals get theirs from a simulator of their own.
- Processor time and memory are the kernel's (`/proc`), of the broker's process alone."""


def write(
    folder: Path, plan: Plan, machine: Mapping[str, Any], results: Mapping[str, Result]
) -> None:
    """All files, in place of those of an earlier run."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(
        json.dumps(_as_json(plan, machine, results), indent=1, ensure_ascii=False) + "\n"
    )
    drawn = []
    for result in results.values():
        for plot in result.plots:
            if picture := plots.svg(plot):
                (folder / f"{plot.name}.svg").write_text(picture)
                drawn.append((plot.title, f"{plot.name}.svg"))
    (folder / "results.md").write_text(_page(plan, machine, results, drawn))


def _as_json(
    plan: Plan, machine: Mapping[str, Any], results: Mapping[str, Result]
) -> dict[str, Any]:
    measured = {
        name: {
            "figures": {key: figure.as_json() for key, figure in result.figures.items()},
            "details": result.details,
        }
        for name, result in results.items()
    }
    return {"mode": plan.name, "machine": machine, "measurements": measured}


def _page(
    plan: Plan,
    machine: Mapping[str, Any],
    results: Mapping[str, Result],
    drawn: list[tuple[str, str]],
) -> str:
    parts = [
        "# Results\n\nWritten by `make bench`; do not edit.",
        _about(plan, machine),
        _warning(plan, machine),
        _markdown(targets.table(results)),
        "What holds back those that are not reached: [profile.md](profile.md).",
        *(f"![{title}]({name})" for title, name in drawn),
    ]
    for name, result in results.items():
        parts.append(f"## {name}")
        parts += [_markdown(table, depth=3) for table in result.tables]
        if result.notes:
            parts.append("\n".join(f"- {note}" for note in result.notes))
    parts += ["## How it was measured", HOW]
    return "\n\n".join(part for part in parts if part) + "\n"


def _about(plan: Plan, machine: Mapping[str, Any]) -> str:
    packages = ", ".join(f"{name} {number}" for name, number in machine["packages"].items())
    named = ("system", "python", "server")
    return (
        f"{machine['date']}, mode **{plan.name}** ({plan.rounds} rounds of {plan.seconds:g} s), "
        f"commit {machine['commit']}. {machine['processor']}, {machine['cores']} cores, "
        f"{machine['memory_gb']} GB; {'; '.join(machine[name] for name in named)}; {packages}. "
        "Load of the machine (processes that want a core) before the run: "
        f"{machine['load_before']}, at its end, the benchmark included: {machine['load_after']}."
    )


def _warning(plan: Plan, machine: Mapping[str, Any]) -> str:
    reasons = []
    if plan.name != "full":
        reasons.append(f"the {plan.name} mode takes few and brief readings")
    if machine["load_before"] > 0.3:
        reasons.append(f"other work was on the machine (load {machine['load_before']})")
    return f"**Take it as a sketch**: {'; '.join(reasons)}." if reasons else ""


def _markdown(table: Table, depth: int = 2) -> str:
    lines = [f"{'#' * depth} {table.title}", "", _row(table.header)]
    lines.append(_row(["---"] * len(table.header)))
    lines += [_row(row) for row in table.rows]
    return "\n".join(lines)


def _row(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"
