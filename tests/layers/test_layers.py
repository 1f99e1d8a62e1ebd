"""Layers against formulas worked out in numpy, and the traps that others fell into."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mmoe_ranker.layers import (
    HashRows,
    IntegerRows,
    MixtureOfExperts,
    NumericInput,
    ParallelDense,
    QuantileEmbedding,
    ShallowTower,
    VocabularyRows,
    dense_stack,
    drop_experts,
    masked_mean,
)


def _relu(values: np.ndarray) -> np.ndarray:
    return np.maximum(values, 0.0)


@pytest.mark.parametrize("shared", [True, False])
def test_parallel_dense_is_a_dense_layer_a_slice(shared: bool) -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(5, 3) if shared else (5, 4, 3)).astype(np.float32)
    layer = ParallelDense(4, 2, "relu")
    outputs = layer(inputs).numpy()
    layer.bias.assign(rng.normal(size=(4, 2)))
    outputs = layer(inputs).numpy()
    for index in range(4):
        one = inputs if shared else inputs[:, index]
        expected = _relu(one @ layer.kernel.numpy()[index] + layer.bias.numpy()[index])
        np.testing.assert_allclose(outputs[:, index], expected, rtol=1e-5, atol=1e-6)


def test_parallel_dense_takes_and_gives_slices_apart() -> None:
    slices = [tf.random.stateless_normal([5, 3], seed=[0, index]) for index in range(4)]
    apart = ParallelDense(4, 2, "relu", stacked=False)
    outputs = apart(slices)
    for index, one in enumerate(slices):
        np.testing.assert_allclose(outputs[index], _relu(one.numpy() @ apart.kernel.numpy()[index]), rtol=1e-5)
    together = ParallelDense(4, 2, "relu")
    together.build(tf.TensorShape([None, 4, 3]))
    together.set_weights(apart.get_weights())
    np.testing.assert_allclose(together(tf.stack(slices, axis=1)), tf.stack(outputs, axis=1), rtol=1e-5)


def test_layers_side_by_side_start_differently_and_at_the_scale_of_one() -> None:
    tf.keras.utils.set_random_seed(1)
    layer = ParallelDense(8, 100)
    layer.build(tf.TensorShape([None, 200]))
    kernels = layer.kernel.numpy()
    for first in range(8):
        for second in range(first):
            assert abs(np.corrcoef(kernels[first].ravel(), kernels[second].ravel())[0, 1]) < 0.05
    # Glorot: variance 2 / (inputs + units), whatever the number of layers.
    np.testing.assert_allclose(kernels.var(axis=(1, 2)), 2 / 300, rtol=0.05)


def test_initial_biases() -> None:
    layer = ParallelDense(2, 1, bias_initial=[-1.5, 2.0])
    np.testing.assert_allclose(layer(tf.zeros([3, 4])).numpy()[:, :, 0], [[-1.5, 2.0]] * 3)


def test_mixture_is_equation_1_and_2() -> None:
    layer = MixtureOfExperts(num_experts=3, units=[5, 4], num_objectives=2, gate_dropout=0.5)
    inputs = np.random.default_rng(1).normal(size=(6, 7)).astype(np.float32)
    mixture, gates = (tensor.numpy() for tensor in layer(inputs, training=False))
    kernel = layer.gate_kernel.kernel.numpy().reshape(7, 2, 3)
    for row, x in enumerate(inputs):
        experts = []
        for expert in range(3):
            hidden = x
            for dense in layer.experts:
                hidden = _relu(hidden @ dense.kernel.numpy()[expert] + dense.bias.numpy()[expert])
            experts.append(hidden)
        for objective in range(2):
            logits = x @ kernel[:, objective]
            gate = np.exp(logits) / np.exp(logits).sum()
            np.testing.assert_allclose(gates[row, objective], gate, rtol=1e-5)
            expected = sum(weight * expert for weight, expert in zip(gate, experts, strict=True))
            np.testing.assert_allclose(mixture[row, objective], expected, rtol=1e-4, atol=1e-5)


def test_gate_dropout_drops_at_its_rate_only_in_training_and_never_in_the_gates_returned() -> None:
    layer = MixtureOfExperts(num_experts=8, units=[8], num_objectives=3, gate_dropout=0.1, seed=4)
    inputs = tf.random.stateless_normal([4000, 4], seed=[1, 2])
    layer(inputs)
    # Expert i answers with the i-th unit vector, so that the mixture is the gate that was used.
    layer.experts[0].kernel.assign(tf.zeros_like(layer.experts[0].kernel))
    layer.experts[0].bias.assign(np.eye(8))
    used, gates = (tensor.numpy() for tensor in layer(inputs, training=True))
    # 96,000 draws: four standard errors are 0.004.
    assert abs(np.mean(used == 0.0) - 0.1) < 0.004
    kept = np.where(used > 0.0, gates, 0.0)
    np.testing.assert_allclose(used, kept / kept.sum(axis=-1, keepdims=True), rtol=1e-4)
    served, gates_served = layer(inputs, training=False)
    np.testing.assert_allclose(gates, gates_served, rtol=1e-6)
    np.testing.assert_allclose(served, gates_served, rtol=1e-5)
    assert gates.min() > 0.0


@settings(deadline=None, max_examples=50)
@given(
    logits=hnp.arrays(np.float32, (3, 2, 4), elements=st.floats(-5, 5, width=32)),
    keep=hnp.arrays(np.bool_, (3, 2, 4)),
)
def test_dropped_gates_stay_distributions(logits: np.ndarray, keep: np.ndarray) -> None:
    gates = tf.nn.softmax(logits).numpy()
    result = drop_experts(tf.constant(gates), tf.constant(keep)).numpy()
    for row in np.ndindex(3, 2):
        if keep[row].any():
            expected = np.where(keep[row], gates[row], 0.0)
            np.testing.assert_allclose(result[row], expected / expected.sum(), rtol=1e-4)
        else:
            np.testing.assert_array_equal(result[row], gates[row])


def _tower(dropout: float = 0.0) -> ShallowTower:
    tower = ShallowTower(
        {"position": 4, "device": 3}, [("position", "device")], num_objectives=2, dropped=["position"], dropout=dropout
    )
    tower({"position": tf.constant([0]), "device": tf.constant([0])})
    rng = np.random.default_rng(3)
    for table in tower.tables.values():
        table.set_weights([rng.normal(size=table.get_weights()[0].shape)])
    return tower


def test_shallow_tower_is_zero_before_training() -> None:
    tower = ShallowTower({"position": 4}, [], num_objectives=1)
    assert tower({"position": tf.range(4)}).numpy().tolist() == [[0.0]] * 4


def test_shallow_tower_sums_features_and_crosses() -> None:
    tower = _tower()
    tables = {name: table.get_weights()[0] for name, table in tower.tables.items()}
    positions, devices = np.repeat(np.arange(4), 3), np.tile(np.arange(3), 4)
    logits = tower({"position": tf.constant(positions), "device": tf.constant(devices)}).numpy()
    for row, (position, device) in enumerate(zip(positions, devices, strict=True)):
        expected = tables["position"][position] + tables["device"][device]
        np.testing.assert_allclose(
            logits[row], expected + tables["position_x_device"][position * 3 + device], rtol=1e-5
        )


def test_shallow_tower_takes_integers_of_any_type() -> None:
    tower = _tower()
    positions, devices = tf.constant([1, 3]), tf.constant([2, 0])
    same = tower({"position": positions, "device": devices}).numpy()
    mixed = {"position": tf.cast(positions, tf.int64), "device": tf.cast(devices, tf.int16)}
    np.testing.assert_array_equal(tower(mixed).numpy(), same)


def test_feature_dropout_makes_position_missing_at_its_rate() -> None:
    tower = _tower(dropout=0.3)
    features = {"position": tf.fill([20_000], 2), "device": tf.fill([20_000], 1)}
    logits = tower(features, training=True).numpy()[:, 0]
    missing = tower({"position": tf.constant([0]), "device": tf.constant([1])}).numpy()[0, 0]
    seen = tower({"position": tf.constant([2]), "device": tf.constant([1])}).numpy()[0, 0]
    is_missing = np.isclose(logits, missing)
    assert np.isclose(logits[~is_missing], seen).all()
    # Four standard errors of 20,000 draws.
    assert abs(is_missing.mean() - 0.3) < 0.013
    assert np.isclose(tower(features, training=False).numpy()[:, 0], seen).all()


def test_vocabulary_rows() -> None:
    rows = VocabularyRows(["b", "a"], oov_buckets=3)
    assert rows.num_rows == 6
    found = rows(tf.constant([["", "b"], ["a", "new"]])).numpy()
    assert found[0].tolist() == [0, 4]
    assert found[1, 0] == 5
    assert 1 <= found[1, 1] <= 3
    assert rows.values() == [(0, None), (4, "b"), (5, "a")]


def test_hash_rows_keep_row_0_for_missing() -> None:
    rows = HashRows(7)(tf.constant(["", *(f"u{index}" for index in range(500))])).numpy()
    assert rows[0] == 0
    assert set(rows[1:]) == set(range(1, 8))


def test_integer_rows() -> None:
    rows = IntegerRows(20)
    assert rows.num_rows == 22
    assert rows(tf.constant([-1, 0, 20], tf.int64)).numpy().tolist() == [0, 1, 21]


def test_numeric_input() -> None:
    layer = NumericInput(["log1p"], [1.0], [2.0], [True])
    columns = layer(tf.constant([[np.expm1(5.0)], [np.nan]], tf.float32)).numpy()
    np.testing.assert_allclose(columns, [[2.0, 0.0], [0.0, 1.0]], rtol=1e-6)
    assert NumericInput()(tf.constant([[3.0], [np.nan]])).numpy().tolist() == [[3.0], [0.0]]


def test_numbers_side_by_side_are_each_as_by_itself() -> None:
    values = np.array([[1.0, 2.0, -5.0], [np.nan, 0.0, np.nan], [-7.0, np.nan, 4.0]], np.float32)
    together = NumericInput(["none", "log1p", "none"], [3.0, 0.5, 0.0], [2.0, 1.5, 1.0], [True, False, True])
    first = NumericInput(["none"], [3.0], [2.0], [True])(values[:, :1])
    second = NumericInput(["log1p"], [0.5], [1.5], [False])(values[:, 1:2])
    third = NumericInput(["none"], [0.0], [1.0], [True])(values[:, 2:])
    np.testing.assert_allclose(together(values), np.concatenate([first, second, third], axis=1), rtol=1e-6)
    assert np.asarray(third).tolist() == [[-5.0, 0.0], [0.0, 1.0], [4.0, 0.0]]


def test_quantile_embedding() -> None:
    layer = QuantileEmbedding(edges=[1.0, 5.0], dim=1)
    layer(tf.constant([0.0]))
    layer.table.set_weights([np.array([[-1.0], [10.0], [20.0], [30.0]])])
    values = tf.constant([np.nan, 0.9, 1.0, 4.9, 5.0, 100.0])
    assert layer(values).numpy()[:, 0].tolist() == [-1.0, 10.0, 20.0, 20.0, 30.0, 30.0]
    assert QuantileEmbedding(edges=[], dim=2)(tf.constant([3.0, np.nan])).shape == (2, 2)


def test_masked_mean() -> None:
    embeddings = np.random.default_rng(5).normal(size=(3, 4, 2)).astype(np.float32)
    mask = np.array([[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]], bool)
    result = masked_mean(tf.constant(embeddings), tf.constant(mask)).numpy()
    np.testing.assert_allclose(result[0], embeddings[0, :2].mean(axis=0), rtol=1e-5)
    assert result[1].tolist() == [0.0, 0.0]
    np.testing.assert_allclose(result[2], embeddings[2].mean(axis=0), rtol=1e-5)


def test_dense_stack_without_layers_is_the_identity() -> None:
    assert dense_stack([])(tf.constant([[1.0, -2.0]])).numpy().tolist() == [[1.0, -2.0]]


@pytest.mark.parametrize(
    "layer",
    [
        ParallelDense(2, 3, "relu"),
        MixtureOfExperts(2, [3], 2, 0.1, seed=5),
        ShallowTower({"a": 2, "b": 3}, [("a", "b")], 1, ["a"], 0.1, seed=2),
        NumericInput(["log1p"], [1.0], [2.0], [True]),
        QuantileEmbedding([1.0, 2.0], 3),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_are_rebuilt_from_their_config(layer: tf.keras.layers.Layer) -> None:
    assert type(layer).from_config(layer.get_config()).get_config() == layer.get_config()
