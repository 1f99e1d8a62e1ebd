"""The exported model as RunInference uses it: batches of serialized examples in, predictions and scores out.

The only place of the pipelines that needs TensorFlow, which is loaded where the model is: in the worker. Beam's own
handler for TensorFlow takes models of Keras 3 and stacks single examples; an export has no Keras and parses batches.

An element is a batch already. One element an example would cost more in Beam than in the model; and Beam's batches vary
with time and bundle, while the last bits of a matrix product vary with the number of rows. Batches that are cut by the
files alone make the predictions a function of the files.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from apache_beam.ml.inference.base import ModelHandler

from mmoe_ranker.combined_score import CombinedScore, combined_score, ranking_key
from mmoe_ranker.config import Config
from mmoe_ranker.config_objectives import CombinedScore as Formula
from mmoe_ranker.errors import InputError
from mmoe_ranker.examples import ITEM_ID, REQUEST_ID, TIMESTAMP_MICROS, Field, feature_field, label_name
from mmoe_ranker.tensorflow_loading import load_tensorflow

COMBINED_SCORE = "combined_score"
RANK = "rank"
RANKING_KEY = "_key"
_SIGNATURES = ("contract", "serving_default", "serving_examples")
_TYPES = {"bytes": "string", "int64": "int64", "float": "float32"}


@dataclasses.dataclass(frozen=True)
class ExampleBatch:
    """Some consecutive examples of one file.

    Attributes:
      file, files: the file's number and how many there are.
      source: how an error names the file.
      start: where the first example stands in the file.
      records: large_binary [N], serialized tf.Examples.
    """

    file: int
    files: int
    source: str
    start: int
    records: pa.Array

    def __len__(self) -> int:
        return len(self.records)


@dataclasses.dataclass(frozen=True)
class ScoredBatch:
    """What became of an ExampleBatch.

    Attributes:
      batch: without its records.
      table: [N] request_id, item_id, timestamp_micros, each objective, combined_score, `_key` (what orders a request:
        the score before its exponential) and the labels asked for. Its schema's metadata says what scored.
    """

    file: int
    files: int
    start: int
    table: pa.Table


class RankerHandler(ModelHandler[ExampleBatch, ScoredBatch, "LoadedRanker"]):
    """Loads an export once a worker process, and scores with it.

    Args:
      folder: of one version, on a file system that TensorFlow reads.
      version: its number.
      config: of the examples.
      score_weights: by objective, in place of the exported default.
      labels: whether the examples have labels to hand on.
    """

    def __init__(
        self, folder: str, version: int, config: Config, score_weights: Mapping[str, float], labels: bool
    ) -> None:
        super().__init__()
        self._folder = folder
        self._version = version
        self._config_name = config.name
        self._fields = {feature.name: feature_field(config, feature) for feature in config.served_features}
        self._score_weights = dict(score_weights)
        self._labels = tuple(label_name(name) for name in config.objective_names) if labels else ()

    def load_model(self) -> LoadedRanker:
        """Loads the export.

        Raises:
          InputError: it is no export of a ranker, takes other features than the examples have, or has no objective of a
            name in `score_weights`.
        """
        ranker = LoadedRanker(self._folder, self._version, self._score_weights, self._labels)
        ranker.check_takes(self._fields, self._config_name)
        return ranker

    # Where batching is skipped, Beam hands over an element in place of a list of elements.
    def run_inference(  # type: ignore[override]
        self, batch: ExampleBatch, model: LoadedRanker, inference_args: dict[str, Any] | None = None
    ) -> Iterator[ScoredBatch]:
        """Scores a batch.

        Raises:
          InputError: the model refuses the examples.
        """
        yield ScoredBatch(batch.file, batch.files, batch.start, model.score(batch))

    def should_skip_batching(self) -> bool:
        """True: elements are batches."""
        return True

    def get_num_bytes(self, batch: ExampleBatch) -> int:  # type: ignore[override]
        """Of the serialized examples."""
        return batch.records.nbytes

    def get_metrics_namespace(self) -> str:
        """Under which Beam counts inferences and their time."""
        return "mmoe_ranker"


class LoadedRanker:
    """An export in this process; see `RankerHandler` for the arguments."""

    def __init__(self, folder: str, version: int, score_weights: Mapping[str, float], labels: tuple[str, ...]) -> None:
        self._tf = tf = load_tensorflow()
        self._folder = folder
        try:
            loaded = tf.saved_model.load(folder)
        except (OSError, ValueError, tf.errors.OpError) as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"The model must be a SavedModel that TensorFlow can load ({reason}). Received: {folder!r}."
            ) from None
        if absent := [name for name in _SIGNATURES if name not in loaded.signatures]:
            raise InputError(
                f"The model must have the signature `{absent[0]}`, as `mmoe-ranker export` writes it. "
                f"Received: {folder!r} with {', '.join(sorted(loaded.signatures)) or 'none'}."
            )
        # The module owns the tables and weights that the signature's function looks up.
        self._loaded = loaded
        self._predict = loaded.signatures["serving_examples"]
        contract = json.loads(loaded.signatures["contract"]()["contract"].numpy())
        formula = Formula.model_validate(contract["combined_score"])
        self._score = CombinedScore.from_terms(
            [objective["name"] for objective in contract["objectives"]], formula.form, formula.terms
        )
        if RANK in self._score.objectives:
            raise InputError(
                f"An objective must not be called `{RANK}`, which is a column of its own. Received: {folder!r}."
            )
        weights = self._score.resolve_weights(score_weights or None)
        self._weights = tf.constant(weights, tf.float32)
        self._labels = labels
        self._rest = {
            REQUEST_ID: tf.io.FixedLenFeature([], tf.string),
            ITEM_ID: tf.io.FixedLenFeature([], tf.string),
            TIMESTAMP_MICROS: tf.io.FixedLenFeature([], tf.int64),
            **{label: tf.io.FixedLenFeature([], tf.float32, np.nan) for label in labels},
        }
        signature = [tf.TensorSpec([None], tf.string)]
        # Straight-line code: looking for branches to translate would take longer than loading the model.
        self._columns = tf.function(self._columns_of, input_signature=signature, autograph=False)
        self._description = {
            "model": contract["name"],
            "version": str(version),
            "score_weights": json.dumps(dict(zip(self._score.objectives, weights.tolist(), strict=True))),
        }

    def check_takes(self, fields: Mapping[str, Field], config: str) -> None:
        """Checks that examples hold what the model takes; more does not matter.

        Args:
          fields: of the examples, by name.
          config: the name of the config that they are made by.

        Raises:
          InputError: a feature is not there, or of another type or length.
        """
        for name, spec in sorted(self._loaded.signatures["serving_default"].structured_input_signature[1].items()):
            taken = (spec.dtype.name, spec.shape.as_list()[1:])
            field = fields.get(name)
            held = (_TYPES[field.wire], [] if field.length == 1 else [field.length]) if field else None
            if held != taken:
                raise InputError(
                    f"The config of what is scored must have the feature `{name}` as the model takes it, "
                    f"{_described(taken)}. Received: {_described(held) if held else 'none'} in the config {config!r}."
                )

    def score(self, batch: ExampleBatch) -> pa.Table:
        """The columns of `ScoredBatch`.

        Raises:
          InputError: the model refuses the examples.
        """
        try:
            computed = self._columns(self._tf.constant(batch.records.to_numpy(zero_copy_only=False)))
        except self._tf.errors.InvalidArgumentError as error:
            # Before it stands where the step was defined, behind it its name in the graph.
            found = re.search(r"([^\n]+)\s*\[\[\{\{node", error.message)
            reason = found[1] if found else " ".join(error.message.split())
            raise InputError(
                f"The model must be able to take the examples ({reason}). Received: {batch.source!r}, "
                f"examples {batch.start} to {batch.start + len(batch) - 1}."
            ) from None
        columns = {name: values.numpy() for name, values in computed.items()}
        arrays = {
            REQUEST_ID: _text(columns[REQUEST_ID]),
            ITEM_ID: _text(columns[ITEM_ID]),
            TIMESTAMP_MICROS: pa.array(columns[TIMESTAMP_MICROS]),
            **{name: pa.array(columns[name]) for name in (*self._score.objectives, COMBINED_SCORE, RANKING_KEY)},
            **{name: pa.array(columns[name], from_pandas=True) for name in self._labels},
        }
        return pa.table(arrays).replace_schema_metadata(self._description)

    def _columns_of(self, examples: Any) -> dict[str, Any]:
        outputs = self._predict(examples=examples)
        # In float32 and by TensorFlow, as in the signature `rank`, so that ties are the same; but `serving_examples`
        # takes no weights.
        predictions = [outputs[name] for name in self._score.objectives]
        arguments = (predictions, self._weights, self._score.offsets, self._score.complements, self._score.form)
        return {
            **self._tf.io.parse_example(examples, self._rest),
            **dict(zip(self._score.objectives, predictions, strict=True)),
            COMBINED_SCORE: combined_score(*arguments, self._tf.math),
            RANKING_KEY: ranking_key(*arguments, self._tf.math),
        }


def _text(values: np.ndarray) -> pa.Array:
    return pa.array(values, pa.binary()).cast(pa.string())


def _described(held: tuple[str, list[int | None]]) -> str:
    kind, shape = held
    return f"{kind} [{', '.join('N' if size is None else str(size) for size in [None, *shape])}]"
