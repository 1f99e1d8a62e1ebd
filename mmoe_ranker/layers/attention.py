"""Sequences pooled by attention from the candidate.

Shapes: N candidates (or B impressions), L places of a sequence, D width of the embeddings.
"""

from __future__ import annotations

import tensorflow as tf


class AttentionPooling(tf.keras.layers.Layer):
    """Mean of a sequence's embeddings, each place weighted by how much it has to do with the candidate.

    a_j = softmax_j(<W_q c, W_k s_j> / sqrt(D)), over the places that hold something;  output = sum_j a_j s_j

    The score is computed as <W_k^T W_q c, s_j>, which is the same number with two products a candidate and none a
    place. A sequence that stands once for all candidates is neither projected nor tiled: scores and mixture are two
    plain matrix products with it.

    Reference: local activation of Zhou et al. 2018 (DIN), https://doi.org/10.1145/3219819.3219823, eq. 3, with the
    scaled dot product of Vaswani et al. 2017, https://doi.org/10.48550/arXiv.1706.03762, eq. 1, in place of its
    network, and normalised weights.

    Example:
      >>> layer = AttentionPooling()
      >>> layer(tf.zeros([300, 8]), tf.zeros([1, 50, 8]), tf.ones([1, 50], tf.bool)).shape
      TensorShape([300, 8])

    Input shape: candidate [N, D]; sequence [N, L, D] with mask [N, L], or [1, L, D] with [1, L] for all candidates.
    Output shape: [N, D]; 0 where no place holds anything.
    """

    def build(self, input_shape: tf.TensorShape) -> None:
        """Makes the projections, both [D, D]."""
        width = int(input_shape[-1])
        self.query_kernel = self.add_weight("query_kernel", [width, width], initializer="glorot_uniform")
        self.key_kernel = self.add_weight("key_kernel", [width, width], initializer="glorot_uniform")
        super().build(input_shape)

    def call(self, candidate: tf.Tensor, sequence: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        """Returns the pooled sequence of each candidate."""
        query = tf.matmul(tf.matmul(candidate, self.query_kernel), self.key_kernel, transpose_b=True)  # [N, D]
        query *= int(candidate.shape[-1]) ** -0.5
        if sequence.shape[0] == 1:
            weights = _masked_softmax(tf.matmul(query, sequence[0], transpose_b=True), mask)  # [N, L]
            return tf.matmul(weights, sequence[0])
        weights = _masked_softmax(tf.einsum("nd,nld->nl", query, sequence), mask)
        return tf.einsum("nl,nld->nd", weights, sequence)


def _masked_softmax(scores: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    # The least finite number, so that a sequence without any place gives 0 and not NaN.
    return tf.nn.softmax(tf.where(mask, scores, scores.dtype.min)) * tf.cast(mask, scores.dtype)
