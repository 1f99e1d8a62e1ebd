"""A search for weights of the combined score: many weights around the current ones, and those worth a look.

The front holds the weights that no others beat in every objective; which of them to take is a choice of the product,
not of a program. Some readings help: weights under which every objective gains, where there are any; balanced ones,
under which the objective that gets least of its reach gets most; and the best of each objective. Weights found on some
requests flatter themselves on these requests, which is why `check` looks at others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mmoe_ranker import metrics
from mmoe_ranker.combined_score import CombinedScore
from mmoe_ranker.config import Config
from mmoe_ranker.examples import REQUEST_ID
from mmoe_ranker.metrics import Interval
from mmoe_ranker.predictions import Predictions
from mmoe_ranker.request_sample import sample_requests
from mmoe_ranker.score_weights import TermEffect, pareto_front, sweep, term_effects

CURRENT, BALANCED, BETTER = "current", "balanced", "better_for_all"

MAX_IMPRESSIONS = 200_000
"""Beyond, requests are drawn: the sweep compares weights on the same requests, where that many tell them apart."""

_SEED = 20190916  # of the bootstrap: the same evaluation gives the same answer
_REPLICATES = 1000
_FACTOR = 32.0  # how far a weight may go from the current one, up and down: terms of little spread need that much
_DIGITS = 4  # of a weight, so that the YAML shows the very weights that were tried


@dataclasses.dataclass(frozen=True)
class Point:
    """Weights with what they do, against the current ones.

    Attributes:
        weights: [T].
        ndcg: By label; NaN where it is not defined.
        gains: By label, the NDCG minus that of the current weights, a paired bootstrap interval over requests.
    """

    weights: NDArray[np.float64]
    ndcg: dict[str, float]
    gains: dict[str, Interval]


@dataclasses.dataclass(frozen=True)
class WeightSearch:
    """What a search has found.

    Attributes:
        score: The combined score with the current weights.
        k: Ranks that count in NDCG@k.
        level: Of the intervals.
        impressions: Used by the search.
        requests: Used by the search.
        effects: By objective, what its term does under the current weights.
        signs: By label with a term and a defined NDCG: 1 where a high NDCG is good, -1 where a low one is.
        labels: The K labels of `ndcg`, those without a term included.
        weights: [W, T], the current ones first.
        ndcg: [W, K].
        front: [W], whether no other weights beat these in all of `signs`.
        points: Current, balanced and the best of each of `signs`, and between them one that is better for all of them,
            where there is one.
        notes: Sentences on what could not be used, or not all of it.
    """

    score: CombinedScore
    k: int
    level: float
    impressions: int
    requests: int
    effects: dict[str, TermEffect]
    signs: dict[str, int]
    labels: tuple[str, ...]
    weights: NDArray[np.float64]
    ndcg: NDArray[np.float64]
    front: NDArray[np.bool_]
    points: dict[str, Point]
    notes: tuple[str, ...]


def search_weights(predictions: Predictions, config: Config, trials: int, level: float = 0.95) -> WeightSearch:
    """Tries weights around those of the config.

    Args:
        predictions: Of a split that neither trained the model nor judges it at the end.
        config: The config that trained.
        trials: How many weights to try beside the current ones.
        level: Coverage of the intervals.

    Returns:
        The search; the same for the same predictions, config and number of trials.
    """
    score = CombinedScore.from_terms(config.objective_names, config.combined_score.form, config.combined_score.terms)
    predictions, notes = _sampled(predictions)
    requests = metrics.group_codes(predictions.columns[REQUEST_ID])
    labels, more = _usable_labels(predictions)
    effects = term_effects(predictions.predictions, requests, score)
    centre = _centre(predictions, requests, score, config)
    weights = weight_vectors(np.asarray(score.weights), centre, trials)
    k = config.evaluation.ndcg_k
    ndcg = sweep(predictions.predictions, labels, requests, score, weights, k)
    signs = {name: score.sign(name) for name in labels if name in config.combined_score.terms}
    more += [f"`{name}` has no term in the combined score: shown, not sought." for name in labels if name not in signs]
    oriented = ndcg[:, [list(labels).index(name) for name in signs]] * list(signs.values())
    chosen = {name: weights[index] for name, index in _choices(oriented, tuple(signs)).items()}
    return WeightSearch(
        score=score,
        k=k,
        level=level,
        impressions=len(requests),
        requests=len(np.unique(requests)),
        effects=effects,
        signs=signs,
        labels=tuple(labels),
        weights=weights,
        ndcg=ndcg,
        front=pareto_front(oriented),
        points=_points(score, predictions, labels, k, chosen, level),
        notes=(*notes, *more),
    )


def check(search: WeightSearch, predictions: Predictions) -> dict[str, Point]:
    """The weights that a search has found, on other requests.

    Args:
        search: Of one split.
        predictions: Of another.

    Returns:
        Its points, with the NDCG and the gains there.
    """
    predictions, _ = _sampled(predictions)
    labels, _ = _usable_labels(predictions)
    weights = {name: point.weights for name, point in search.points.items()}
    return _points(search.score, predictions, labels, search.k, weights, search.level)


def weight_vectors(current: NDArray[np.float64], centre: NDArray[np.float64], trials: int) -> NDArray[np.float64]:
    """The current weights, each term left out and each alone, and points spread evenly over the logarithms around them.

    Weights times a constant give the same order, so all others keep the sum of `centre`.

    Args:
        current: [T].
        centre: [T], what the others lie around; a term of 0 stays out.
        trials: Number of weights beside the current ones.

    Returns:
        [1 + trials, T], the current ones first; fewer where there are not as many.
    """
    terms = np.flatnonzero(centre)
    left_out = np.where(np.eye(len(centre), dtype=bool)[terms], 0.0, centre)
    alone = centre - left_out
    around = np.zeros((trials, len(centre)))
    around[:, terms] = centre[terms] * _FACTOR ** (2 * _evenly_spread(trials, len(terms)) - 1)
    tried = np.vstack([left_out, alone, around])
    sums = np.abs(tried).sum(axis=1)
    tried = tried[sums > 0] / sums[sums > 0, None] * np.abs(centre).sum()
    rounded = [[float(f"{weight:.{_DIGITS}g}") for weight in row] for row in tried]
    vectors = np.array([current, *rounded])
    _, first = np.unique(vectors, axis=0, return_index=True)
    return vectors[np.sort(first)][: 1 + trials]


def _evenly_spread(count: int, dimensions: int) -> NDArray[np.float64]:
    """[count, dimensions] in the unit cube: the R sequence, each point far from those before.

    See "The Unreasonable Effectiveness of Quasirandom Sequences" by Roberts
    (https://extremelearning.com.au/unreasonable-effectiveness-of-quasirandom-sequences/).
    """
    root = 2.0
    for _ in range(64):  # the root of x^(d + 1) = x + 1
        root = (1 + root) ** (1 / (dimensions + 1))
    steps = root ** -np.arange(1.0, dimensions + 1)
    return (0.5 + np.arange(1, count + 1)[:, None] * steps) % 1.0


def _centre(
    predictions: Predictions, requests: NDArray[np.int64], score: CombinedScore, config: Config
) -> NDArray[np.float64]:
    """[T], the current weights; for a term whose weight is 0 the one that gives it the mean spread of the others."""
    current = np.asarray(score.weights)
    unweighted = np.array([name in config.combined_score.terms for name in score.objectives]) & (current == 0)
    if not unweighted.any():
        return current
    visible = dataclasses.replace(score, weights=tuple(np.where(unweighted, 1.0, current)))
    spreads = np.array([effect.spread for effect in term_effects(predictions.predictions, requests, visible).values()])
    mean = spreads[current != 0].mean() if current.any() else 1.0
    return np.where(unweighted, np.divide(mean, spreads, out=np.ones(len(spreads)), where=spreads > 0), current)


def _sampled(predictions: Predictions) -> tuple[Predictions, list[str]]:
    rows, sentence = sample_requests(predictions.columns[REQUEST_ID], MAX_IMPRESSIONS)
    return (predictions, []) if rows is None else (predictions.select(rows), [sentence])


def _usable_labels(predictions: Predictions) -> tuple[dict[str, NDArray[np.float64]], list[str]]:
    """The labels that have an NDCG, and a sentence on each other."""
    usable, notes = {}, []
    for name, labels in predictions.labels.items():
        if np.nanmin(labels, initial=0.0) < 0:
            notes.append(f"`{name}` has negative labels, which are no gains: no NDCG.")
        elif not np.nanmax(labels, initial=0.0) > 0:
            notes.append(f"`{name}` has no positive label on these impressions: no NDCG.")
        else:
            usable[name] = labels
    return usable, notes


def _choices(oriented: NDArray[np.float64], names: tuple[str, ...]) -> dict[str, int]:
    """Rows of the weights worth a look; objectives are held side by side by their reach, from worst to best."""
    low, reach = oriented.min(axis=0, initial=np.inf), np.ptp(oriented, axis=0)
    if not reach.any():
        return {CURRENT: 0}
    shares = (oriented - low)[:, reach > 0] / reach[reach > 0]  # [W, K']
    gains = shares - shares[0]
    # Of equals, those that give more over all objectives.
    best_for = {BALANCED: shares.min(axis=1), BETTER: gains.min(axis=1)}
    best_for |= {f"best_{name}": oriented[:, column] for column, name in enumerate(names)}
    rows = {name: int(np.lexsort((-shares.sum(axis=1), -values))[0]) for name, values in best_for.items()}
    if gains[rows[BETTER]].min() <= 0:
        del rows[BETTER]
    return {CURRENT: 0} | rows


def _points(
    score: CombinedScore,
    predictions: Predictions,
    labels: Mapping[str, NDArray[np.float64]],
    k: int,
    chosen: Mapping[str, NDArray[np.float64]],
    level: float,
) -> dict[str, Point]:
    requests = metrics.group_codes(predictions.columns[REQUEST_ID])
    replicates = metrics.replicates_for(level, _REPLICATES)

    def ndcg(weights: NDArray[np.float64] | None) -> dict[str, metrics.GroupedMetric]:
        combined = score.score(predictions.predictions, weights)
        return {name: metrics.ndcg(values, combined, requests, k) for name, values in labels.items()}

    current = ndcg(None)
    points = {}
    for point, weights in chosen.items():
        found = ndcg(weights)
        gains = {
            name: metrics.bootstrap_interval(one.values - current[name].values, _SEED, level, num_replicates=replicates)
            for name, one in found.items()
        }
        points[point] = Point(weights, {name: one.value for name, one in found.items()}, gains)
    return points
