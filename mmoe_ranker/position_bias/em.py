"""Examination by expectation-maximisation under the position-based model, P(click) = e_k r(x).

Whether an impression without a click was not examined or not relevant is hidden; its expectation is

    P(examined | no click) = e (1 - r) / (1 - e r),      P(relevant | no click) = r (1 - e) / (1 - e r)

and the next e_k is the mean of the first over the impressions at k (1 for a click), while r is regressed on the second.
That is regression-EM: "Position Bias Estimation for Unbiased Learning to Rank in Personal Search" by Wang et al., WSDM
2018 (https://doi.org/10.1145/3159652.3159732), here with a ranker's prediction as the one feature of the regression.

It rests on this: the prediction orders impressions by relevance. If it has learned some of the position bias, this
much is missing from the examination. (With one relevance an item instead, `overlap.examination` fits the same model for
rare clicks; as EM, with some 30 impressions an item, it puts later positions 5 to 10 % too high, since items clicked
always or never are taken at their word.)

Shapes: N impressions, P positions, C cells (a bin of predictions at a position).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmoe_ranker.errors import InputError
from mmoe_ranker.metrics.rows import check_shapes

Floats = NDArray[np.float64]

_ROUNDS = 1000
_TOLERANCE = 1e-5
_BINS = 256
# Probabilities stay away from 0 and 1, where the expectations are 0 / 0.
_EDGE = 1e-6


def examination_by_prediction(
    predictions: ArrayLike, positions: ArrayLike, clicks: ArrayLike
) -> tuple[NDArray[np.int64], Floats]:
    """Examination with a relevance that is a logistic regression on the logit of a prediction, position missing.

    Predictions are taken in 256 bins of as many impressions each.

    Args:
      predictions: [N], probabilities.
      positions: [N], integers from 1; below 1 unknown, and left out.
      clicks: [N], 0, 1 or NaN where missing.

    Returns:
      Positions [P], ascending, and their examination relative to the first; NaN where that has no click.

    Raises:
      InputError: shapes differ, a click is not 0, 1 or NaN, or a prediction is no probability.
    """
    clicked, position = np.asarray(clicks, dtype=np.float64), np.asarray(positions)
    probability = np.asarray(predictions, dtype=np.float64)
    check_shapes("clicks", clicked, {"positions": position, "predictions": probability})
    there = ~np.isnan(clicked) & (position >= 1)
    places, place = np.unique(position[there].astype(np.int64), return_inverse=True)
    clicked, probability = clicked[there], probability[there]
    _check(clicked, (clicked == 0) | (clicked == 1), "`clicks` must be 0, 1 or NaN")
    _check(probability, (probability >= 0) & (probability <= 1), "`predictions` must be from 0 to 1")
    logit = np.log(np.clip(probability, _EDGE, 1 - _EDGE) / np.clip(1 - probability, _EDGE, 1 - _EDGE))
    bins = np.searchsorted(np.quantile(logit, np.arange(1, _BINS) / _BINS), logit) if len(logit) else place
    shown_of_bin = np.maximum(np.bincount(bins, minlength=1), 1)
    mean_logit = np.bincount(bins, weights=logit, minlength=1) / shown_of_bin
    shown, gained, place, unit = _cells(place, clicked, bins)
    centred = mean_logit[unit] - mean_logit[unit].mean() if len(unit) else mean_logit[unit]
    design = np.stack([np.ones(len(unit)), centred], axis=1)
    return places, _maximise(len(places), place, shown, gained, design)


def _maximise(count: int, place: NDArray[np.int64], shown: Floats, gained: Floats, design: Floats) -> Floats:
    """Turns of expectation and maximisation over cells [C] of a design [C, 2], until examination [P] stands still."""
    at_place = np.bincount(place, weights=shown, minlength=count)
    rates = np.bincount(place, weights=gained, minlength=count) / np.maximum(at_place, 1.0)
    if not count or not rates[0]:
        return np.full(count, np.nan)
    examined = np.clip(rates / rates.max(), _EDGE, 1 - _EDGE)
    coefficients = np.array([0.0, 1.0])
    for _ in range(_ROUNDS):
        relevant = np.clip(1 / (1 + np.exp(-design @ coefficients)), _EDGE, 1 - _EDGE)
        of_cell = examined[place]
        missed = (shown - gained) / (1 - of_cell * relevant)
        saw = gained + missed * of_cell * (1 - relevant)
        wanted = gained + missed * relevant * (1 - of_cell)
        # One Newton step towards the regression: EM asks for no more than progress.
        hessian = (design * (shown * relevant * (1 - relevant))[:, None]).T @ design + _EDGE * np.eye(2)
        step = np.linalg.solve(hessian, design.T @ (wanted - shown * relevant))
        moved = np.clip(np.bincount(place, weights=saw, minlength=count) / at_place, _EDGE, 1 - _EDGE)
        change = max(np.abs(np.log(moved / examined)).max(), np.abs(step).max())
        examined, coefficients = moved, coefficients + step
        if change < _TOLERANCE:
            break
    return examined / examined[0]


def _check(values: Floats, allowed: NDArray[np.bool_], rule: str) -> None:
    if not allowed.all():
        raise InputError(f"{rule}. Received: {values[~allowed][0]:g}.")


def _cells(
    place: NDArray[np.intp], clicked: Floats, unit: NDArray[np.intp]
) -> tuple[Floats, Floats, NDArray[np.intp], NDArray[np.intp]]:
    """Impressions and clicks of each unit at each place, and which they are."""
    width = int(place.max(initial=0)) + 1
    cells, cell = np.unique(unit * width + place, return_inverse=True)
    shown: Floats = np.bincount(cell).astype(np.float64)
    gained: Floats = np.bincount(cell, weights=clicked).astype(np.float64)
    return shown, gained, cells % width, cells // width
