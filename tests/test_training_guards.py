"""Guards: a training that has become worthless stops with a sentence, and one that has not goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from mmoe_ranker.config import Config
from mmoe_ranker.config_loading import load_config
from mmoe_ranker.errors import InputError
from mmoe_ranker.layers import ExpertHealth, MixtureOfExperts
from mmoe_ranker.training import train
from mmoe_ranker.training_guards import ConstantPredictions, DeadExperts, check_losses, unused_experts
from mmoe_ranker.training_progress import Progress
from mmoe_ranker.workdir import CHECKPOINTS, RESULT, Workdir
from tests.conftest import TinyWorld


def _config(*overrides: str) -> Config:
    small = ["model.hidden=[32]", "model.sharing.units=[16]", "model.tower=[8]", "training.epochs=1"]
    return load_config("watch_next", [*small, "training.batch_size=64", *overrides])


def test_losses_that_are_not_finite_are_named() -> None:
    check_losses({"loss": 1.0, "click_auc": float("nan"), "health": {"dead_experts": 0.0}}, 20)
    with pytest.raises(InputError, match=r"must stay finite.*Received: `click_loss` nan at step 20 of the pass\.$"):
        check_losses({"loss": 1.0, "click_loss": float("nan")}, 20)
    with pytest.raises(InputError, match=r"Received: `loss` inf at step 3"):
        check_losses({"loss": tf.constant(float("inf"))}, 3)


def test_weights_that_are_not_finite_are_not_saved(tiny_world: TinyWorld, tmp_path: Path) -> None:
    ranker = Workdir.open(tiny_world.workdir).load_ranker()
    ranker.compile(optimizer="sgd")
    progress = Progress(ranker, tmp_path / CHECKPOINTS, 10)
    progress.save()
    saved = tf.train.latest_checkpoint(str(tmp_path / CHECKPOINTS))
    kernel = ranker.hidden.layers[0].kernel
    kernel.assign(tf.fill(kernel.shape, float("nan")))
    with pytest.raises(InputError, match=r"no checkpoint of these was saved.*Received: '.*kernel:0' with NaN"):
        progress.save()
    assert tf.train.latest_checkpoint(str(tmp_path / CHECKPOINTS)) == saved


def test_constant_predictions_are_found_where_labels_vary(tiny_world: TinyWorld) -> None:
    workdir = Workdir.open(tiny_world.workdir)
    ranker = workdir.load_ranker()
    look = ConstantPredictions(tiny_world.config, ranker, workdir)
    for _ in range(5):
        look()
    objective = tiny_world.config.objective_names.index("like")
    kernel = ranker.tower_logit.kernel.numpy()
    healthy = kernel.copy()
    kernel[objective] = 0.0
    ranker.tower_logit.kernel.assign(kernel)
    look()
    look()
    # Twice is not yet enough, and a look that finds spread begins anew.
    ranker.tower_logit.kernel.assign(healthy)
    look()
    ranker.tower_logit.kernel.assign(kernel)
    look()
    look()
    with pytest.raises(InputError, match=r"Predictions must differ.*Received: the same prediction .* of `like`\.$"):
        look()


def test_a_rare_objective_that_is_nearly_constant_goes_on(tiny_world: TinyWorld) -> None:
    workdir = Workdir.open(tiny_world.workdir)
    ranker = workdir.load_ranker()
    # Learned to be all but the same: a hundredth of the spread that the start had.
    ranker.tower_logit.kernel.assign(ranker.tower_logit.kernel * 0.01)
    look = ConstantPredictions(tiny_world.config, ranker, workdir)
    for _ in range(5):
        look()


def test_unused_experts() -> None:
    utilisation = np.array([[0.0, 0.5, 0.5, 0.0], [0.3, 0.0, 0.7, 0.0], [0.2, 0.2, 0.6, 1e-6]])
    assert unused_experts(utilisation, 0).tolist() == [False, False, False, True]
    assert unused_experts(utilisation, 1).tolist() == [True, False, False, False, False, True]
    even = np.full([3, 4], 0.25)
    assert not unused_experts(even, 0).any()


@pytest.mark.parametrize("kind", ["silent", "unused"])
def test_dead_experts_are_found(kind: str) -> None:
    tf.keras.utils.set_random_seed(1)
    mixture = MixtureOfExperts(num_experts=8, units=[16], num_objectives=3, gate_dropout=0.1)
    health = ExpertHealth(["click", "like", "dismiss"], num_experts=8)
    inputs = tf.random.Generator.from_seed(1).normal([64, 32])

    def step() -> None:
        health.update_state(mixture(inputs, training=True)[1])

    step()
    metrics = [*mixture.metrics, health]
    look = DeadExperts(metrics)
    for _ in range(5):
        step()
        look()
    if kind == "silent":
        layer = mixture.experts[-1]
        bias = layer.bias.numpy()
        bias[2] = -1e3
        layer.bias.assign(bias)
        message = r"Every expert must take part: .* 1 of 8 experts that answered every impression with zeros"
    else:
        # Every gate leans to the first expert: the least of its logits is far above the others'.
        kernel = np.zeros_like(mixture.gate_kernel.kernel)
        kernel.reshape(kernel.shape[0], -1, 8)[:, :, 0] = 1.0
        mixture.gate_kernel.kernel.assign(kernel)
        inputs = tf.fill(inputs.shape, 1.0)
        message = r"Every expert must take part: .* 7 of 8 experts that had a utilisation of about 0 in every gate"
    for _ in range(2):
        step()
        look()
    # A new pass, for which the metrics are reset, does not hide them.
    for metric in metrics:
        metric.reset_state()
    step()
    with pytest.raises(InputError, match=message):
        look()


@pytest.mark.slow
def test_a_training_that_dies_stops(tiny_world: TinyWorld, tmp_path: Path) -> None:
    config = _config("training.optimizer.learning_rate=1")
    with pytest.raises(InputError, match=r"Predictions must differ|Every expert must take part"):
        train(config, tiny_world.examples, tmp_path / "workdir")
    assert not (tmp_path / "workdir" / RESULT).exists()
