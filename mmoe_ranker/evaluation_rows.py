"""What evaluation groups rows by, encoded once: requests, groups, slices, and the units of the bootstrap.

A column of ids or values becomes codes from 0, which sort fast; a row whose group is not known has the code -1 and is
in no group. Slices have a text for each value.

Shapes: N impressions, S values of a slice, U units.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmoe_ranker import metrics
from mmoe_ranker.config import Config
from mmoe_ranker.errors import InputError
from mmoe_ranker.examples import REQUEST_ID
from mmoe_ranker.predictions import Predictions

MAX_VALUES = 50
"""A slice of more values reports the largest of them, and the rest as one."""

OTHER = "(other)"
MISSING = "(missing)"
_BUCKETS = 10

Codes: TypeAlias = NDArray[np.int32]


class Slice(NamedTuple):
    """A feature's values: `codes`, [N] from 0; `texts`, [S]; `num_values`, before any were put together."""

    codes: Codes
    texts: list[str]
    num_values: int


class EvaluationRows:
    """The columns of predictions, encoded.

    Attributes:
        requests: [N], from 0.
        num_requests: how many.
        groups: by name (`request_id`, then `evaluation.group_by`), [N], -1 where not known.
        within: by name of a categorical feature of side bias, [N], -1 where not known.
        slices: by name of a feature.
    """

    def __init__(self, predictions: Predictions, config: Config) -> None:
        columns, grouping = predictions.columns, config.evaluation.group_by
        within, sliced = within_names(config), slice_names(config)
        named = dict.fromkeys([*grouping, *within, *sliced])
        for name in named:
            if name not in columns:
                raise InputError(
                    f"Predictions must hold a column of every feature that `evaluation` groups or slices by; evaluate "
                    f"again. Received: columns {', '.join(columns)}, and no `{name}`."
                )
        self.requests, self.num_requests = _dense(columns[REQUEST_ID])
        self.groups = {REQUEST_ID: self.requests}
        categorical = {feature.name for feature in config.features if feature.kind == "categorical"}
        encoded = {name: _dense(columns[name]) for name in named if name in categorical}
        self.groups |= {name: _known_codes(columns[name], encoded[name][0]) for name in grouping}
        self.within = {name: _known_codes(columns[name], encoded[name][0]) for name in within}
        self.slices = {
            name: _values(columns[name], *encoded[name])
            if name in categorical
            else _buckets(columns[name].astype(np.float64))
            for name in sliced
        }

    def __len__(self) -> int:
        return len(self.requests)

    def notes(self) -> list[str]:
        """Sentences on what is empty or left out."""
        found = [] if len(self) else ["There is no impression to evaluate."]
        for name, sliced in self.slices.items():
            if sliced.texts[-1:] == [OTHER]:
                rest = f"the {MAX_VALUES} largest are reported, the others together as {OTHER}"
                found.append(f"`{name}` has {sliced.num_values:,} values; {rest}.")
        return found

    def units(self, predictions: Predictions, by: str) -> tuple[Codes, int]:
        """The unit of the bootstrap that each row belongs to, [N] from 0, and U.

        Args:
            predictions: the same.
            by: `request_id`, or a feature of side context; a request where it is not known is a unit by itself.

        Raises:
            InputError: a request has rows of several units.
        """
        if by == REQUEST_ID:
            return self.requests, self.num_requests
        codes = _known_codes(predictions.columns[by], _dense(predictions.columns[by])[0])
        units, num_units = _dense(np.where(codes < 0, -1 - self.requests, codes))
        of_request = np.zeros(self.num_requests, np.int32)
        of_request[self.requests] = units
        if np.any(of_request[self.requests] != units):
            received = int(np.sum(of_request[self.requests] != units))
            raise InputError(
                f"`evaluation.bootstrap.by` must name a feature with one value a request. Received: {by!r}, which "
                f"differs within requests on {received} impressions."
            )
        return units, num_units


def slice_names(config: Config) -> list[str]:
    """The features whose values the report is sliced by, each once: `position` and `device` where there are any."""
    always = [feature.name for feature in config.features if feature.name in ("position", "device")]
    of_bias = [*getattr(config.model.bias, "features", ()), *within_names(config)]
    kinds = {feature.name: feature.kind for feature in config.features}
    names = [*of_bias, *(name for name in always if kinds[name] != "vector"), *config.evaluation.slices]
    return list(dict.fromkeys(names))


def within_names(config: Config) -> list[str]:
    """The categorical features of side bias: within one value of them, every impression had the same chance."""
    return [feature.name for feature in config.side("bias") if feature.kind == "categorical"]


def _dense(column: NDArray[Any]) -> tuple[Codes, int]:
    codes: Codes = metrics.dense_codes(column).astype(np.int32, copy=False)
    count = int(codes.max(initial=-1)) + 1
    if count > len(codes) or not np.all(np.bincount(codes, minlength=count)):  # integers with gaps
        codes = np.unique(codes, return_inverse=True)[1].astype(np.int32)
        count = int(codes.max(initial=-1)) + 1
    return codes, count


def _known_codes(column: NDArray[Any], codes: Codes) -> Codes:
    known = column != (-1 if np.issubdtype(column.dtype, np.integer) else b"")
    return codes if np.all(known) else np.where(known, codes, np.int32(-1))


def _values(column: NDArray[Any], codes: Codes, num_values: int) -> Slice:
    """Each value by itself, in their order; the smallest together where there are too many."""
    one_row = np.empty(num_values, np.int64)
    one_row[codes] = np.arange(len(codes))
    values = column[one_row]
    by_value = np.argsort(values, kind="stable")
    place = np.empty(len(values), np.int32)
    counts = np.bincount(codes, minlength=len(values))
    kept = by_value
    if len(values) > MAX_VALUES:
        largest = np.argsort(-counts[by_value], kind="stable")[:MAX_VALUES]
        kept = by_value[np.sort(largest)]
    place[:] = len(kept)
    place[kept] = np.arange(len(kept))
    texts = [_text(value) for value in values[kept]] + [OTHER] * (len(kept) < len(values))
    return Slice(place[codes], texts, len(values))


def _buckets(values: NDArray[np.float64]) -> Slice:
    """Each value by itself where there are few, else buckets of equal counts, named by least and largest in them."""
    there = ~np.isnan(values)
    known = values[there]
    distinct = np.unique(known)
    edges = distinct
    if len(distinct) > _BUCKETS:
        edges = np.unique(np.quantile(known, np.arange(1, _BUCKETS + 1) / _BUCKETS, method="inverted_cdf"))
    codes = np.full(len(values), len(edges), np.int32)
    codes[there] = np.searchsorted(edges, known)  # closed above
    least = (
        distinct[np.concatenate([[0], np.searchsorted(distinct, edges[:-1], side="right")])] if len(edges) else edges
    )
    texts: list[str] = []
    for digits in (6, 17):  # as many as tell the buckets apart
        bounds = [(f"{low:.{digits}g}", f"{high:.{digits}g}") for low, high in zip(least, edges, strict=True)]
        texts = [low if low == high else f"{low} to {high}" for low, high in bounds]
        if len(set(texts)) == len(texts):
            break
    return Slice(codes, texts + [MISSING] * (not there.all()), len(distinct))


def _text(value: object) -> str:
    if value in (b"", -1):
        return MISSING
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
