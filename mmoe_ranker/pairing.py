"""What two runs have in common: impressions, objectives, labels; rankers are compared on these, row by row."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmoe_ranker.config import Config
from mmoe_ranker.errors import InputError
from mmoe_ranker.examples import ITEM_ID, REQUEST_ID
from mmoe_ranker.metrics import group_codes
from mmoe_ranker.predictions import Predictions
from mmoe_ranker.request_sample import sample_requests
from mmoe_ranker.saved_evaluation import SavedEvaluation

MAX_IMPRESSIONS = 1_000_000
"""Beyond, requests are drawn: each of hundreds of draws of the bootstrap looks at every impression."""

_POSITION = "position"


class Pairing(NamedTuple):
    """Rows of the same impressions in two evaluations.

    Attributes:
        first: [P], rows of the first, rising.
        second: [P], rows of the second, of the same impressions.
        first_total: Impressions of the first.
        second_total: Impressions of the second.
    """

    first: NDArray[np.intp]
    second: NDArray[np.intp]
    first_total: int
    second_total: int

    @property
    def complete(self) -> bool:
        """Whether every impression of either is in both."""
        return len(self.first) == self.first_total == self.second_total


def pair_impressions(
    first: Mapping[str, NDArray[Any]], second: Mapping[str, NDArray[Any]], keys: Sequence[str]
) -> Pairing:
    """Finds the impressions that two evaluations have in common.

    Args:
        first: By name, [N], the columns of one evaluation.
        second: By name, [M], those of the other.
        keys: Names of the columns that tell impressions apart, in both: integers, bytes or strings.

    Returns:
        The rows in both, in the order of the first.

    Raises:
        InputError: an impression stands twice in one evaluation.
    """
    totals = len(first[keys[0]]), len(second[keys[0]])
    if all(np.array_equal(first[key], second[key]) for key in keys):
        rows = np.arange(totals[0])
        return Pairing(rows, rows, *totals)
    codes = np.zeros(sum(totals), dtype=np.int64)
    for key in keys:
        column = np.concatenate([first[key], second[key]])
        # As small as there are distinct keys so far, so that the product of two stays far from 2^63.
        _, values = np.unique(group_codes(column), return_inverse=True)
        _, codes = np.unique(codes * (values.max(initial=0) + 1) + values, return_inverse=True)
    sides = codes[: totals[0]], codes[totals[0] :]
    for side, which in zip(sides, ("first", "second"), strict=True):
        if len(np.unique(side)) < len(side):
            named = ", ".join(keys)
            raise InputError(
                f"An evaluation must have each impression once, told apart by {named}. Received: one that stands twice "
                f"in the {which} evaluation."
            )
    _, one, other = np.intersect1d(*sides, assume_unique=True, return_indices=True)
    order = np.argsort(one)
    return Pairing(one[order], other[order], *totals)


@dataclasses.dataclass(frozen=True)
class CommonGround:
    """Two evaluations, cut to what both have.

    Attributes:
        first: P impressions, with the labels of the first run.
        second: The same impressions in the same order, with the same labels.
        config: The first run's, with the objectives of both.
        pairing: Which rows of the evaluations these are.
        notes: Sentences on what is not of both.
    """

    first: Predictions
    second: Predictions
    config: Config
    pairing: Pairing
    notes: list[str]


def common_ground(first: SavedEvaluation, second: SavedEvaluation, some: bool = False) -> CommonGround:
    """Cuts two evaluations to the impressions and objectives that both have.

    Args:
        first: The one; its labels hold.
        second: The other.
        some: Take the impressions in both, rather than refuse, where some are in one alone.

    Raises:
        InputError: no impression or no objective is in both; or, without `some`, an impression is in one alone.
    """
    columns = first.predictions.columns, second.predictions.columns
    keys = [REQUEST_ID, ITEM_ID, *([_POSITION] if all(_POSITION in side for side in columns) else [])]
    pairing = pair_impressions(*columns, keys)
    both = len(pairing.first)
    counts = f"{pairing.first_total:,} and {pairing.second_total:,} impressions, {both:,} of them in both"
    if not pairing.complete and not (some and both):
        option = " (--common compares those in both)" if both else ""
        raise InputError(
            f"Two runs must be evaluated on the same impressions, told apart by {', '.join(keys)}{option}. "
            f"Received: {counts}."
        )
    notes = [] if pairing.complete else [f"Of {counts}: only these are compared."]
    if everything := first.predictions.everything:
        share = f"{pairing.first_total:,} of {everything.impressions:,} impressions, of whole units of {everything.by}"
        notes.append(f"The runs were evaluated on more than is kept: what is compared is drawn from {share}.")
    config = _common_config(first.config, second.config, notes)
    sample, sentence = sample_requests(columns[0][REQUEST_ID][pairing.first], MAX_IMPRESSIONS)
    if sample is not None:
        notes.append(sentence)
        pairing = pairing._replace(first=pairing.first[sample], second=pairing.second[sample])
    one, other = _cut(first.predictions, pairing.first), _cut(second.predictions, pairing.second)
    for name in config.objective_names:
        differing = int(np.sum(~np.isclose(one.labels[name], other.labels[name], equal_nan=True)))
        if differing:
            notes.append(
                f"`{name}` has other labels in the two runs on {differing:,} impressions: both are held against those "
                "of the first run."
            )
    return CommonGround(one, dataclasses.replace(other, labels=one.labels), config, pairing, notes)


def _cut(predictions: Predictions, rows: NDArray[np.intp]) -> Predictions:
    # Most pairs are of all rows in their order, which need not be in memory twice.
    return predictions if np.array_equal(rows, np.arange(len(predictions))) else predictions.select(rows)


def _common_config(first: Config, second: Config, notes: list[str]) -> Config:
    kinds = [{objective.name: objective.kind for objective in config.objectives} for config in (first, second)]
    for name in dict.fromkeys([*kinds[0], *kinds[1]]):
        sides = [side.get(name) for side in kinds]
        if None in sides:
            notes.append(f"`{name}` is an objective of the {'second' if sides[0] is None else 'first'} run alone.")
        elif sides[0] != sides[1]:
            notes.append(f"`{name}` is {sides[0]} in the first run and {sides[1]} in the second: not compared.")
    kept = tuple(objective for objective in first.objectives if kinds[1].get(objective.name) == objective.kind)
    if not kept:
        raise InputError(
            "Two runs must have an objective of one name and kind in common. "
            f"Received: {', '.join(kinds[0])} and {', '.join(kinds[1])}."
        )
    names = {objective.name for objective in kept}
    terms = {name: term for name, term in first.combined_score.terms.items() if name in names}
    score = first.combined_score.model_copy(update={"terms": terms})
    return first.model_copy(update={"objectives": kept, "combined_score": score})
