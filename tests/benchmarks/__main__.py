"""Runs the benchmarks of the groups that are named, or of all; prints a table and writes `build/bench.json`.

MMOE_RANKER_TINY=1 takes every step on a few examples: seconds, and figures that mean nothing, in a file of their own.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import mmoe_ranker  # noqa: F401  (the Keras guard)
from tests.benchmarks.peer import PeerError
from tests.benchmarks.table import NAMES, Measurement, format_table, write_measurements

FILE = Path("build/bench.json")
TINY_FILE = Path("build/bench_tiny.json")


def main(groups: list[str]) -> int:
    """Returns the exit status: 1 where the peer could not be measured, else 0."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    unknown = set(groups) - set(NAMES)
    if unknown:
        sys.exit(f"A group of benchmarks must be one of {', '.join(NAMES)}. Received: {', '.join(sorted(unknown))}.")
    groups = groups or list(NAMES)
    tiny = os.environ.get("MMOE_RANKER_TINY") == "1"
    measurements: list[Measurement] = []
    failures: list[PeerError] = []
    for group in groups:
        # Each is a module here with functions of `tiny`; imported when its turn comes, because each loads much.
        for benchmark in importlib.import_module(f"tests.benchmarks.{group}").BENCHMARKS:
            try:
                measurements += benchmark(tiny)
            except PeerError as error:
                failures.append(error)
            write_measurements(TINY_FILE if tiny else FILE, measurements, groups)
    print(format_table(measurements))
    for failure in failures:
        print(f"not measured: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
