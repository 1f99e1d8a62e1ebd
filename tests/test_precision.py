"""Mixed precision and XLA: the same training within their rounding, and an export that is float32 whatever trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from mmoe_ranker.config_loading import load_config
from mmoe_ranker.dataset import training_dataset
from mmoe_ranker.export import export
from mmoe_ranker.optimizers import compile_ranker
from mmoe_ranker.training import set_seeds, train
from mmoe_ranker.workdir import Workdir
from serving.verifying.verification import gate
from tests.configs import TWO_OBJECTIVES
from tests.conftest import TinyWorld

OVERRIDES = [
    *TWO_OBJECTIVES,
    "model.hidden=[32]",
    "model.sharing.units=[16]",
    "model.tower=[8]",
    "training.batch_size=256",
]
# Without dropout in the dense part: its draws depend on the type, and XLA draws others from the same state.
OVERRIDES += ["model.sharing.gate_dropout=0", "model.crosses.layers=1", "training.epochs=1"]


@pytest.fixture(scope="module")
def losses(tiny_world: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float]]:
    """The losses of ten steps on two batches in turn, by what computes them."""
    found = {}
    for name, overrides in {
        "float32": [],
        "xla": ["training.xla=true"],
        "mixed_bfloat16": ["training.precision=mixed_bfloat16"],
        "mixed_float16": ["training.precision=mixed_float16"],
    }.items():
        config = load_config("watch_next", [*OVERRIDES, *overrides])
        workdir = Workdir.create(tmp_path_factory.mktemp(name) / "workdir", config, tiny_world.examples)
        set_seeds(1)
        ranker = workdir.build_ranker(config.training.precision)
        compile_ranker(ranker, config.training)
        batches = training_dataset(tiny_world.examples, config, ranker.feature_rows).take(2)
        step = tf.function(ranker.train_step)
        found[name] = [float(step(batch)["loss"]) for batch in batches.repeat(5)]
        for features, _ in batches.take(1):
            outputs = ranker(features)
            assert {values.dtype for values in outputs.values()} == {tf.float32}
        assert {variable.dtype for variable in ranker.trainable_variables} == {tf.float32}
        mixed = ranker.hidden.layers[0].compute_dtype
        assert mixed == (name.removeprefix("mixed_") if "mixed" in name else "float32")
        assert ranker.encoder.compute_dtype == "float32"
    assert found["float32"][-1] < found["float32"][1]
    return found


@pytest.mark.slow
def test_xla_gives_the_same_losses(losses: dict[str, list[float]]) -> None:
    np.testing.assert_allclose(losses["xla"], losses["float32"], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_gives_nearly_the_same_losses(losses: dict[str, list[float]], precision: str) -> None:
    np.testing.assert_allclose(losses[precision], losses["float32"], rtol=1e-2)
    assert losses[precision] != losses["float32"]


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [["training.precision=mixed_float16"], ["training.xla=true"]])
def test_the_export_is_float32(tiny_world: TinyWorld, tmp_path: Path, overrides: list[str]) -> None:
    config = load_config("watch_next", [*OVERRIDES, *overrides])
    result = train(config, tiny_world.examples, tmp_path / "workdir")
    assert result["metrics"]["click_auc"] > 0.5
    # The gate compares it with the trained ranker on the sample.
    version = export(tmp_path / "workdir", tmp_path / "models", gate)
    signature = tf.saved_model.load(str(version)).signatures["serving_default"]
    assert {output.dtype for output in signature.structured_outputs.values()} == {tf.float32}
    graph = signature.graph.as_graph_def(add_shapes=False)
    types = {node.attr["T"].type for node in graph.node} | {
        node.attr["T"].type for function in graph.library.function for node in function.node_def
    }
    assert not types & {tf.float16.as_datatype_enum, tf.bfloat16.as_datatype_enum}
