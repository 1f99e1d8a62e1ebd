"""What every experiment does with a config: trains it, counts what it costs, looks at its gates."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from mmoe_ranker.config import Config
from mmoe_ranker.dataset import labelled_dataset
from mmoe_ranker.model import Ranker
from mmoe_ranker.training import train
from mmoe_ranker.workdir import Workdir

_GATE_BATCHES = 10
# A gate is polarised on an impression where one expert has nearly all of it; an expert is dead that nobody uses.
_POLARISED, _DEAD = 0.95, 0.01


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
      `polarised`: share of gates with one expert above 0.95; `entropy`: mean over gates, as a share of log E; `top`: the
      largest mean utilisation that an expert has in any objective; `dead`: experts below 0.01 in every objective.
    """
    parts = []
    for features, _ in labelled_dataset(examples, "test", config, ranker.feature_rows).take(_GATE_BATCHES):
        gates = ranker(features, training=False).get("gates")
        if gates is None:
            return {}
        parts.append(gates.numpy())
    return summarise_gates(np.concatenate(parts))


def summarise_gates(gates: NDArray[np.float32]) -> dict[str, float]:
    """As `gate_health`, of gates [N, T, E]."""
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.where(gates > 0, gates * np.log(gates), 0.0).sum(axis=-1) / np.log(gates.shape[-1])
    utilisation = gates.mean(axis=0)  # [T, E]
    return {
        "polarised": float((gates.max(axis=-1) > _POLARISED).mean()),
        "entropy": float(entropy.mean()),
        "top": float(utilisation.max()),
        "dead": int((utilisation.max(axis=0) < _DEAD).sum()),
    }
