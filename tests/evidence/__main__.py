"""Runs the experiments by name, or all of them; each writes `build/evidence/<name>.json` and prints its table."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import mmoe_ranker  # noqa: F401  (the Keras guard)

# By name, the module here whose `run(folder)` does it.
EXPERIMENTS = {"position_bias": "position_bias"} | dict.fromkeys(("kuairand", "trivago", "clara2"), "real_logs")


def main(names: list[str]) -> None:
    unknown = set(names) - set(EXPERIMENTS)
    if unknown:
        sys.exit(f"An experiment must be one of {', '.join(EXPERIMENTS)}. Received: {', '.join(sorted(unknown))}.")
    for name in names or EXPERIMENTS:
        folder = Path("build/evidence") / name
        result = importlib.import_module(f"tests.evidence.{EXPERIMENTS[name]}").run(folder)
        folder.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
