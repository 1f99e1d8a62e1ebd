"""What every experiment does with a config: trains it, counts what it costs, looks at its gates."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from mmoe_ranker import metrics
from mmoe_ranker.config import Config
from mmoe_ranker.dataset import labelled_dataset
from mmoe_ranker.model import Ranker
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


def cost(ranker: Ranker, config: Config) -> dict[str, int]:
    """Parameters outside embedding tables, and multiplications of the main tower per example.

    A kernel is multiplied once an example, so that its size is its multiplications; the mixtures of experts, which have
    no kernel, are a hundredth of that and left out for every kind of sharing alike.
    """
    tables = {id(variable) for variable in ranker.embedding_variables()}
    dense = [variable for variable in ranker.trainable_variables if id(variable) not in tables]
    kernels = [variable for variable in dense if "kernel" in variable.name and "shallow" not in variable.name]
    return {
        "parameters": sum(int(np.prod(variable.shape)) for variable in dense),
        "multiplications": sum(int(np.prod(variable.shape)) for variable in kernels),
    }


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
