"""What gates did over a training: counted as the metric counts, kept over a kill, in training.json."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mmoe_ranker.config_loading import override_config
from mmoe_ranker.dataset import training_dataset
from mmoe_ranker.errors import InputError
from mmoe_ranker.expert_history import LOOKS_A_PASS
from mmoe_ranker.layers import ProgressiveLayeredExtraction
from mmoe_ranker.metrics import expert_similarity
from mmoe_ranker.training import train
from mmoe_ranker.workdir import Workdir
from tests.conftest import TinyWorld


@given(arrays(float, (7, 3, 2), elements=st.floats(-3, 3)))
def test_similarity_equals_its_naive_double(answers):
    found = expert_similarity(answers)
    for i in range(3):
        for j in range(3):
            left, right = answers[:, i] - answers[:, i].mean(0), answers[:, j] - answers[:, j].mean(0)
            norms = [np.linalg.norm(one.T @ one) * np.linalg.norm(other.T @ other) for one, other in ((left, right),)]
            if norms[0] > 1e-9:
                assert found[i, j] == pytest.approx(np.linalg.norm(left.T @ right) ** 2 / norms[0], abs=1e-6)


def test_what_only_turns_or_scales_is_the_same_expert_and_silence_is_none():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 4000, 2))
    turned = 3 * one @ np.array([[0.0, 1.0], [-1.0, 0.0]]) + 5
    found = expert_similarity(np.stack([one, turned, other, np.ones((4000, 2))], axis=1))
    assert found[0, 1] == pytest.approx(1)
    assert found[0, 2] < 0.01
    assert np.isnan(found[3]).all()
    assert np.isnan(found[:, 3]).all()
    with pytest.raises(InputError, match=r"^`answers` must have the shape \[N, E, U\]. Received: \[3\].$"):
        expert_similarity([1.0, 2.0, 3.0])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("broken", [np.inf, -np.inf, np.nan])
def test_an_expert_that_diverged_is_like_none_and_the_others_are_as_they_were(broken: float):
    answers = np.random.default_rng(1).normal(size=(50, 3, 2))
    expected = expert_similarity(answers)
    answers[7, 1, 0] = broken
    found = expert_similarity(answers)
    assert np.isnan(found[1]).all()
    assert np.isnan(found[:, 1]).all()
    np.testing.assert_allclose(found[::2, ::2], expected[::2, ::2], rtol=1e-12)


def test_answers_of_extraction_are_those_that_its_towers_mix():
    layer = ProgressiveLayeredExtraction(2, shared_experts=2, objective_experts=1, units=[4], num_objectives=3)
    inputs = tf.random.stateless_normal([5, 6], [1, 2])
    towers, gates = layer(inputs)
    answers = layer.answers(inputs).numpy()
    assert answers.shape == (5, 5, 4)
    for objective in range(3):
        choices = answers[:, [objective, 3, 4]]  # its own, then the shared ones
        mixed = (gates.numpy()[:, objective, :, None] * choices).sum(axis=1)
        np.testing.assert_allclose(towers.numpy()[:, objective], mixed, rtol=1e-5)


def test_the_history_of_a_training_is_in_its_result(tiny_world: TinyWorld):
    found = json.loads((tiny_world.workdir / "training.json").read_text(encoding="utf-8"))["experts"]
    assert found["objectives"] == list(tiny_world.config.objective_names)
    assert found["own_experts"] == 0
    passes, steps = len(tiny_world.result["passes"]), tiny_world.result["steps"]
    history = found["history"]
    assert passes <= len(history) <= passes * (2 * LOOKS_A_PASS)
    assert [row["step"] for row in history] == sorted({row["step"] for row in history})
    assert history[-1]["step"] == steps
    experts = tiny_world.config.model.sharing.experts
    similarity = np.array(found["similarity"], dtype=float)
    assert similarity.shape == (experts, experts)
    pairs = similarity[np.triu_indices(experts, 1)]
    assert history[-1]["similarity"] == pytest.approx(np.nanmean(pairs), abs=1e-4)
    for row in history:
        utilisation = np.array(row["utilisation"])
        np.testing.assert_allclose(utilisation.sum(axis=1), 1.0, atol=1e-3)
        assert np.all((np.array(row["entropy_share"]) > 0) & (np.array(row["entropy_share"]) <= 1.0001))
    # The rows of a pass are the means over its steps: together they are what the metric says of the pass.
    per_pass = steps // passes
    last = [row for row in history if row["step"] > steps - per_pass]
    lengths = np.diff([steps - per_pass, *(row["step"] for row in last)])
    for place, name in enumerate(found["objectives"]):
        mean = np.average([row["utilisation"][place][0] for row in last], axis=0, weights=lengths)
        assert mean == pytest.approx(tiny_world.result["passes"][-1]["metrics"][f"{name}_expert_0"], abs=0.01)


def test_similarity_is_that_of_the_trained_experts(tiny_world: TinyWorld):
    ranker = Workdir.open(tiny_world.workdir).load_ranker()
    features, _ = next(iter(training_dataset(tiny_world.examples, tiny_world.config, ranker.feature_rows)))
    answers = ranker.sharing.answers(ranker(features, training=False)["shared"])
    found = np.array(tiny_world.result["experts"]["similarity"], dtype=float)
    # Of other impressions than the sample's: near, not equal.
    np.testing.assert_allclose(found, expert_similarity(answers.numpy()), atol=0.25)


@pytest.mark.slow
def test_a_training_that_was_stopped_goes_on_with_its_history(tiny_world: TinyWorld, tmp_path: Path):
    class Stop(tf.keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 10:
                raise KeyboardInterrupt

    config = override_config(tiny_world.config, {"training.checkpoint_steps": 7})
    with pytest.raises(KeyboardInterrupt):
        train(config, tiny_world.examples, tmp_path / "workdir", callbacks=[Stop()])
    found = train(config, tiny_world.examples, tmp_path / "workdir")["experts"]["history"]
    expected = tiny_world.result["experts"]["history"]
    assert [row["step"] for row in found] == [row["step"] for row in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one["utilisation"], other["utilisation"], atol=2e-3)
        assert one["similarity"] == pytest.approx(other["similarity"], abs=2e-2)
