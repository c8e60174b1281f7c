"""`python -m bench`: measure, print the targets, write the files."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from bench import machine, report, targets
from bench.measures import NAMES, measure
from bench.plan import FULL, SHORT, TINY, Plan
from bench.processes import BenchError
from bench.results import Result

HERE = Path(__file__).resolve().parent
PARTS = HERE / "parts"  # so that one measurement does not replace the page of all


def main(argv: list[str] | None = None) -> int:
    """0, or 1 where a measurement failed."""
    options = _options().parse_args(argv)
    if not Path("/proc/self/stat").exists():
        print("the benchmark reads /proc, which this system has not got", file=sys.stderr)
        return 1
    plan: Plan = TINY if options.tiny else SHORT if options.short else FULL
    about = machine.describe() | {"load_before": machine.load()}
    results: dict[str, Result] = {}
    failed = False
    for name in options.only or NAMES:
        began = time.monotonic()
        print(f"{name} ...", end="", file=sys.stderr, flush=True)
        try:
            results[name] = measure(name)(plan)
            print(f" {time.monotonic() - began:.0f} s", file=sys.stderr)
        except BenchError as error:
            failed = True
            print(f" failed: {error}", file=sys.stderr)
    out = options.out or (PARTS if options.only else HERE)
    report.write(out, plan, about | {"load_after": machine.load()}, results)
    for target in targets.table(results).rows:
        print("  ".join(target))
    print(f"written: {out / 'results.md'}")
    return int(failed)


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make bench", description="How fast the broker is, beside its rivals, in one run."
    )
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--short", action="store_true", help="under three minutes; a sketch")
    modes.add_argument("--tiny", action="store_true", help="only that it runs; no figures")
    parser.add_argument(
        "--only", action="append", choices=NAMES, help="this measurement; may be repeated"
    )
    parser.add_argument(
        "--out", type=Path, help="folder of the results; else bench/, or bench/parts/ with --only"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
