"""Expert health: the Keras metrics and the numpy function against figures worked out by hand and against each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from mmoe_ranker import metrics
from mmoe_ranker.errors import InputError
from mmoe_ranker.layers import ExpertHealth, MixtureOfExperts, ProgressiveLayeredExtraction, SilentExperts

# Two impressions, two objectives, three experts; nobody uses the third.
_GATES = [[[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]], [[0.9, 0.1, 0.0], [0.25, 0.75, 0.0]]]
_EXPECTED = {
    "click_expert_0": 0.95,
    "click_expert_1": 0.05,
    "click_expert_2": 0.0,
    "click_gate_entropy": -(0.9 * math.log(0.9) + 0.1 * math.log(0.1)) / 2,
    "click_gate_polarised": 0.5,
    "like_expert_0": 0.375,
    "like_expert_1": 0.625,
    "like_gate_entropy": (math.log(2) - 0.25 * math.log(0.25) - 0.75 * math.log(0.75)) / 2,
    "like_gate_polarised": 0.0,
    "dead_experts": 1.0,
}


def test_figures_by_hand() -> None:
    health = ExpertHealth(["click", "like"], num_experts=3)
    for impression in _GATES:
        health.update_state(tf.constant([impression]))
    result = {name: float(value) for name, value in health.result().items()}
    for name, expected in _EXPECTED.items():
        assert result[name] == pytest.approx(expected, abs=1e-6), name
    assert result["like_gate_entropy_share"] == pytest.approx(_EXPECTED["like_gate_entropy"] / math.log(3), abs=1e-6)
    assert len(result) == 2 * 6 + 1
    health.reset_state()
    assert {float(value) for value in health.result().values()} == {0.0}


def test_numpy_by_hand() -> None:
    health = metrics.expert_health(_GATES)
    np.testing.assert_allclose(health.utilisation, [[0.95, 0.05, 0.0], [0.375, 0.625, 0.0]])
    np.testing.assert_allclose(health.entropy, [_EXPECTED["click_gate_entropy"], _EXPECTED["like_gate_entropy"]])
    np.testing.assert_allclose(health.entropy_share, health.entropy / math.log(3))
    assert health.polarised.tolist() == [0.5, 0.0]
    assert health.dead_experts == 1


def test_an_own_expert_is_dead_when_its_objective_leaves_it_and_a_shared_one_when_all_do() -> None:
    # Two objectives with an expert of their own (first) and two shared ones: four experts, of which like's own and the
    # second shared one are unused.
    gates = [[[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]]] * 5
    assert metrics.expert_health(gates, own_experts=1).dead_experts == 2
    assert metrics.expert_health(gates).dead_experts == 1
    health = ExpertHealth(["click", "like"], num_experts=3, own_experts=1)
    health.update_state(tf.constant(gates))
    result = health.result()
    assert float(result["dead_experts"]) == 2.0
    assert float(result["like_own_expert_0"]) == 0.0
    assert float(result["like_expert_0"]) == 1.0


@pytest.mark.parametrize(("utilisation", "dead"), [(0.0019, 1), (0.0021, 0)])
def test_dead_is_below_a_hundredth_of_an_equal_part_for_the_objective_that_uses_it_most(
    utilisation: float, dead: int
) -> None:
    gates = np.array([[[1.0, 0.0, 0.0, 0.0, 0.0], [0.3, 0.3, 0.2, 0.2 - utilisation, utilisation]]] * 3)
    assert metrics.expert_health(gates).dead_experts == dead
    health = ExpertHealth(["click", "like"], num_experts=5)
    health.update_state(tf.constant(gates, tf.float32))
    assert int(health.result()["dead_experts"]) == dead


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 1000),
    shape=st.tuples(st.integers(1, 20), st.integers(1, 3), st.integers(2, 6)),
    own=st.integers(0, 2),
    sharpness=st.floats(0.1, 30.0),
)
def test_keras_and_numpy_agree_in_batches_or_at_once(
    seed: int, shape: tuple[int, int, int], own: int, sharpness: float
) -> None:
    logits = np.random.default_rng(seed).normal(size=shape) * sharpness
    gates = tf.nn.softmax(tf.constant(logits, tf.float32)).numpy()
    objectives = [f"o{index}" for index in range(shape[1])]
    keras, totals = ExpertHealth(objectives, shape[2], own), metrics.ExpertHealthTotals(own)
    for part in np.array_split(gates, 3):
        keras.update_state(tf.constant(part))
        totals.update(part)
    streamed, at_once = totals.result(), metrics.expert_health(gates, own)
    for first, second in zip(streamed, at_once, strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-9)
    result = {name: float(value) for name, value in keras.result().items()}
    for index, name in enumerate(objectives):
        keys = [f"own_expert_{i}" for i in range(own)] + [f"expert_{i}" for i in range(shape[2] - own)]
        np.testing.assert_allclose([result[f"{name}_{key}"] for key in keys], at_once.utilisation[index], atol=1e-5)
        assert result[f"{name}_gate_entropy"] == pytest.approx(at_once.entropy[index], abs=1e-4)
        assert result[f"{name}_gate_entropy_share"] == pytest.approx(at_once.entropy_share[index], abs=1e-4)
        assert result[f"{name}_gate_polarised"] == pytest.approx(at_once.polarised[index], abs=1e-6)
    assert result["dead_experts"] == at_once.dead_experts


def test_even_and_single_gates() -> None:
    even = metrics.expert_health(np.full((4, 1, 8), 1 / 8))
    assert even.entropy[0] == pytest.approx(math.log(8))
    assert even.entropy_share[0] == pytest.approx(1.0)
    single = metrics.expert_health(np.ones((4, 1, 1)))
    assert single.entropy[0] == 0.0
    assert math.isnan(single.entropy_share[0])
    nothing = metrics.expert_health(np.zeros((0, 2, 3)))
    assert np.isnan(nothing.utilisation).all()
    assert nothing.dead_experts == 0


@pytest.mark.parametrize(
    ("gates", "message"),
    [
        (np.ones((3, 2)), r"`gates` must have the shape \[N, T, E\]\. Received: \[3, 2\]\."),
        (np.full((1, 1, 2), 0.4), r"`gates` must be at least 0 and sum to 1.*Received: least 0.4, sums 0.8 to 0.8\."),
        (np.full((1, 1, 2), np.nan), "`gates` must be at least 0 and sum to 1"),
        (np.array([[[-1.0, 2.0]]]), "Received: least -1"),
    ],
)
def test_gates_are_checked(gates: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        metrics.expert_health(gates)


def test_batches_must_have_one_shape() -> None:
    totals = metrics.ExpertHealthTotals()
    totals.update(np.full((2, 1, 2), 0.5))
    with pytest.raises(InputError, match=r"must have the shape \[N, 1, 2\]\. Received: \[2, 2, 2\]\."):
        totals.update(np.full((2, 2, 2), 0.5))


def test_silent_experts_are_those_that_never_answered() -> None:
    silent = SilentExperts(3)
    assert float(silent.result()) == 0.0
    experts = np.zeros((4, 3, 2), np.float32)
    experts[1, 0, 1] = 0.1
    silent.update_state(tf.constant(experts))
    assert float(silent.result()) == 2.0
    experts[3, 2, 0] = 5.0
    silent.update_state(tf.constant(experts))
    assert float(silent.result()) == 1.0
    silent.reset_state()
    assert float(silent.result()) == 0.0


def test_layers_tell_of_experts_whose_relus_died() -> None:
    inputs = tf.random.stateless_normal([50, 4], [1, 2])
    for layer, dense in (
        (mixture := MixtureOfExperts(4, [6], 2), mixture.experts[-1]),
        (ple := ProgressiveLayeredExtraction(1, 3, 1, [6], 2), ple.extraction[0].experts[-1]),
    ):
        layer(inputs)
        bias = dense.bias.numpy()
        bias[1] = -1000.0
        dense.bias.assign(bias)
        (metric,) = layer.metrics
        layer(inputs)
        assert float(metric.result()) == 0.0, "serving must not count"
        layer(inputs, training=True)
        assert float(metric.result()) == 1.0
