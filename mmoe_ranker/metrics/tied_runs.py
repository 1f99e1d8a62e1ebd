"""Runs of equal values in sorted columns: the segments over which every rank metric sums.

A run is a maximal stretch of rows that are equal in all the columns given; it is known by the index of its first row.
Sums over runs are `np.add.reduceat(values, starts)`, so no metric loops over requests in Python.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def run_starts(*columns: Array) -> NDArray[np.intp]:
    """First row of each run.

    Args:
        *columns: Each [M], M >= 1, sorted together.

    Returns:
        [R], increasing, the first one 0.
    """
    changed = np.ones(len(columns[0]), dtype=bool)
    changed[1:] = False
    for column in columns:
        changed[1:] |= column[1:] != column[:-1]
    return np.flatnonzero(changed)


def run_sizes(starts: NDArray[np.intp], num_rows: int) -> NDArray[np.intp]:
    """Number of rows in each run.

    Args:
        starts: [R], from `run_starts`.
        num_rows: M.

    Returns:
        [R].
    """
    return np.diff(starts, append=num_rows)


def mean_ranks(order: NDArray[np.intp], *columns: Array) -> NDArray[np.float64]:
    """Rank of each row from 0, rows that are equal in all columns sharing the mean of theirs.

    Args:
        order: [M], M >= 1, rows as sorted by the columns.
        *columns: Each [M], not sorted.

    Returns:
        [M].
    """
    starts = run_starts(*(column[order] for column in columns))
    sizes = run_sizes(starts, len(order))
    ranks = np.empty(len(order))
    ranks[order] = np.repeat(starts + (sizes - 1) / 2, sizes)
    return ranks


def run_sums(values: Array, starts: NDArray[np.intp]) -> NDArray[np.float64]:
    """Sum over each run, in float64.

    Args:
        values: [M].
        starts: [R], from `run_starts`.

    Returns:
        [R].
    """
    return np.add.reduceat(values, starts, dtype=np.float64)
