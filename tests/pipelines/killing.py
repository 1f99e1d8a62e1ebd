"""Runs the job again and again on two logs in turn, kills it at any moment, and looks at what it left.

Run as a program, so that children can be forked from a process that has imported Beam and started nothing of it:

    python -m tests.pipelines.killing FOLDER SEED KILLS

FOLDER holds `a.jsonl`, `b.jsonl` and `f.jsonl`. Prints one line a kill: what stood in `out` after it.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

from mmoe_ranker.config_loading import parse_config
from pipelines import output_folder
from pipelines.impressions import run
from tests.configs import small_config
from tests.pipelines.reading import content_of

CONFIG = parse_config(small_config())


def build(folder: Path, log: str, out: str) -> None:
    run(CONFIG, str(folder / f"{log}.jsonl"), str(folder / "f.jsonl"), str(folder / out))


def in_child(work: Any, *arguments: Any, kill_after: float | None = None) -> int:
    """Runs `work` in a forked child, killed after so many seconds; its wait status."""
    child = os.fork()
    if child == 0:
        try:
            work(*arguments)
            os._exit(0)
        except BaseException:
            os._exit(1)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def build_in_turn(folder: Path) -> None:
    while True:
        for log in "ab":
            build(folder, log, "out")


def build_and_die(folder: Path, step: str, before: bool) -> None:
    """Dies at the step of `output_folder` that puts the new folder in place, or at the one that removes the old."""
    real = getattr(output_folder, step)

    def dying(*arguments: Any) -> Any:
        if not before:
            real(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(output_folder, step, dying)
    build(folder, "b", "out")


def main(folder: Path, seed: int, kills: int) -> None:
    """Kills and looks."""
    rng = random.Random(seed)
    whole = {}
    for log in "ab":
        assert in_child(build, folder, log, f"whole-{log}") == 0
        whole[log] = content_of(folder / f"whole-{log}")
    for _ in range(kills):
        assert in_child(build_in_turn, folder, kill_after=rng.uniform(0.05, 1.5)) == signal.SIGKILL
        print(_found(folder, whole), flush=True)
    assert in_child(build, folder, "a", "out") == 0
    for step, before, expected in (("_exchange", True, "a"), ("_exchange", False, "b"), ("remove", True, "b")):
        assert in_child(build, folder, "a", "out") == 0
        assert in_child(build_and_die, folder, step, before) == signal.SIGKILL
        print(f"{step} {_found(folder, whole)} for {expected}", flush=True)
    assert in_child(build, folder, "a", "out") == 0
    print(f"at last {_found(folder, whole)}", flush=True)


def _found(folder: Path, whole: dict[str, dict[str, bytes]]) -> str:
    if not (folder / "out").exists():
        return "nothing"
    found = content_of(folder / "out")
    return next((log for log in whole if whole[log] == found), "half")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
