"""Counts as of a time: what the log itself knew of a key before an impression, and nothing later.

A popularity that counts its own impression, or a later one, gives the label away; one that counts the same user's other
impressions gives it away more quietly, because a later list shows a click as an earlier action. Here every sum covers
only events strictly before the asking time, and `sums_before_of_others` leaves the asking user's events out.

Shapes: n rows, each of them an event and a question; m values summed at once.
"""

from __future__ import annotations

import numpy as np
import pandas as pd


def codes(*columns: pd.Series | np.ndarray) -> np.ndarray:
    """One integer for each distinct combination of the columns' values.

    Args:
      *columns: arrays of [n]; a missing value counts as a value of its own.

    Returns:
      int64 [n], from 0, without gaps.
    """
    frame = pd.DataFrame({str(place): np.asarray(column) for place, column in enumerate(columns)})
    return frame.groupby(list(frame.columns), sort=False, dropna=False).ngroup().to_numpy(dtype=np.int64)


def sums_before(keys: np.ndarray, known: np.ndarray, values: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Sums each row's key up to its asking time: `s_i = sum of v_j over k_j = k_i, known_j < asked_i`.

    Args:
      keys: int64 [n], from `codes`.
      known: float64 [n], seconds: when a row's values become known.
      values: float64 [n, m].
      asked: float64 [n], seconds: when a row asks.

    Returns:
      float64 [n, m].
    """
    # Ranks of times instead of times, so that key and time fit one integer whatever the clock's unit.
    times, ranks = np.unique(np.concatenate([known, asked]), return_inverse=True)
    first = keys * np.int64(len(times))
    events = first + ranks[: len(keys)]
    order = np.argsort(events, kind="stable")
    running = np.zeros((len(keys) + 1, values.shape[1]))
    np.cumsum(values[order], axis=0, out=running[1:])
    upto = np.searchsorted(events[order], first + ranks[len(keys) :], side="left")
    start = np.searchsorted(events[order], first, side="left")
    return running[upto] - running[start]


def sums_before_of_others(
    keys: np.ndarray, users: np.ndarray, known: np.ndarray, values: np.ndarray, asked: np.ndarray
) -> np.ndarray:
    """As `sums_before`, without the events of the asking row's own user (int64 [n], from `codes`)."""
    everyone = sums_before(keys, known, values, asked)
    return everyone - sums_before(codes(keys, users), known, values, asked)


def shrunk(hits: np.ndarray, trials: np.ndarray, prior: float, weight: float) -> np.ndarray:
    """A rate drawn towards `prior`, as if that had been seen `weight` times.

        (hits + weight prior) / (trials + weight)

    Differences of running sums may fall short of 0 by rounding; they are clipped there.
    """
    return (np.maximum(hits, 0.0) + weight * prior) / (np.maximum(trials, 0.0) + weight)
