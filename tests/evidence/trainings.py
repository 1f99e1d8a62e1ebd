"""What every experiment does with a config: trains it, counts what it costs, looks at its gates."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from mmoe_ranker import metrics
from mmoe_ranker.config import Config
from mmoe_ranker.dataset import labelled_dataset
from mmoe_ranker.describe import describe
from mmoe_ranker.model import Ranker
from mmoe_ranker.statistics import Statistics
from mmoe_ranker.training import train
from mmoe_ranker.workdir import Workdir

_GATE_BATCHES = 10


def one_thread() -> None:
    """Keeps TensorFlow's arithmetic to one thread, so that two processes have a core each; before anything runs."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


@contextlib.contextmanager
def trained(config: Config, examples: Path) -> Iterator[Ranker]:
    """The ranker that `mmoe-ranker train` makes; its folder goes with the context."""
    with tempfile.TemporaryDirectory(prefix="mmoe-ranker-evidence-") as folder:
        workdir = Path(folder) / "workdir"
        train(config, examples, workdir)
        yield Workdir.open(workdir).load_ranker()
    tf.keras.backend.clear_session()


def cost(config: Config, examples: Path) -> dict[str, int]:
    """Parameters outside embedding tables, and multiplications per example, as `mmoe-ranker describe` has them."""
    described = describe(config, Statistics.load(examples))
    return {"parameters": described.dense_parameters, "multiplications": described.multiplications}


def gate_health(ranker: Ranker, config: Config, examples: Path) -> dict[str, float]:
    """How the gates spread over experts, on the first batches of the test split; nothing where there are no gates.

    Returns:
      `polarised`: share of gates with one expert above 0.95; `entropy`: mean over gates, as a share of log E; `top`:
      the largest mean utilisation that an expert has in any objective; `dead`: experts that no objective uses.
    """
    totals = metrics.ExpertHealthTotals(getattr(config.model.sharing, "objective_experts", 0))
    for features, _ in labelled_dataset(examples, "test", config, ranker.feature_rows).take(_GATE_BATCHES):
        gates = ranker(features, training=False).get("gates")
        if gates is None:
            return {}
        totals.update(gates)
    health = totals.result()
    return {
        "polarised": float(health.polarised.mean()),
        "entropy": float(health.entropy_share.mean()),
        "top": float(health.utilisation.max()),
        "dead": health.dead_experts,
    }
