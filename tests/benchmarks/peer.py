"""DeepCTR, installed beside and run in a process of its own, because it wants what our environment must not have."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

REQUIREMENT = "deepctr==0.9.4"
FOLDER = Path("build/peers")
_WORKER = Path(__file__).with_name("deepctr_worker.py")


class PeerError(RuntimeError):
    """The peer cannot be had or does not run here."""


def is_installed() -> bool:
    """Whether `install` has nothing left to do."""
    return any(FOLDER.glob("deepctr-0.9.4.dist-info"))


def install() -> None:
    """Installs the peer into a folder of its own; its requirements are those of our environment.

    Raises:
      PeerError: it cannot be installed.
    """
    if is_installed():
        return
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(FOLDER), REQUIREMENT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PeerError(f"{REQUIREMENT} could not be installed: {done.stderr.strip().splitlines()[-1]}")


class DeepCTR:
    """DeepCTR's MMOE in its own process, which trains a pass whenever it is asked.

    Args:
      rows: rows of each table.
      dim: width of the tables.
      num_numeric: numeric inputs.
      steps: batches of 1024 a pass.

    Raises:
      PeerError: it is not installed, or stops.
    """

    def __init__(self, rows: list[int], dim: int, num_numeric: int, steps: int) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed in __exit__)
        self._process = subprocess.Popen(
            [
                sys.executable,
                str(_WORKER),
                json.dumps({"rows": rows, "dim": dim, "numeric": num_numeric, "steps": steps}),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, "PYTHONPATH": str(FOLDER.resolve()), "TF_USE_LEGACY_KERAS": "1"},
        )
        self.num_parameters: int = self._answer()["parameters"]
        self.step_seconds()  # traces the step

    def step_seconds(self) -> float:
        """One pass through `fit`; seconds a step."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._answer()["step_seconds"]

    def __enter__(self) -> DeepCTR:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            last = (self._errors.read().strip().splitlines() or ["nothing on stderr"])[-1]
            raise PeerError(f"{REQUIREMENT} stopped with exit status {self._process.returncode}: {last}")
        return json.loads(line)
