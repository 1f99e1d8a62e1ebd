"""Where a training runs: one device, all devices of a machine, several machines in step, or parameter servers.

`training.distribution` chooses. `batch_size` is the size of a step's whole batch under each kind; the replicas of a
synchronous kind share it out among them, so that a step computes what one device would, in another order of sums.

R replicas: devices that work on parts of one batch.
"""

from __future__ import annotations

import atexit
import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import tensorflow as tf

from mmoe_ranker.cluster import Cluster, cluster_from_environment
from mmoe_ranker.config_training import Training
from mmoe_ranker.model import Ranker

# Makes the batches of one pass: given the replicas whose parts of each batch are wanted, and R.
MakeDataset = Callable[[range, int], tf.data.Dataset]


class Distribution:
    """Training in step, by whatever strategy; this class itself is for one process.

    Args:
      strategy: of TensorFlow; its default one is for one device.
    """

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        self.strategy = strategy

    @property
    def is_chief(self) -> bool:
        """Whether this process writes what the training leaves behind."""
        return True

    def serve_until(self, done: Path) -> bool:
        """Serves others where that is this process's task, until the file `done` is there; whether it was."""
        return False

    @contextlib.contextmanager
    def chief_first(self) -> Iterator[None]:
        """Lets the chief do what it encloses before the others do the same."""
        yield

    def scope(self) -> contextlib.AbstractContextManager:
        """Variables made inside are placed and kept equal as the kind wants it."""
        return self.strategy.scope()

    def save_folder(self, checkpoints: Path) -> Path:
        """Where this process writes its checkpoints. All take part in saving; only the chief's are kept."""
        return checkpoints

    def fit(
        self,
        ranker: Ranker,
        make_dataset: MakeDataset,
        epoch: int,
        steps: range,
        callbacks: Sequence[tf.keras.callbacks.Callback],
    ) -> None:
        """Trains one pass, or what is left of it.

        Args:
          ranker: made and compiled inside `scope`.
          make_dataset: the batches that are left, or parts of them.
          epoch: which pass.
          steps: the steps of the pass that are left.
          callbacks: told of every step.
        """
        replicas = self.strategy.num_replicas_in_sync

        def part(context: tf.distribute.InputContext) -> tf.data.Dataset:
            local = replicas // context.num_input_pipelines
            first = context.input_pipeline_id * local
            return make_dataset(range(first, first + local), replicas)

        # Every replica gets as many parts as there are batches, so that none waits for another at the end.
        dataset = self.strategy.distribute_datasets_from_function(part)
        ranker.fit(
            dataset,
            # Keras counts the batches of a plain dataset itself, and of no other.
            steps_per_epoch=None if isinstance(dataset, tf.data.Dataset) else len(steps),
            initial_epoch=epoch,
            epochs=epoch + 1,
            verbose=0,
            callbacks=list(callbacks),
        )


class MultiWorker(Distribution):
    """Training in step on several machines, each with a copy of all weights; gradients are summed over gRPC rings.

    A process that is lost is noticed within some 10 seconds by the others, which stop with an error: they are started
    again, all of them, and go on from the last checkpoint.

    Args:
      cluster: all processes.
    """

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(tf.distribute.MultiWorkerMirroredStrategy())
        self._cluster = cluster

    @property
    def is_chief(self) -> bool:
        """Whether this process writes what the training leaves behind."""
        return self._cluster.is_chief

    @contextlib.contextmanager
    def chief_first(self) -> Iterator[None]:
        """Lets the chief do what it encloses before the others do the same."""
        if not self.is_chief:
            self._meet()
        yield
        if self.is_chief:
            self._meet()

    def save_folder(self, checkpoints: Path) -> Path:
        """The folder itself for the chief, one that is thrown away for the others."""
        if self.is_chief:
            return checkpoints
        folder = Path(tempfile.mkdtemp(prefix="mmoe_ranker_"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return folder

    def _meet(self) -> None:
        """Waits until all processes are here."""

        def all_here() -> tf.Tensor:
            return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tf.constant(1.0))

        tf.function(lambda: self.strategy.run(all_here))()


def open_distribution(training: Training) -> Distribution:
    """What `training.distribution` describes.

    Raises:
      InputError: the kind has several processes, and TF_CONFIG does not describe them.
    """
    kind = training.distribution.kind
    if kind == "none":
        return Distribution(tf.distribute.get_strategy())
    if kind == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return Distribution(tf.distribute.MirroredStrategy([device.name for device in devices]))
    cluster = cluster_from_environment(kind)
    if kind == "multi_worker":
        return MultiWorker(cluster)
    # Imported here because it builds on this module.
    from mmoe_ranker.parameter_server import ParameterServer

    return ParameterServer(cluster, training)
