"""What a benchmark says, the table that people read, and `build/bench.json` that programs read."""

from __future__ import annotations

import dataclasses
import json
import os
import textwrap
from collections.abc import Collection, Sequence
from pathlib import Path

# Other people's scripts read these names: the group that measures each.
NAMES = {
    "train": (
        "step_10m_vs_10k",
        "gemm_share",
        "tfrecord_vs_memory",
        "train_scaling",
        "train_vs_deepctr_100k",
        "train_vs_deepctr_1m",
    ),
    "metrics": ("metrics_vs_sorts", "bootstrap_vs_evaluation"),
    "pipeline": ("pipeline_jsonl", "pipeline_parquet", "pipeline_two_workers", "pipeline_scaling"),
    "serving": (
        "rank_vs_examples",
        "caller_vs_examples",
        "client_vs_examples",
        "overhead_p50",
        "overhead_p99",
        "first_request",
    ),
}


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One benchmark's result.

    Attributes:
      name: one of `NAMES`.
      value: ours, or the case in question.
      baseline: what it is held against, measured in turn with it in the same run.
      unit: of both.
      note: sizes, repetitions, which statistic of them, and what else is needed to read the ratio.
    """

    name: str
    value: float
    baseline: float
    unit: str
    note: str

    @property
    def ratio(self) -> float:
        """`value` over `baseline`."""
        return self.value / self.baseline


def format_table(measurements: Sequence[Measurement]) -> str:
    """A line a benchmark, and its note below it."""
    lines = [f"{'benchmark':<24}{'ratio':>9}{'value':>14}{'baseline':>14}  unit"]
    for one in measurements:
        lines.append(f"{one.name:<24}{one.ratio:>9.3f}{one.value:>14,.4g}{one.baseline:>14,.4g}  {one.unit}")
        lines += textwrap.wrap(one.note, 110, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(lines)


def write_measurements(file: Path, measurements: Sequence[Measurement], groups: Collection[str]) -> None:
    """Writes the file whole; what it holds of groups other than `groups` stays."""
    measured = {name for group in groups for name in NAMES[group]}
    entries = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    entries = [entry for entry in entries if entry["name"] not in measured]
    entries += [{"name": one.name, "ratio": one.ratio, **dataclasses.asdict(one)} for one in measurements]
    order = [name for names in NAMES.values() for name in names]
    entries.sort(key=lambda entry: order.index(entry["name"]))
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    beside.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    beside.replace(file)
