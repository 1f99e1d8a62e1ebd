"""One part of the joined logs to its measures: whole columns at a time, what a request says once counted once."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmoe_ranker.config import Config
from mmoe_ranker.config_features import SequenceFeature
from mmoe_ranker.examples import label_name
from mmoe_ranker.position_bias.overlap import PositionOverlap, click_objective, grouping_features
from pipelines.batches import ImpressionBatch, hashes, whole
from pipelines.checking.measures import HALVES, LABEL_UNIT, Measures, SplitRows, count_columns, impressions_of
from pipelines.checking.tallies import DAY, Tally, among, sum_by
from pipelines.example_reports import slice_names
from pipelines.splits import SPLITS

MISSING = "(missing)"
SEPARATOR = "\x1f"
"""Between the values of a cross: the control character that ASCII has for it."""


def measure_part(config: Config, split: str, batch: ImpressionBatch) -> Measures:
    """Measures joined impressions of one split: whole requests.

    Args:
      config: names features, objectives and crosses.
      split: `train`, `validation` or `test`.
      batch: joined, with labels.
    """
    return _Part(config, split, batch).measures()


class _Part:
    def __init__(self, config: Config, split: str, batch: ImpressionBatch):
        self._config, self._split = config, split
        self._contexts, self._impressions = batch.contexts, batch.impressions
        self._row = batch.impressions["_row"].to_numpy()
        half = (hashes(batch.contexts["_request"]) & np.uint64(1)).astype(np.int64)
        self._half = half[self._row]
        self._labels = self._label_columns()
        self._weights = count_columns(split, self._half, self._labels)
        self._context_weights = sum_by(self._row, self._weights, batch.contexts.num_rows)
        self._tallies: dict[tuple[str, str], Tally] = {}
        self._extremes: dict[str, np.ndarray] = {}

    def measures(self) -> Measures:
        for feature in self._config.features:
            column, weights = self._column(feature.name, feature.side == "context")
            if feature.kind == "categorical":
                self._tallies[feature.name, "value"] = Tally.of_categories(column, weights)
            elif feature.kind == "numeric":
                self._tallies[feature.name, "value"] = Tally.of_numbers(_floats(column), weights)
            elif feature.kind == "vector":
                self._tally_vectors(feature.name, feature.size, column, weights)
            else:
                self._tally_sequences(feature, column, weights)
        times = whole(self._contexts["_time"]).to_numpy()
        rows = SplitRows(
            examples=len(self._row),
            requests=pc.count_distinct(self._contexts["_request"]).as_py(),
            first_time=int(times.min()),
            last_time=int(times.max()),
        )
        return Measures(
            splits={self._split: rows},
            tallies=self._tallies,
            crosses={names: self._cross(names) for names in cross_names(self._config)},
            labels=self._label_tallies(),
            times=Tally.of_times(times, self._context_weights),
            days=Tally.of_times(times // DAY, self._context_weights),
            totals=self._totals(),
            extremes=self._extremes,
            overlap=self._overlap(),
        )

    def _column(self, name: str, in_context: bool) -> tuple[pa.Array, np.ndarray]:
        if in_context:
            return whole(self._contexts[name]), self._context_weights
        return whole(self._impressions[name]), self._weights

    def _label_columns(self) -> np.ndarray:
        columns = []
        for objective in self._config.objectives:
            label = _floats(whole(self._impressions[label_name(objective.name)]))
            if objective.kind == "regression":
                label = np.rint(np.sign(label) * np.log1p(np.abs(label)) / LABEL_UNIT)
            columns.append(label)
        return np.stack(columns, axis=1)

    def _label_tallies(self) -> dict[str, Tally]:
        by_split = impressions_of(self._weights)
        return {
            one.name: Tally.of_numbers(_floats(whole(self._impressions[label_name(one.name)])), by_split)
            for one in self._config.objectives
            if one.kind == "regression"
        }

    def _totals(self) -> np.ndarray:
        totals = np.zeros((len(SPLITS), HALVES, self._labels.shape[1], 3), np.int64)
        there = ~np.isnan(self._labels)
        # Squares keep the unit, so that they stay far from where 64 bits end.
        units = [1.0 if one.kind == "binary" else LABEL_UNIT for one in self._config.objectives]
        squares = np.rint(np.square(self._labels) * units)
        for side in range(HALVES):
            mine = there & (self._half == side)[:, np.newaxis]
            sums = [mine, np.where(mine, self._labels, 0.0), np.where(mine, squares, 0.0)]
            totals[SPLITS.index(self._split), side] = np.stack([one.sum(axis=0) for one in sums], axis=1)
        return totals

    def _tally_vectors(self, name: str, size: int, column: pa.Array, weights: np.ndarray) -> None:
        vectors = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, size).astype(np.float64)
        norms = np.full(len(column), np.nan)
        norms[column.is_valid().to_numpy(zero_copy_only=False)] = np.sqrt(np.square(vectors).sum(axis=1))
        self._tallies[name, "norm"] = Tally.of_numbers(norms, weights)
        if len(vectors):
            self._extremes[name] = np.stack([vectors.min(axis=0), vectors.max(axis=0)])

    def _tally_sequences(self, feature: SequenceFeature, column: pa.Array, weights: np.ndarray) -> None:
        lengths = pc.list_value_length(column)
        self._tallies[feature.name, "length"] = Tally.of_numbers(_floats(lengths), weights)
        owner = np.repeat(np.arange(len(column)), lengths.fill_null(0).to_numpy(zero_copy_only=False))
        elements = column.flatten()
        self._tallies[feature.name, "elements"] = Tally.of_categories(elements, impressions_of(weights)[owner])
        if feature.embedding == self._config.item_key:
            rows = self._row if feature.side == "context" else np.arange(len(self._row))
            stands = _stands_in(whole(self._impressions["_item"]), rows, elements.cast(pa.string()), owner)
            self._tallies[feature.name, "item"] = Tally.of_categories(pa.array(stands), self._weights)

    def _cross(self, names: tuple[str, ...]) -> Tally:
        return Tally.of_categories(pc.binary_join_element_wise(*map(self._text, names), SEPARATOR), self._weights)

    def _text(self, name: str) -> pa.Array:
        """A categorical feature's values, or positions, as text [I]."""
        if name == "position" and name not in self._impressions.column_names:
            name = "_position"
        if name in self._contexts.column_names:
            column = whole(self._contexts[name].take(self._impressions["_row"]))
        else:
            column = whole(self._impressions[name])
        return column.cast(pa.string()).fill_null(MISSING)

    def _overlap(self) -> PositionOverlap:
        positions = whole(self._impressions["_position"])
        stands = positions.is_valid().to_numpy(zero_copy_only=False)
        groups = [self._text(name) for name in grouping_features(self._config)]
        objective = click_objective(self._config)
        clicked = np.zeros(len(stands), np.int64)
        if objective is not None:
            clicked = self._labels[:, self._config.objective_names.index(objective)] == 1
        joined = pc.binary_join_element_wise(*groups, SEPARATOR) if groups else None
        return PositionOverlap.of(
            items=hashes(self._impressions["_item"])[stands],
            groups=(np.zeros(len(stands), np.uint64) if joined is None else hashes(pa.chunked_array([joined])))[stands],
            positions=positions.fill_null(0).to_numpy(zero_copy_only=False)[stands],
            clicked=clicked[stands],
        )


def cross_names(config: Config) -> tuple[tuple[str, ...], ...]:
    """The crosses that are tallied: the bias tower's, position with each slice of the evaluation that is a context's.

    And position alone, where it is no feature.
    """
    contexts = {feature.name for feature in config.side("context") if feature.kind == "categorical"}
    crosses = [names for names in slice_names(config) if len(names) > 1]
    crosses += [("position", name) for name in config.evaluation.slices if name in contexts]
    is_feature = any(feature.name == "position" for feature in config.features)
    return tuple(dict.fromkeys(crosses if is_feature else [*crosses, ("position",)]))


def _stands_in(items: pa.Array, rows: np.ndarray, elements: pa.Array, owner: np.ndarray) -> np.ndarray:
    """Whether each item [I] is among the elements [E] of the list `rows` [I] says, where `owner` [E] says whose."""
    both = pa.chunked_array([items, elements], pa.string()).combine_chunks().dictionary_encode()
    codes = both.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    size = len(both.dictionary)
    return among(rows * size + codes[: len(items)], owner * size + codes[len(items) :])


def _floats(column: pa.Array) -> np.ndarray:
    return column.cast(pa.float64()).fill_null(np.nan).to_numpy(zero_copy_only=False)
