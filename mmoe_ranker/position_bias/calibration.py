"""Calibration at each position: what a ranker says with the position seen, and with it missing."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmoe_ranker.metrics.rows import check_shapes
from mmoe_ranker.position_bias.rates import PositionRates, rates_by_position


class PositionCalibration(NamedTuple):
    """A row a position, C of them, ascending.

    Attributes:
      rates: observed, with their intervals.
      predicted: [C], mean prediction.
      ratio: [C], mean prediction over observed rate: 1 is calibrated, above 1 too much; NaN where nothing was clicked.
      low: [C], lower end of its 95 % interval, from that of the rate.
      high: [C], upper end; infinite where the rate may be 0.
    """

    rates: PositionRates
    predicted: NDArray[np.float64]
    ratio: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def calibration_by_position(
    labels: ArrayLike, predictions: ArrayLike, positions: ArrayLike, requests: ArrayLike
) -> PositionCalibration:
    """Mean prediction over observed rate, position by position.

    With the position seen, 1 everywhere is what one wants. With it missing, a model that has understood position bias
    predicts an average position's rate: too little for the first positions, too much for the last.

    Args:
      labels: [N], 0, 1 or NaN where missing.
      predictions: [N], probabilities.
      positions: [N], integers from 1; below 1 unknown, and left out.
      requests: [N], in any order.

    Raises:
      InputError: shapes differ, or a label is not 0, 1 or NaN.
    """
    rates = rates_by_position(labels, positions, requests)
    label, prediction = np.asarray(labels, dtype=np.float64), np.asarray(predictions, dtype=np.float64)
    check_shapes("labels", label, {"predictions": prediction})
    position = np.asarray(positions)
    there = ~np.isnan(label) & (position >= 1)
    place = np.searchsorted(rates.positions, position[there])
    count = len(rates.positions)
    predicted = np.bincount(place, weights=prediction[there], minlength=count) / np.maximum(rates.impressions, 1)

    def over(observed: NDArray[np.float64], otherwise: float) -> NDArray[np.float64]:
        return np.divide(predicted, observed, out=np.full(count, otherwise), where=observed > 0)

    return PositionCalibration(
        rates, predicted, over(rates.rates, np.nan), over(rates.high, np.nan), over(rates.low, np.inf)
    )
