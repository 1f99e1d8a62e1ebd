"""Attention pooling against a loop over candidates and places."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from mmoe_ranker.layers import AttentionPooling


def _data(seed: int, candidates: int, sequences: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    candidate = rng.normal(size=(candidates, 4)).astype(np.float32)
    sequence = rng.normal(size=(sequences, 6, 4)).astype(np.float32)
    return candidate, sequence, rng.random((sequences, 6)) < 0.6


def _naive(layer: AttentionPooling, candidate: np.ndarray, sequence: np.ndarray, mask: np.ndarray) -> np.ndarray:
    query = candidate @ layer.query_kernel.numpy()
    scores, places = [], []
    for place, there in zip(sequence, mask, strict=True):
        if there:
            key = place @ layer.key_kernel.numpy()
            scores.append(np.exp(np.dot(query, key) / np.sqrt(len(candidate))))
            places.append(place)
    if not places:
        return np.zeros_like(candidate)
    return sum(score * place for score, place in zip(scores, places, strict=True)) / sum(scores)


def test_equals_a_loop() -> None:
    layer = AttentionPooling()
    candidate, sequence, mask = _data(1, 5, 5)
    mask[2] = False
    pooled = layer(candidate, sequence, mask).numpy()
    for row in range(5):
        expected = _naive(layer, candidate[row], sequence[row], mask[row])
        np.testing.assert_allclose(pooled[row], expected, rtol=1e-4, atol=1e-6)
    assert not pooled[2].any()


def test_one_sequence_for_all_candidates_equals_the_tiled_one() -> None:
    layer = AttentionPooling()
    candidate, sequence, mask = _data(2, 7, 1)
    tiled = layer(candidate, np.repeat(sequence, 7, axis=0), np.repeat(mask, 7, axis=0))
    np.testing.assert_allclose(layer(candidate, sequence, mask), tiled, rtol=1e-4, atol=1e-6)
    nothing = layer(candidate, sequence, np.zeros_like(mask)).numpy()
    assert not nothing.any()


def test_one_sequence_is_never_tiled_in_the_graph() -> None:
    layer = AttentionPooling()
    specs = tf.TensorSpec([None, 4]), tf.TensorSpec([1, 6, 4]), tf.TensorSpec([1, 6], tf.bool)
    graph = tf.function(layer).get_concrete_function(*specs).graph
    operations = list(graph.as_graph_def().node)
    operations += [node for function in graph.as_graph_def().library.function for node in function.node_def]
    kinds = [operation.op for operation in operations]
    assert kinds.count("MatMul") == 4
    assert not {"Tile", "Repeat", "BroadcastTo", "BatchMatMulV2", "Einsum"} & set(kinds)


def test_empty_sequences_have_finite_gradients() -> None:
    layer = AttentionPooling()
    candidate, sequence, _ = (tf.constant(values) for values in _data(3, 4, 4))
    with tf.GradientTape() as tape:
        tape.watch([candidate, sequence])
        loss = tf.reduce_sum(layer(candidate, sequence, tf.constant([[True] * 6, [False] * 6] * 2)))
    for gradient in tape.gradient(loss, [candidate, sequence, *layer.trainable_variables]):
        assert np.isfinite(gradient.numpy()).all()


def test_learns_to_look_at_the_place_that_equals_the_candidate() -> None:
    tf.keras.utils.set_random_seed(4)
    rng = np.random.default_rng(4)
    table = rng.normal(size=(12, 8)).astype(np.float32)
    rows = np.stack([rng.permutation(12)[:5] for _ in range(400)])
    candidate, sequence = table[rows[:, 2]], table[rows]
    layer, optimizer = AttentionPooling(), tf.keras.optimizers.legacy.Adam(0.05)
    mask = np.ones((400, 5), bool)

    def loss() -> tf.Tensor:
        return tf.reduce_mean((layer(candidate, sequence, mask) - candidate) ** 2)

    before = float(loss())
    for _ in range(60):
        optimizer.minimize(loss, lambda: layer.trainable_variables)
    assert float(loss()) < 0.1 * before
