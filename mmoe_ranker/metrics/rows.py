"""The rows that a metric counts: columns of one length, checked, without the rows whose label is missing.

A missing label is NaN, and it is not a 0: such a row takes no part in any metric. A prediction that is NaN where the
label exists is an error, since sorting would call it the best of all and averaging would hide which row it was.

Shapes: N rows given, M rows counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmoe_ranker.errors import InputError
from mmoe_ranker.metrics.tied_runs import run_sizes, run_starts

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Rows:
    """The columns of the rows that count.

    Attributes:
        labels: [M], float64.
        predictions: [M], in the floating type given (sorting float32 takes half the memory), else float64.
        weights: [M], float64, or None where every row weighs 1.
        groups: [M], sortable codes (`group_codes`), or None.
        kept: [M], the row's index in the columns given, or None where all were kept.
        binary: Whether the labels were checked to be 0 and 1.
    """

    labels: NDArray[np.float64]
    predictions: Array
    weights: NDArray[np.float64] | None
    groups: Array | None
    kept: NDArray[np.intp] | None
    binary: bool

    def __len__(self) -> int:
        return len(self.labels)


def labelled_rows(
    labels: ArrayLike,
    predictions: ArrayLike,
    sample_weights: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    *,
    label_kind: str = "real",
    prediction_kind: str = "score",
    names: tuple[str, str, str] = ("labels", "scores", "groups"),
) -> Rows:
    """Checks the columns of a metric and leaves out the rows without label, or without group (a float group of NaN).

    Args:
        labels: [N], NaN where missing.
        predictions: [N].
        sample_weights: [N], finite and at least 0, or None.
        groups: [N], numbers or strings, or None.
        label_kind: "binary" (0 or 1), "gain" (at least 0) or "real" (finite).
        prediction_kind: "score" (anything that has an order), "probability" (0 to 1) or "real" (finite).
        names: What the caller calls its labels, predictions and groups, for the error messages.

    Returns:
        The columns of the rows that count.

    Raises:
        InputError: on columns that are not one-dimensional or not of one length, and on values out of their range.
    """
    label_name, prediction_name, group_name = names
    label_column = numbers(labels, label_name)
    prediction_column = numbers(predictions, prediction_name)
    weight_column = None if sample_weights is None else numbers(sample_weights, "sample_weights").astype(np.float64)
    group_column = None if groups is None else np.asarray(groups)
    columns = {prediction_name: prediction_column, "sample_weights": weight_column, group_name: group_column}
    if label_column.ndim != 1:
        raise InputError(f"`{label_name}` must have one dimension. Received: shape {list(label_column.shape)}.")
    check_shapes(label_name, label_column, columns)

    present = ~np.isnan(label_column)
    codes = None
    if group_column is not None:
        codes = group_codes(group_column)
        if codes.dtype.kind == "f":
            present &= ~np.isnan(codes)
    kept = None if present.all() else np.flatnonzero(present)

    def select(column: Array) -> Array:
        return column if kept is None else column[kept]

    rows = Rows(
        labels=select(label_column).astype(np.float64, copy=False),
        predictions=select(prediction_column),
        weights=None if weight_column is None else select(weight_column),
        groups=None if codes is None else select(codes),
        kept=kept,
        binary=label_kind == "binary",
    )
    _check_range(rows.labels, label_kind, label_name)
    _check_range(rows.predictions, prediction_kind, prediction_name)
    if rows.weights is not None:
        _check_range(rows.weights, "gain", "sample_weights")
    return rows


def check_shapes(name: str, column: Array, others: Mapping[str, Array | None]) -> None:
    """Checks that columns have the shape of a first one.

    Args:
        name: Of the first column.
        column: [N], or of another shape.
        others: By name; None for one that is not given.

    Raises:
        InputError: one has another shape.
    """
    for other_name, other in others.items():
        if other is not None and other.shape != column.shape:
            raise InputError(
                f"`{other_name}` must have the shape of `{name}`, {list(column.shape)}. "
                f"Received: shape {list(other.shape)}."
            )


def group_codes(groups: ArrayLike) -> Array:
    """Codes that sort fast: numbers stay as they are, strings and objects become integers in order of appearance.

    Encode once where one column groups many metrics; codes passed in again cost nothing.

    Args:
        groups: [N], numbers, strings, bytes or hashable objects.

    Returns:
        [N], numbers, equal where the groups are equal.
    """
    column = np.asarray(groups)
    if column.dtype.kind not in "OSU":
        return column
    if not len(column):
        return np.empty(0, np.int64)
    # Rows of a request follow each other, so a value is looked up once a run. In a dict, since np.unique sorts: about
    # as fast on fixed-width strings, but several times slower on objects, and not on mixed ones.
    starts = run_starts(column)
    values = column[starts].tolist()
    codes = np.fromiter(map(_Codes().__getitem__, values), np.int64, len(values))
    return np.repeat(codes, run_sizes(starts, len(column)))


class _Codes(dict[Any, int]):
    """Gives each value that it is asked for the next number."""

    def __missing__(self, value: Any) -> int:
        self[value] = code = len(self)
        return code


def numbers(values: ArrayLike, name: str) -> Array:
    """A column of numbers as floats, in the floating type given.

    Args:
        values: Any shape, such as [N].
        name: What the caller calls it, for the error message.

    Returns:
        The array.

    Raises:
        InputError: on strings and other things that are no numbers.
    """
    try:
        column = np.asarray(values)
        if column.dtype.kind == "f":
            return column
        if column.dtype.kind in "biuO":
            return column.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"`{name}` must hold numbers in one array. Received: {values!r:.80}.") from error
    raise InputError(f"`{name}` must hold numbers in one array. Received: values of type {column.dtype}.")


def _check_range(values: Array, kind: str, name: str) -> None:
    if kind == "binary":
        wrong, allowed = (values != 0) & (values != 1), "0, 1 or NaN for missing"
    elif kind == "gain":
        wrong, allowed = ~(np.isfinite(values) & (values >= 0)), "finite numbers of at least 0"
    elif kind == "probability":
        wrong, allowed = ~((values >= 0) & (values <= 1)), "probabilities from 0 to 1"
    elif kind == "real":
        wrong, allowed = ~np.isfinite(values), "finite numbers"
    else:
        wrong, allowed = np.isnan(values), "numbers other than NaN wherever the label exists"
    if wrong.any():
        raise InputError(f"`{name}` must hold {allowed}. Received: {values[wrong][0]} (and {wrong.sum()} such in all).")
