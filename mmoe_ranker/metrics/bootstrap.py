"""Bootstrap over units, requests or users, with as many metrics in one pass as are wanted.

Rows of one request are not independent, so what is drawn anew, with replacement, is the unit. A draw is how often it
took each unit; a statistic gives its metrics for many draws at once, from rows that were sorted once (`resampling`).
Two models on the same impressions are compared draw by draw, which takes out what both owe to the draw.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmoe_ranker.errors import InputError
from mmoe_ranker.metrics.rows import labelled_rows, numbers

Path: TypeAlias = tuple[str, ...]
"""Where a metric stands in the report, such as ("objectives", "click", "auc")."""

Counts: TypeAlias = NDArray[np.uint8]
"""[B, U], how often each of B draws took each of U units."""

_CELLS_AT_ONCE = 1 << 21
_LEAST_DEFINED = 0.9
_LEAST_TAIL = 5  # draws beyond each end of an interval, so that an end is not one draw


class Interval(NamedTuple):
    """A metric with its bootstrap interval."""

    value: float
    low: float
    high: float


class PairedDifference(NamedTuple):
    """A metric of two models on the same rows: `difference` is second less first, `low` and `high` its interval."""

    first: float
    second: float
    difference: float
    low: float
    high: float


class Statistic(Protocol):
    """Metrics as functions of how often each unit was drawn."""

    def __call__(self, counts: Counts) -> Mapping[Path, NDArray[np.float64]]:
        """The metrics' values, [B] each, NaN where a draw does not define one; for counts [B, U]."""


def bootstrap(
    statistics: Sequence[Statistic], num_units: int, replicates: int = 200, seed: int = 0
) -> dict[Path, NDArray[np.float64]]:
    """Values of all metrics on `replicates` draws of the units, the same draws for every metric.

    Args:
        statistics: over the same units.
        num_units: U, at least 1.
        replicates: number of draws, at least 1.
        seed: of the draws; they depend on it and on U alone.

    Returns:
        By metric, [B] of B = `replicates`, NaN where a draw does not define it.

    Raises:
        InputError: fewer than one unit or draw.
    """
    if num_units < 1 or replicates < 1:
        raise InputError(
            f"A bootstrap must have at least one unit and one replicate. Received: {num_units} and {replicates}."
        )
    blocks: dict[Path, list[NDArray[np.float64]]] = {}
    for counts in _draws(num_units, replicates, seed):
        for path, values in _values(statistics, counts).items():
            blocks.setdefault(path, []).append(values)
    return {path: np.concatenate(values) for path, values in blocks.items()}


def bootstrap_intervals(
    statistics: Sequence[Statistic], num_units: int, replicates: int = 200, seed: int = 0, level: float = 0.95
) -> dict[Path, Interval]:
    """Every metric with its percentile interval.

    Args:
        statistics, num_units, replicates, seed: As in `bootstrap`.
        level: Coverage, above 0 and below 1.

    Returns:
        By metric. Value NaN where the rows do not define it; low and high NaN where there is one unit alone, or where
        fewer than 90 % of the draws define it.

    Raises:
        InputError: as `bootstrap` does, and on a level out of range.
    """
    _check_level(level)
    drawn = bootstrap(statistics, num_units, replicates, seed)
    values = _values(statistics, np.ones((1, num_units), np.uint8))
    return {
        path: Interval(float(values[path][0]), *_percentiles(draws, num_units, level)) for path, draws in drawn.items()
    }


def paired_bootstrap(
    first: Sequence[Statistic],
    second: Sequence[Statistic],
    num_units: int,
    replicates: int = 200,
    seed: int = 0,
    level: float = 0.95,
) -> dict[Path, PairedDifference]:
    """Differences between two models on the same rows, second less first, with percentile intervals.

    Args:
        first: of one model.
        second: of the other: the same metrics, rows and units.
        num_units, replicates, seed: As in `bootstrap`.
        level: Coverage, above 0 and below 1.

    Returns:
        By metric that both have, NaN as in `bootstrap_intervals`.

    Raises:
        InputError: as `bootstrap_intervals` does.

    Example:
        >>> import numpy as np
        >>> from mmoe_ranker.metrics import UnitSums, paired_bootstrap, ratio
        >>> ones, errors = np.ones(4), np.array([1.0, 2.0, 3.0, 4.0])
        >>> models = [UnitSums(4), UnitSums(4)]
        >>> for model, lower in zip(models, (0.0, 0.5)):
        ...     model.add(("mae",), ratio, errors - lower, ones)
        >>> paired_bootstrap([models[0]], [models[1]], num_units=4)[("mae",)]
        PairedDifference(first=2.5, second=2.0, difference=-0.5, low=-0.5, high=-0.5)
    """
    _check_level(level)
    draws = [bootstrap(statistics, num_units, replicates, seed) for statistics in (first, second)]
    ones = np.ones((1, num_units), np.uint8)
    values = [_values(statistics, ones) for statistics in (first, second)]
    differences = {}
    for path in draws[0]:
        if path in draws[1]:
            one, other = (float(side[path][0]) for side in values)
            low, high = _percentiles(draws[1][path] - draws[0][path], num_units, level)
            differences[path] = PairedDifference(one, other, other - one, low, high)
    return differences


def replicates_for(level: float, least: int) -> int:
    """Draws enough for an interval: so many that 5 lie beyond each of its ends, and `least` of them.

    Args:
        level: Coverage, above 0 and below 1.
        least: Number of draws that a wide interval takes.
    """
    return max(least, math.ceil(2 * _LEAST_TAIL / (1 - level)))


def bootstrap_interval(
    values: ArrayLike,
    seed: int,
    level: float = 0.95,
    weights: ArrayLike | None = None,
    num_replicates: int = 1000,
) -> Interval:
    """Percentile bootstrap interval of a (weighted) mean over groups, drawn anew with replacement.

    Args:
        values: [G], a value a group; NaN (a group that does not count) is left out.
        seed: Seed of the draws.
        level: Coverage, above 0 and below 1.
        weights: [G], at least 0, or None for 1 each.
        num_replicates: Number of draws, at least 1.

    Returns:
        Mean, low and high; all NaN where no group counts, low and high NaN where only one does.

    Raises:
        InputError: on shapes that differ, values out of range.
    """
    from mmoe_ranker.metrics.resampling import UnitSums, ratio  # which is built on this module

    _check_level(level)
    column = numbers(values, "values")
    rows = labelled_rows(column, np.zeros(column.shape), weights, names=("values", "values", "groups"))
    weight = np.ones(len(rows)) if rows.weights is None else rows.weights
    counts = weight > 0
    if not counts.any():
        return Interval(math.nan, math.nan, math.nan)
    weight = weight[counts]
    sums = UnitSums(len(weight))
    sums.add(("mean",), ratio, rows.labels[counts] * weight, weight)
    return bootstrap_intervals([sums], len(weight), num_replicates, seed, level)[("mean",)]


def _draws(num_units: int, replicates: int, seed: int) -> Iterator[Counts]:
    rng = np.random.default_rng(seed)
    at_once = max(1, _CELLS_AT_ONCE // num_units)
    for start in range(0, replicates, at_once):
        size = min(at_once, replicates - start)
        drawn = rng.integers(num_units, size=(size, num_units), dtype=np.int64)
        drawn += np.arange(size)[:, None] * num_units
        # No draw takes a unit 256 times: of fewer units it has fewer, of more the chance is below 1e-500.
        yield np.bincount(drawn.ravel(), minlength=size * num_units).astype(np.uint8).reshape(size, num_units)


def _values(statistics: Sequence[Statistic], counts: Counts) -> dict[Path, NDArray[np.float64]]:
    found: dict[Path, NDArray[np.float64]] = {}
    for statistic in statistics:
        found |= statistic(counts)
    return found


def _percentiles(draws: NDArray[np.float64], num_units: int, level: float) -> tuple[float, float]:
    defined = draws[~np.isnan(draws)]
    if num_units < 2 or len(defined) < _LEAST_DEFINED * len(draws):
        return math.nan, math.nan
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise InputError(f"`level` must be above 0 and below 1. Received: {level!r}.")
