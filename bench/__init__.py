"""The benchmark: how fast the broker is, beside what people would build instead, in one run.

Owns nothing that ships: it lives outside the package, and needs the development dependencies.
`python -m bench --help` lists the measurements; `docs/decisions/021-benchmark.md` says why so.
"""
