"""What one replica of a training knows of the others; with one device, nothing is communicated.

A step's batch is split over the replicas, and what each computes of the gradients is summed. So a mean over the batch
is the sum, over replicas, of each replica's mean times its share of the batch.
"""

from __future__ import annotations

import tensorflow as tf


def total_over_replicas(value: tf.Tensor) -> tf.Tensor:
    """The sum over all replicas, a scalar known to each of them."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)


def share_of_batch(count: tf.Tensor) -> tf.Tensor:
    """The share of a step's batch that a replica has, a scalar between 0 and 1.

    Args:
      count: how many impressions it has.
    """
    count = tf.cast(count, tf.float32)
    return count / total_over_replicas(count)
