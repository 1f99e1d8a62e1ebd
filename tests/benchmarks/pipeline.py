"""The pipeline: impressions a second from logs to examples, by form of the log, number of workers and size.

All runs are whole runs of `pipelines.impressions.run` on simulated logs with the demo's config: 12 features, one of
them a history of up to 30 and one a vector of 16, and five objectives.
"""

from __future__ import annotations

import functools
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmoe_ranker.config_loading import load_config
from mmoe_ranker.simulation import simulate, write_logs
from pipelines.impressions import run
from tests.benchmarks.memory import PeakMemory
from tests.benchmarks.per_element_job import run as run_per_element
from tests.benchmarks.per_element_job import write_single_impressions
from tests.benchmarks.table import Measurement
from tests.benchmarks.timing import in_turn, medians, seconds

_WORKERS = ("--direct_running_mode", "multi_processing", "--direct_num_workers")


class _Logs:
    """Simulated logs in both forms, in a folder, and what the pipeline makes of them."""

    def __init__(self, folder: Path, requests: int) -> None:
        self.config = load_config("watch_next")
        self.folder = folder
        write_logs(simulate(requests, seed=1), folder / "logs")
        self.count = write_single_impressions(folder / "logs" / "impressions.jsonl", folder / "single.jsonl")

    def pipeline_seconds(self, form: str, *beam_args: str) -> float:
        """Builds the examples from logs of one form."""
        logs, out = self.folder / "logs", self.folder / "examples"
        paths = [str(logs / f"{name}.{form}") for name in ("impressions", "feedback")]
        taken = seconds(lambda: run(self.config, *paths, str(out), beam_args))
        shutil.rmtree(out)
        return taken

    def per_element_seconds(self) -> float:
        """Builds the examples by the usual job."""
        out = self.folder / "baseline"
        out.mkdir()
        feedback = self.folder / "logs" / "feedback.jsonl"
        taken = seconds(lambda: run_per_element(self.config, self.folder / "single.jsonl", feedback, out / "examples"))
        shutil.rmtree(out)
        return taken


@contextmanager
def _logs(*requests: int) -> Iterator[list[_Logs]]:
    with tempfile.TemporaryDirectory() as folder:
        made = []
        for number in requests:
            place = Path(folder, str(number))
            place.mkdir()
            made.append(_Logs(place, number))
        yield made


def against_per_element(tiny: bool) -> list[Measurement]:
    """From nested JSON lines and from Parquet, against the usual job, one worker, in this process."""
    requests, rounds = (40, 1) if tiny else (5_000, 3)
    with _logs(requests) as (logs,):
        sides = {
            "jsonl": functools.partial(logs.pipeline_seconds, "jsonl"),
            "parquet": functools.partial(logs.pipeline_seconds, "parquet"),
            "per element": logs.per_element_seconds,
        }
        if not tiny:
            logs.pipeline_seconds("jsonl")  # imports and caches
        rate = {name: logs.count / taken for name, taken in medians(in_turn("pipeline", rounds, sides)).items()}
    note = (
        f"{logs.count:,} impressions, one worker in this process, whole runs with start-up, against one JSON "
        f"impression an element, CoGroupByKey and tf.train.Example on the same runner, which does without checks, "
        f"splits, order and statistics; medians of {rounds} runs in turn"
    )
    return [
        Measurement(
            "pipeline_jsonl", rate["jsonl"], rate["per element"], "impressions/s", f"nested JSON lines; {note}"
        ),
        Measurement("pipeline_parquet", rate["parquet"], rate["per element"], "impressions/s", f"flat Parquet; {note}"),
    ]


def pipeline_two_workers(tiny: bool) -> list[Measurement]:
    """Two worker processes against one."""
    requests, rounds = (40, 1) if tiny else (25_000, 3)
    with _logs(requests) as (logs,):
        sides = {number: functools.partial(logs.pipeline_seconds, "jsonl", *_WORKERS, number) for number in ("1", "2")}
        rate = {
            name: logs.count / taken for name, taken in medians(in_turn("pipeline_two_workers", rounds, sides)).items()
        }
    note = (
        f"{logs.count:,} impressions in JSON lines, two worker processes against one (multi_processing), whole runs "
        f"with the start of the workers; medians of {rounds} runs in turn"
    )
    return [Measurement("pipeline_two_workers", rate["2"], rate["1"], "impressions/s", note)]


def pipeline_scaling(tiny: bool) -> list[Measurement]:
    """Five times the logs; the cost of an impression is to stay what it was."""
    small, large, rounds = (20, 60, 1) if tiny else (5_000, 25_000, 3)
    with _logs(small, large) as made:
        sides = {}
        for logs, name in zip(made, ("small", "large"), strict=True):
            sides[name] = lambda logs=logs: 1e6 * logs.pipeline_seconds("jsonl") / logs.count
        made[0].pipeline_seconds("jsonl")
        peak = PeakMemory()
        cost = medians(in_turn("pipeline_scaling", rounds, sides))
        grown = peak.grown()
    note = (
        f"{made[1].count:,} impressions in JSON lines against {made[0].count:,}, one worker in this process; peak "
        f"memory grew {grown} from the first to the last run; medians of {rounds} runs in turn"
    )
    return [Measurement("pipeline_scaling", cost["large"], cost["small"], "us an impression", note)]


BENCHMARKS = (against_per_element, pipeline_two_workers, pipeline_scaling)
