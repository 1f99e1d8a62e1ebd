"""The process that checks, run by its path: `python -I -S isolated.py JSON`; it prints a finding a line, as JSON.

TensorFlow's Python brings ops, kernels and conversions that TF Serving has not, and the model's code could stand in for
something that the export lacks. So neither can be imported here: of TensorFlow there is only the folder of its C++
library, and of this package `serving` alone.
"""

from __future__ import annotations

import dataclasses
import importlib.abc
import importlib.machinery
import json
import os
import pathlib
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

FORBIDDEN = ("tensorflow", "tensorflow_serving", "keras", "tf_keras", "mmoe_ranker", "pipelines")


class Refusal(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Refuses to import the forbidden packages, and says of TensorFlow only where it lies."""

    def __init__(self, tensorflow: pathlib.Path) -> None:
        self._origin = str(tensorflow / "__init__.py")

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """A spec for forbidden packages, by which nothing can be loaded; None for all others."""
        if fullname.partition(".")[0] not in FORBIDDEN:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, origin=self._origin if fullname == "tensorflow" else None)

    def exec_module(self, module: ModuleType) -> None:
        """Raises ImportError."""
        raise ImportError(f"{module.__name__} must not be imported where an export is verified")


def main() -> None:
    """Checks what the argument says, and prints findings."""
    order = json.loads(sys.argv[1])
    # What an op prints must not stand among the findings.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.meta_path.insert(0, Refusal(pathlib.Path(order["tensorflow"])))
    sys.path.extend([str(pathlib.Path(__file__).resolve().parents[2]), *order["path"]])

    from serving.verifying.checking import check
    from serving.verifying.finding import Finding

    def say(finding: Any) -> None:
        print(json.dumps(dataclasses.asdict(finding)), file=answers, flush=True)

    previous = order["previous"]
    for finding in check(
        pathlib.Path(order["version"]),
        None if previous is None else pathlib.Path(previous),
        order["allow_breaking"],
        order["runs_only"],
    ):
        say(finding)
    there = sorted({name.partition(".")[0] for name in sys.modules} & set(FORBIDDEN))
    problem = f"The checks ran with {', '.join(there)} imported, which may have stood in for what the export lacks."
    alone = "The checks ran in a process with neither TensorFlow's Python nor the model's code."
    say(Finding("isolation", "", "failed" if there else "ok", problem if there else alone))


if __name__ == "__main__":
    main()
