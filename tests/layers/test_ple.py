"""Progressive layered extraction against a double that goes expert by expert."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from mmoe_ranker.layers import ExtractionLevel, ProgressiveLayeredExtraction


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max())
    return exponentials / exponentials.sum()


def _naive_expert(level: ExtractionLevel, index: int, x: np.ndarray) -> np.ndarray:
    for dense in level.experts:
        x = np.maximum(x @ dense.kernel.numpy()[index] + dense.bias.numpy()[index], 0.0)
    return x


def _naive(layer: ProgressiveLayeredExtraction, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One impression, [I], after the paper's words."""
    objectives, own, shared = layer.num_objectives, layer.objective_experts, layer.shared_experts
    streams, stream_shared = [x] * objectives, x
    for level in layer.extraction:
        experts_of = [
            [_naive_expert(level, objective * own + index, streams[objective]) for index in range(own)]
            for objective in range(objectives)
        ]
        experts_shared = [_naive_expert(level, objectives * own + index, stream_shared) for index in range(shared)]
        gates, mixed = [], []
        for objective in range(objectives):
            gate = _softmax(streams[objective] @ level.gate_kernel.kernel.numpy()[objective])
            choices = experts_of[objective] + experts_shared
            mixed.append(sum(share * expert for share, expert in zip(gate, choices, strict=True)))
            gates.append(gate)
        if level.shared_gate:
            gate = _softmax(stream_shared @ level.shared_gate_kernel.kernel.numpy())
            everything = [expert for experts in experts_of for expert in experts] + experts_shared
            stream_shared = sum(share * expert for share, expert in zip(gate, everything, strict=True))
        streams = mixed
    return np.stack(streams), np.stack(gates)


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize(("shared", "own", "units"), [(3, 1, [5]), (2, 2, [6, 4])])
def test_equals_a_loop_over_experts(levels: int, shared: int, own: int, units: list[int]) -> None:
    layer = ProgressiveLayeredExtraction(levels, shared, own, units, num_objectives=3, gate_dropout=0.5)
    rng = np.random.default_rng(levels)
    inputs = rng.normal(size=(4, 7)).astype(np.float32)
    layer(inputs)
    for variable in layer.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    towers, gates = layer(inputs, training=False)
    assert towers.shape == (4, 3, units[-1])
    assert gates.shape == (4, 3, own + shared)
    for row in range(4):
        expected_towers, expected_gates = _naive(layer, inputs[row].astype(np.float64))
        np.testing.assert_allclose(towers[row], expected_towers, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(gates[row], expected_gates, rtol=1e-3, atol=1e-5)


def test_every_weight_is_trained_and_the_last_level_has_no_shared_gate() -> None:
    layer = ProgressiveLayeredExtraction(2, 2, 1, [4], num_objectives=2)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(tf.random.stateless_normal([64, 5], [1, 2]))[0] ** 2)
    gradients = tape.gradient(loss, layer.trainable_variables)
    assert all(np.abs(gradient.numpy()).max() > 0 for gradient in gradients)
    assert sum("shared_gate" in variable.name for variable in layer.trainable_variables) == 1


def test_own_experts_of_one_objective_do_not_reach_another() -> None:
    layer = ProgressiveLayeredExtraction(1, 2, 1, [4], num_objectives=2)
    inputs = tf.random.stateless_normal([8, 5], [1, 2])
    before = layer(inputs)[0].numpy()
    kernel = layer.extraction[0].experts[0].kernel
    kernel.assign(tf.concat([kernel[:1] + 1.0, kernel[1:]], axis=0))
    after = layer(inputs)[0].numpy()
    assert np.abs(after[:, 0] - before[:, 0]).max() > 0.01
    np.testing.assert_allclose(after[:, 1], before[:, 1], rtol=1e-5)


def test_experts_start_differently() -> None:
    level = ExtractionLevel(2, shared_experts=2, objective_experts=1, units=[50])
    level(tf.zeros([1, 60]))
    kernels = level.experts[0].kernel.numpy().reshape(4, -1)
    assert np.abs(np.corrcoef(kernels) - np.eye(4)).max() < 0.1


def test_gate_dropout_changes_the_mixture_in_training_alone_and_never_the_gates_returned() -> None:
    layer = ProgressiveLayeredExtraction(1, 3, 1, [4], num_objectives=2, gate_dropout=0.5, seed=3)
    inputs = tf.random.stateless_normal([200, 5], [1, 2])
    served, gates = layer(inputs)
    again, _ = layer(inputs)
    trained, gates_in_training = layer(inputs, training=True)
    np.testing.assert_array_equal(served, again)
    np.testing.assert_allclose(gates, gates_in_training, rtol=1e-6)
    changed = np.abs(served.numpy() - trained.numpy()).max(axis=-1) > 1e-6
    # A gate of four is left whole where nothing or everything is dropped: 2 / 16 of the time.
    assert abs(changed.mean() - 14 / 16) < 0.07


def test_rebuilt_from_its_config() -> None:
    for layer in (ProgressiveLayeredExtraction(2, 3, 1, [4], 2, 0.1, 5), ExtractionLevel(2, 3, 1, [4], 0.1, False, 5)):
        assert type(layer).from_config(layer.get_config()).get_config() == layer.get_config()
