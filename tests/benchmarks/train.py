"""Training: what a step costs, and against what.

Widths, unless said otherwise: 10 categorical features of dim 32, 10 numeric, 8 experts of 256-128 on the plain input,
four binary towers of 64, batch 1024; Adagrad on the tables, Adam on the rest, everything else as the config has it by
default.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

import tensorflow as tf

from mmoe_ranker.config import Config
from mmoe_ranker.dataset import training_dataset
from tests.benchmarks import peer
from tests.benchmarks.memory import PeakMemory
from tests.benchmarks.rankers import InMemoryTraining, built_ranker
from tests.benchmarks.synthetic import ranking_config, write_examples
from tests.benchmarks.table import Measurement
from tests.benchmarks.timing import in_turn, medians, seconds

_MODEL: dict[str, Any] = {"hidden": [], "sharing": {"kind": "mmoe", "experts": 8, "units": [256, 128]}, "tower": [64]}
_SMALL_MODEL: dict[str, Any] = {"hidden": [32], "sharing": {"kind": "mmoe", "experts": 4, "units": [32]}, "tower": [16]}
_BATCH = 1024


def _config(rows: list[int], dim: int = 32, model: dict[str, Any] = _MODEL, **training: Any) -> Config:
    return ranking_config((5, 5), (5, 5), rows, dim, model, batch_size=_BATCH, **training)


def step_10m_vs_10k(tiny: bool) -> list[Measurement]:
    """Two of the ten tables grow a thousandfold; the step is to stay what it was."""
    large, small, steps, rounds = (100_000, 1_000, 2, 2) if tiny else (10_000_000, 10_000, 12, 7)
    sides = {
        f"{rows:,} rows": InMemoryTraining(_config([rows, *[1_000] * 4, rows, *[1_000] * 4], dim=16), steps)
        for rows in (small, large)
    }
    step = medians(in_turn("step_10m_vs_10k", rounds, {name: side.step_seconds for name, side in sides.items()}))
    base, value = (1e3 * figure for figure in step.values())
    note = (
        f"two hashed tables of {large:,} rows against {small:,}, the other eight of 1,000, all of dim 16; ids uniform "
        f"over the rows; medians of {rounds} passes of {steps} steps in turn, batches in memory"
    )
    return [Measurement("step_10m_vs_10k", value, base, "ms a step", note)]


def gemm_share(tiny: bool) -> list[Measurement]:
    """Multiplications of the dense layers, three products each (forward, both gradients), over the time of a step."""
    steps, rounds = (2, 2) if tiny else (12, 7)
    training = InMemoryTraining(_config([100_000] * 10), steps)
    layers = _dense_products(training.ranker)
    flops = {name: 3 * 2.0 * _BATCH * count * inputs * units for name, (count, inputs, units) in layers.items()}
    products = {name: _Products(*shape, repeats=1 if tiny else 5) for name, shape in layers.items()}
    sides = {"step": training.step_seconds, **{name: product.seconds for name, product in products.items()}}
    timed = medians(in_turn("gemm_share", rounds, sides))
    rates = {name: flops[name] / timed[name] / 1e9 for name in layers}
    achieved = sum(flops.values()) / timed["step"] / 1e9
    alone = sum(timed[name] for name in layers)
    note = (
        f"GFLOP/s of the dense layers over a whole step of `fit` ({1e3 * timed['step']:.0f} ms) against the best "
        f"product among "
        + ", ".join(f"{name} {'x'.join(map(str, shape))} {rates[name]:.0f}" for name, shape in layers.items())
        + f"; one after the other these products take {1e3 * alone:.0f} ms; medians of {rounds} rounds in turn"
    )
    return [Measurement("gemm_share", achieved, max(rates.values()), "GFLOP/s", note)]


def _dense_products(ranker: Any) -> dict[str, tuple[int, int, int]]:
    """Every dense layer as (products side by side, inputs, units); layers that share their input are one product."""
    experts = ranker.sharing
    layers = {"gates": (1, *experts.gate_kernel.kernel.shape)}
    for layer in [*experts.experts, *ranker.tower, ranker.tower_logit]:
        count, inputs, units = layer.kernel.shape
        layers[layer.name] = (1, inputs, count * units) if layer is experts.experts[0] else (count, inputs, units)
    return layers


class _Products:
    """The three matrix products that a dense layer costs a training step, alone."""

    def __init__(self, count: int, inputs: int, units: int, repeats: int) -> None:
        self._repeats = repeats
        stacked = [] if count == 1 else [count]
        self._inputs = tf.random.normal([*stacked, _BATCH, inputs])
        self._kernel = tf.random.normal([*stacked, inputs, units])
        self._gradient = tf.random.normal([*stacked, _BATCH, units])
        self.seconds()

    def seconds(self) -> float:
        """Seconds of all three."""

        def multiply() -> None:
            for _ in range(self._repeats):
                tf.matmul(self._inputs, self._kernel)
                tf.matmul(self._gradient, self._kernel, transpose_b=True)
                tf.matmul(self._inputs, self._gradient, transpose_a=True).numpy()

        return seconds(multiply) / self._repeats


def tfrecord_vs_memory(tiny: bool) -> list[Measurement]:
    """A pass from compressed shards, parsed, hashed and shuffled, against the very same batches from memory."""
    steps, rounds = (2, 2) if tiny else (30, 5)
    config = _config([100_000] * 10, shuffle_window=8 * _BATCH)
    with tempfile.TemporaryDirectory() as folder:
        examples = Path(folder, "examples")
        write_examples(examples, config, steps * _BATCH)
        ranker = built_ranker(config)
        shards = training_dataset(examples, config, ranker.feature_rows)
        memory = shards.cache()
        ranker.fit(shards, verbose=0)
        ranker.fit(memory, verbose=0)
        sides = {
            "shards": lambda: steps * _BATCH / seconds(lambda: ranker.fit(shards, verbose=0)),
            "memory": lambda: steps * _BATCH / seconds(lambda: ranker.fit(memory, verbose=0)),
        }
        rate = medians(in_turn("tfrecord_vs_memory", rounds, sides))
    note = (
        f"gzipped TFRecords of 27 fields, read, shuffled in a window of 8 batches, parsed and hashed while the model "
        f"trains, against the same batches cached in memory; medians of {rounds} passes of {steps} steps in turn"
    )
    return [Measurement("tfrecord_vs_memory", rate["shards"], rate["memory"], "examples/s", note)]


def train_scaling(tiny: bool) -> list[Measurement]:
    """A hundred times the examples, read from shards; the cost of one is to stay what it was."""
    small, large, passes = (2 * _BATCH, 6 * _BATCH, 1) if tiny else (100_000, 10_000_000, 3)
    config = _config([10_000] * 10, dim=8, model=_SMALL_MODEL, shuffle_window=8 * _BATCH)
    with tempfile.TemporaryDirectory() as folder:
        for count in (small, large):
            write_examples(Path(folder, str(count)), config, count)
        ranker = built_ranker(config)

        def microseconds(count: int) -> float:
            shards = training_dataset(Path(folder, str(count)), config, ranker.feature_rows)
            return 1e6 * seconds(lambda: ranker.fit(shards, verbose=0)) / count

        microseconds(small)  # traces the step
        before = [microseconds(small) for _ in range(passes)]
        peak = PeakMemory()
        cost = microseconds(large)
        grown = peak.grown()
        after = [microseconds(small) for _ in range(passes)]
    note = (
        f"a pass of {large:,} examples from shards against {small:,}, a small model (hidden 32, 4 experts of 32, dim "
        f"8) so that reading counts; peak memory grew {grown} in the large pass; the small one's median of "
        f"{2 * passes} passes, half of them before it and half after"
    )
    return [Measurement("train_scaling", cost, statistics.median(before + after), "us an example", note)]


def train_vs_deepctr_100k(tiny: bool) -> list[Measurement]:
    """All ten tables have 100,000 rows."""
    rows = 1_000 if tiny else 100_000
    steps, rounds = (2, 1) if tiny else (10, 5)
    return _against_deepctr("train_vs_deepctr_100k", [rows] * 10, steps, steps, rounds)


def train_vs_deepctr_1m(tiny: bool) -> list[Measurement]:
    """Two of the ten tables have a million rows."""
    small, large = (1_000, 2_000) if tiny else (100_000, 1_000_000)
    steps, peer_steps, rounds = (2, 2, 1) if tiny else (10, 6, 5)
    rows = [large, *[small] * 4, large, *[small] * 4]
    return _against_deepctr("train_vs_deepctr_1m", rows, steps, peer_steps, rounds)


def _against_deepctr(name: str, rows: list[int], steps: int, peer_steps: int, rounds: int) -> list[Measurement]:
    peer.install()
    with peer.DeepCTR(rows, dim=32, num_numeric=10, steps=peer_steps) as theirs:
        ours = InMemoryTraining(_config(rows), steps)
        sides = {"ours": ours.step_seconds, "peer": theirs.step_seconds}
        step = medians(in_turn(name, rounds, sides))
    sizes = " and ".join(f"{rows.count(size)} of {size:,} rows" for size in sorted(set(rows)))
    note = (
        f"{peer.REQUIREMENT}'s MMOE with Adam in a process of its own ({theirs.num_parameters:,} parameters), the same "
        f"widths and tables ({sizes}, dim 32); both through Keras' `fit` on batches in memory; ours with gate dropout "
        f"and an AUC an objective, theirs with its defaults; medians of {rounds} passes in turn"
    )
    return [Measurement(name, _BATCH / step["ours"], _BATCH / step["peer"], "examples/s", note)]


BENCHMARKS = (
    step_10m_vs_10k,
    gemm_share,
    tfrecord_vs_memory,
    train_scaling,
    train_vs_deepctr_100k,
    train_vs_deepctr_1m,
)
