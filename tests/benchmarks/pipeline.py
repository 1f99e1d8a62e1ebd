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
from tests.benchmarks.beamless_job import run as run_without_beam
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
        simulated = simulate(requests, seed=1)
        self.count = simulated.shown.size
        write_logs(simulated, folder / "logs")

    @functools.cached_property
    def single(self) -> Path:
        """The log of impressions as the usual job takes it."""
        file = self.folder / "single.jsonl"
        write_single_impressions(self.folder / "logs" / "impressions.jsonl", file)
        return file

    def pipeline_seconds(self, form: str, *beam_args: str) -> float:
        """Builds the examples from logs of one form."""
        logs, out = self.folder / "logs", self.folder / "examples"
        paths = [str(logs / f"{name}.{form}") for name in ("impressions", "feedback")]
        taken = seconds(lambda: run(self.config, *paths, str(out), beam_args))
        shutil.rmtree(out)
        return taken

    def floor_seconds(self, form: str) -> float:
        """Builds the examples without Beam."""
        out = self.folder / "floor"
        out.mkdir()
        paths = [self.folder / "logs" / f"{name}.{form}" for name in ("impressions", "feedback")]
        taken = seconds(lambda: run_without_beam(self.config, *paths, out))
        shutil.rmtree(out)
        return taken

    def per_element_seconds(self) -> float:
        """Builds the examples by the usual job."""
        out = self.folder / "baseline"
        out.mkdir()
        single, feedback = self.single, self.folder / "logs" / "feedback.jsonl"
        taken = seconds(lambda: run_per_element(self.config, single, feedback, out / "examples"))
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
    """From nested JSON lines and from Parquet, against the usual job, one worker, in this process; and the floor."""
    requests, rounds = (40, 1) if tiny else (20_000, 3)
    with _logs(requests) as (logs,):
        sides = {
            "jsonl": functools.partial(logs.pipeline_seconds, "jsonl"),
            "parquet": functools.partial(logs.pipeline_seconds, "parquet"),
            "floor of jsonl": functools.partial(logs.floor_seconds, "jsonl"),
            "floor of parquet": functools.partial(logs.floor_seconds, "parquet"),
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
    measured = []
    for form, words in (("jsonl", "nested JSON lines"), ("parquet", "flat Parquet")):
        floor = rate[f"floor of {form}"]
        share = (
            f"; the same examples without Beam (pyarrow, one merge, the bulk encoder): {floor:,.0f} impressions/s, so "
            f"that Beam, with the checks, statistics and bounded memory that the floor has not, costs "
            f"{1 - rate[form] / floor:.0%} of the time"
        )
        measured.append(
            Measurement(f"pipeline_{form}", rate[form], rate["per element"], "impressions/s", f"{words}; {note}{share}")
        )
    return measured


def workers_and_size(tiny: bool) -> list[Measurement]:
    """Two worker processes against one; and the cost of an impression from a small log to a large one."""
    # The large log takes minutes, so that one run a side tells.
    small, large = (20, 60) if tiny else (5_000, 250_000)
    with _logs(small, large) as (few, many):
        sides = {
            "few": functools.partial(few.pipeline_seconds, "jsonl"),
            "many": functools.partial(many.pipeline_seconds, "jsonl"),
            "one worker": functools.partial(many.pipeline_seconds, "jsonl", *_WORKERS, "1"),
            "two workers": functools.partial(many.pipeline_seconds, "jsonl", *_WORKERS, "2"),
        }
        peak = PeakMemory()
        few.pipeline_seconds("jsonl")
        grown = peak.grown()
        taken = medians(in_turn("pipeline_scaling", 1, sides))
        grown_in_all = peak.grown()
    workers_note = (
        f"{many.count:,} impressions in JSON lines, two worker processes against one (multi_processing), whole runs "
        f"with the start of the workers; one run each"
    )
    scaling_note = (
        f"{many.count:,} impressions in JSON lines against {few.count:,}, one worker in this process, whole runs with "
        f"start-up; this process's peak memory grew {grown} in a first run of the small log, and {grown_in_all} over "
        f"all runs; one run each"
    )
    cost = {name: 1e6 * taken[name] / logs.count for name, logs in (("few", few), ("many", many))}
    rate = {name: many.count / taken[name] for name in ("one worker", "two workers")}
    return [
        Measurement("pipeline_two_workers", rate["two workers"], rate["one worker"], "impressions/s", workers_note),
        Measurement("pipeline_scaling", cost["many"], cost["few"], "us an impression", scaling_note),
    ]


BENCHMARKS = (against_per_element, workers_and_size)
