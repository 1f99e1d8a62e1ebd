"""Training with parameter servers: for tables that outgrow one machine.

Three jobs. Parameter servers (`ps`) hold the weights; a table larger than `min_shard_bytes` is cut by rows over them.
Workers compute: each takes the next batch, reads the weights it needs, and adds its gradients, not waiting for the
others. The `chief` reads the examples and hands out the batches, one a step; a batch whose worker is lost goes to
another one, so that every example is seen in every pass.

Because no worker waits, gradients are of weights that are some steps old, and the order of steps differs from run to
run: the losses are near to those of one process, never equal.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import time
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from mmoe_ranker.cluster import Cluster
from mmoe_ranker.config_training import ParameterServers, Training
from mmoe_ranker.distribution import Distribution, MakeDataset
from mmoe_ranker.model import Ranker
from mmoe_ranker.training_callbacks import flat_metrics

# How many steps a worker has before it, between two moments when all have finished and callbacks look.
_STEPS_A_WORKER = 25
_POLL_SECONDS = 1.0


class ParameterServer(Distribution):
    """Asynchronous training on weights that lie on parameter servers.

    Args:
      cluster: all processes.
      training: with `distribution` of this kind, and how often a checkpoint is due.
    """

    def __init__(self, cluster: Cluster, training: Training) -> None:
        self._cluster = cluster
        self._training = training

    @functools.cached_property
    def strategy(self) -> tf.distribute.Strategy:
        """Connects to all servers, when first used."""
        distribution = self._training.distribution
        assert isinstance(distribution, ParameterServers)
        partitioner = tf.distribute.experimental.partitioners.MinSizePartitioner(
            min_shard_bytes=distribution.min_shard_bytes, max_shards=len(self._cluster.addresses["ps"])
        )
        resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
        return tf.distribute.ParameterServerStrategy(resolver, partitioner)

    @functools.cached_property
    def _coordinator(self) -> tf.distribute.coordinator.ClusterCoordinator:
        return tf.distribute.coordinator.ClusterCoordinator(self.strategy)

    def serve_until(self, done: Path) -> bool:
        """Serves as worker or parameter server until the chief has written `done`."""
        if self._cluster.is_chief:
            return False
        if not done.is_file():
            server = tf.distribute.Server(
                tf.train.ClusterSpec({job: list(named) for job, named in self._cluster.addresses.items()}),
                job_name=self._cluster.job,
                task_index=self._cluster.index,
            )
            while not done.is_file():
                time.sleep(_POLL_SECONDS)
            del server
        return True

    def scope(self) -> contextlib.AbstractContextManager:
        """Variables made inside lie on the parameter servers."""
        return self.strategy.scope()

    def fit(
        self,
        ranker: Ranker,
        make_dataset: MakeDataset,
        epoch: int,
        steps: range,
        callbacks: Sequence[tf.keras.callbacks.Callback],
    ) -> None:
        """Trains one pass, or what is left of it; callbacks hear of steps when all that were handed out are done."""
        # Made outside the scope, where Keras would refuse callbacks that are told of steps.
        told = tf.keras.callbacks.CallbackList(list(callbacks), model=ranker, epochs=epoch + 1)
        with self.strategy.scope():
            loss = tf.keras.metrics.Mean("loss")
        dataset = make_dataset(range(1), 1)

        def replica_step(batch: tuple) -> None:
            loss.update_state(ranker.train_step(batch)["loss"])
            ranker._train_counter.assign_add(1)  # which TensorBoard's callback takes for the step

        @functools.partial(tf.function, input_signature=[dataset.element_spec])
        def worker_step(batch: tuple) -> None:
            self.strategy.run(replica_step, args=(batch,))

        ranker.reset_metrics()
        told.on_train_begin()
        told.on_epoch_begin(epoch)
        batches, step, logs = iter(dataset), steps.start, {}
        while handed_out := self._hand_out(worker_step, itertools.islice(batches, self._next_stop(step) - step)):
            logs = flat_metrics({metric.name: metric.result() for metric in (*ranker.metrics, loss)})
            loss.reset_state()
            for batch in range(step - steps.start, step - steps.start + handed_out):
                told.on_train_batch_begin(batch)
                told.on_train_batch_end(batch, logs)
            step += handed_out
        told.on_epoch_end(epoch, logs)
        told.on_train_end(logs)

    def _next_stop(self, step: int) -> int:
        """The step before which all are waited for next: not beyond a checkpoint's, whose weights must not be ahead."""
        steps, due = _STEPS_A_WORKER * len(self._cluster.addresses["worker"]), self._training.checkpoint_steps
        return min(step + steps, (step // due + 1) * due)

    def _hand_out(self, worker_step: tf.types.experimental.GenericFunction, batches: itertools.islice) -> int:
        handed_out = 0
        for batch in batches:
            self._coordinator.schedule(worker_step, args=(batch,))
            handed_out += 1
        self._coordinator.join()
        return handed_out
