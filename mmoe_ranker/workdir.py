"""What a training leaves behind, and evaluation and export start from: one folder.

config.yaml  statistics.json  vocabularies/      what the model is built from
checkpoints/                                     weights, optimiser slots, position in the data
best/                                            weights of the best pass so far, while early stopping trains
sample.tfrecord                                  a few examples: warm-up requests and the check at export
examples.sha256                                  which examples it trains on
started_from.json                                whose weights it started from, if any: path and digest of that workdir
training.json                                    written last: steps, epochs, losses
logs/                                            TensorBoard
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import tensorflow as tf

from mmoe_ranker.config import Config
from mmoe_ranker.config_loading import dump_config, load_config
from mmoe_ranker.config_matching import check_built_with
from mmoe_ranker.dataset import SUMMARY, missing_features, serialized_examples, split_parts
from mmoe_ranker.errors import InputError
from mmoe_ranker.model import Ranker
from mmoe_ranker.statistics import STATISTICS, Statistics
from mmoe_ranker.whole_files import writing_whole_file

CONFIG = "config.yaml"
SAMPLE = "sample.tfrecord"
DIGEST = "examples.sha256"
STARTED_FROM = "started_from.json"
RESULT = "training.json"
CHECKPOINTS = "checkpoints"
BEST = "best"

_SAMPLE_SIZE = 256


class Workdir:
    """A training's folder.

    Args:
      path: where it is; `create` makes it, `open` wants it complete.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, config: Config, examples: Path, start: Workdir | None = None) -> Workdir:
        """Makes the folder, or goes on with one that was begun with the same config.

        Args:
          path: of the folder.
          config: what trains.
          examples: what it trains on.
          start: the finished training whose weights it starts from; its statistics, grown by those of the examples,
            become the folder's.

        Raises:
          InputError: the folder holds a training of another config or start, or other files, or the examples are
            incomplete.
        """
        workdir = cls(path)
        text, digest = dump_config(config), examples_digest(examples)
        if (path / DIGEST).is_file():
            for name, begun_with, what in ((CONFIG, text, "config"), (DIGEST, digest, "examples")):
                if (path / name).read_text(encoding="utf-8") != begun_with:
                    raise InputError(
                        f"The workdir must be new, or hold a training of the very same {what}, which would go on: "
                        f"choose another folder, or remove this one. Received: {str(path)!r}, of other {what}."
                    )
            workdir._check_started_from(start)
            return workdir
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise InputError(f"The workdir must be a new or empty folder. Received: {str(path)!r}.")
        check_built_with(config, load_config(examples / CONFIG), examples)
        statistics = Statistics.load(examples)
        if start is not None:
            statistics = Statistics.load(start.path).grown_by(statistics)
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
        try:
            beside.chmod(0o755)
            statistics.save(beside)
            with tf.io.TFRecordWriter(str(beside / SAMPLE)) as writer:
                for record in serialized_examples(examples, "train").take(_SAMPLE_SIZE):
                    writer.write(record.numpy())
            (beside / CONFIG).write_text(text, encoding="utf-8")
            (beside / DIGEST).write_text(digest, encoding="utf-8")
            if start is not None:
                origin = {"path": str(start.path.resolve()), "digest": start.digest()}
                (beside / STARTED_FROM).write_text(json.dumps(origin, indent=1) + "\n", encoding="utf-8")
            beside.replace(path)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        return workdir

    @classmethod
    def open(cls, path: Path) -> Workdir:
        """Opens the folder of a finished training.

        Raises:
          InputError: the folder is missing, or its training has not finished.
        """
        if not (path / RESULT).is_file():
            raise InputError(
                "The workdir must hold a finished training, as `mmoe-ranker train` leaves it, "
                f"with {RESULT} in it. Received: {str(path)!r}."
            )
        return cls(path)

    @property
    def config(self) -> Config:
        """The config that trained."""
        return load_config(self.path / CONFIG)

    @property
    def result(self) -> dict[str, Any] | None:
        """What the training said at its end, or None while it has not ended."""
        file = self.path / RESULT
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None

    @property
    def started_from(self) -> dict[str, str] | None:
        """`path` and `digest` of the workdir whose weights it started from, or None."""
        file = self.path / STARTED_FROM
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None

    def digest(self) -> str:
        """Tells one finished training from another: a hash of what built it and of its checkpoint's checksums."""
        latest = self._latest_checkpoint()
        digest = hashlib.sha256()
        for file in (self.path / CONFIG, self.path / STATISTICS, self.path / DIGEST, Path(f"{latest}.index")):
            digest.update(file.read_bytes())
        return digest.hexdigest()

    def _check_started_from(self, start: Workdir | None) -> None:
        begun = self.started_from
        if (begun or {}).get("digest") != (start.digest() if start else None):
            started = f"started from {begun['path']!r}" if begun else "started from nothing"
            given = repr(str(start.path)) if start else "no `--from`"
            raise InputError(
                f"The workdir {str(self.path)!r} was {started}: go on with the same `--from`, or choose another "
                f"folder. Received: {given}."
            )

    def _latest_checkpoint(self) -> str:
        latest = tf.train.latest_checkpoint(str(self.path / CHECKPOINTS))
        if latest is None:
            raise InputError(f"The workdir must hold a checkpoint. Received: {str(self.path / CHECKPOINTS)!r}.")
        return latest

    def write_result(self, result: dict[str, Any]) -> None:
        """Says that the training is done; the last thing it does."""
        with writing_whole_file(self.path / RESULT) as file:
            file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")

    def build_ranker(self, precision: str = "float32") -> Ranker:
        """A ranker with its variables made, those of the loss too, but not trained.

        Args:
          precision: of its dense part; weights are float32 in any, so that what trained in one is served in another.
        """
        config = self.config
        training = config.training.model_copy(update={"precision": precision})
        config = config.model_copy(update={"training": training})
        ranker = Ranker(config, Statistics.load(self.path))
        labels = {name: tf.constant([float("nan")]) for name in config.objective_names}
        features = ranker.feature_rows(missing_features(config))
        ranker(features)
        # As a replica, if this is one of several: metrics count nowhere else.
        tf.distribute.get_strategy().run(ranker.compute_loss, args=((features, labels),))
        ranker.reset_metrics()
        return ranker

    def load_ranker(self) -> Ranker:
        """The trained ranker."""
        ranker = self.build_ranker()
        self.restore(ranker=ranker)
        return ranker

    def restore(self, **objects: Any) -> None:
        """Restores objects, by the names that training saves them under, from the newest checkpoint.

        Raises:
          InputError: there is no checkpoint, or it is damaged.
        """
        latest = self._latest_checkpoint()
        try:
            tf.train.Checkpoint(**objects).restore(latest).expect_partial().assert_existing_objects_matched()
        except (IndexError, AssertionError, tf.errors.OpError) as error:
            problem = " ".join(str(error).split())[:200]
            raise InputError(
                f"The checkpoint must be whole, as training left it: train again. Received: {latest!r}, {problem}."
            ) from None

    def sample(self) -> list[bytes]:
        """A few serialized examples of the training split."""
        return [record.numpy() for record in tf.data.TFRecordDataset(str(self.path / SAMPLE))]


def examples_digest(examples: Path) -> str:
    """Tells one folder of examples from another: a hash of its summary, its statistics and the sizes of its parts.

    Raises:
      InputError: the folder is not complete.
    """
    parts = [Path(part) for part in split_parts(examples, "train")]
    digest = hashlib.sha256()
    for file in (examples / SUMMARY, examples / STATISTICS):
        digest.update(file.read_bytes() if file.is_file() else b"")
    digest.update(repr([(part.name, part.stat().st_size) for part in parts]).encode())
    return digest.hexdigest()
