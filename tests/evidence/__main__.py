"""Runs the experiments by name, or all of them; each writes `build/evidence/<name>.json` and prints its table."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mmoe_ranker  # noqa: F401  (the Keras guard)
from tests.evidence import position_bias, real_logs

EXPERIMENTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "position_bias": position_bias.run,
    "kuairand": lambda folder: real_logs.run("kuairand", folder),
    "trivago": lambda folder: real_logs.run("trivago", folder),
    "clara2": lambda folder: real_logs.run("clara2", folder),
}


def main(names: list[str]) -> None:
    unknown = set(names) - set(EXPERIMENTS)
    if unknown:
        sys.exit(f"An experiment must be one of {', '.join(EXPERIMENTS)}. Received: {', '.join(sorted(unknown))}.")
    for name in names or EXPERIMENTS:
        folder = Path("build/evidence") / name
        result = EXPERIMENTS[name](folder)
        folder.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
