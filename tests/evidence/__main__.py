"""Runs the experiments by name, or all of them; each writes `build/evidence/<name>.json` and prints its table.

A second process with the same names shares the work of those that keep their runs (`runs`); `--one-thread` keeps
each of them to one core.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import mmoe_ranker  # noqa: F401  (the Keras guard)
from tests.evidence.runs import LeftToAnotherError

# By name, the module here whose `run(folder)` does it.
EXPERIMENTS = {
    **dict.fromkeys(("position_bias", "tower_rate"), "position_bias"),
    **dict.fromkeys(("kuairand", "trivago", "clara2"), "real_logs"),
    **dict.fromkeys(
        ("table1_simulated", "table1_kuairand", "table1_census_income", "table1_census_education"), "table1"
    ),
    **dict.fromkeys(("table2", "table2_grid", "anchored_grid"), "table2"),
    "gates": "gates",
    **dict.fromkeys(("bias_clara2", "bias_trivago"), "bias_judgement"),
    "figures": "figures",
    **dict.fromkeys(("peers_kuairand", "peers_trivago"), "peers"),
}


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.evidence", description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--one-thread", action="store_true")
    given = parser.parse_args(arguments)
    unknown = set(given.names) - set(EXPERIMENTS)
    if unknown:
        sys.exit(f"An experiment must be one of {', '.join(EXPERIMENTS)}. Received: {', '.join(sorted(unknown))}.")
    if given.one_thread:
        from tests.evidence.trainings import one_thread

        one_thread()
    for name in given.names or EXPERIMENTS:
        folder = Path("build/evidence") / name
        try:
            result = importlib.import_module(f"tests.evidence.{EXPERIMENTS[name]}").run(folder)
        except LeftToAnotherError as left:
            print(left, file=sys.stderr)
            continue
        folder.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
