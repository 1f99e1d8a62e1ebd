"""Which impressions two evaluations have in common: two rankers are compared on the same ones, row by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmoe_ranker.errors import InputError
from mmoe_ranker.metrics import group_codes


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
