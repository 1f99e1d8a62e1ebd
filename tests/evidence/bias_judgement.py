"""Which model of selection bias is better on public logs: by natural interventions and inverse-propensity NDCG.

The reference is the logs' own: what one item (a result of one query on clara2, a hotel on one device on trivago) was
clicked at several positions, over the whole log (`bias_arms.logged_examination`). Against it, on the test split:

  position_effect    how far the position's effect that the model claims is from the reference: root mean square over
                     positions of the log of (model / reference), the model's from its predictions, position seen, at
                     the same items; for a model that knows no position, from those that it has
  position_left      the same of its predictions with position missing against no effect at all: what is left in the
                     ranking score of an item as it moves
  auc_within         AUC inside each position, position missing
  ndcg               NDCG@10 on clicks as logged
  ndcg_ips           NDCG@10 on clicks weighed by the inverse of the reference

Two kinds of chance are kept apart, as in `real_logs`: over seeds (Student), and over the test period's requests by a
paired bootstrap of the mean over seeds; that of the reference, over items, is in the interval of `position_effect`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmoe_ranker import metrics
from mmoe_ranker.examples import ITEM_ID, REQUEST_ID
from mmoe_ranker.position_bias import Examination, examination_of, natural_interventions, order_agreement
from mmoe_ranker.position_bias.propensity import gains_by_request, inverse_weights
from mmoe_ranker.predictions import Predictions
from tests.evidence.bias_arms import ARMS, UNITS, Arm, logged_clicks, logged_examination, trained_arm
from tests.evidence.intervals import over_seeds, text

SEEDS = (1, 2, 3)
DATA = {"bias_clara2": "clara2", "bias_trivago": "trivago"}
CONTROL = "none"
_K = 10
_REPLICATES = 1000


def run(folder: Path, seeds: Sequence[int] = SEEDS) -> dict[str, Any]:
    """Trains every arm on the data set that the folder stands for, and judges them.

    Args:
      folder: one of `DATA`; what is made lies beside it.
      seeds: one training each.

    Returns:
      The reference; and by arm, each figure over seeds, with `difference` from no bias modelling: over seeds, and over
      requests where the figure is one of ranking.
    """
    data = DATA[folder.name]
    curves = logged_examination(folder.parent, data)
    reference = curves[None]
    arms = {arm: [trained_arm(folder.parent, data, arm, seed) for seed in seeds] for arm in ARMS}
    split = _Split(folder.parent, data, arms[CONTROL][0].predictions, curves)
    result: dict[str, Any] = {
        "seeds": list(seeds),
        "impressions": len(split.clicks),
        "clicks": int(split.clicks.sum()),
        "reference": {
            "items": reference.num_items,
            "positions": reference.positions.tolist(),
            "values": reference.values.tolist(),
            "low": reference.low.tolist(),
            "high": reference.high.tolist(),
        },
        "effective_clicks": split.effective_clicks,
        "arms": {arm: _figures(split, reference, trained) for arm, trained in arms.items()},
    }
    sums = {arm: [split.gains(one.predictions, weighed=True) for one in trained] for arm, trained in arms.items()}
    for arm, figures in result["arms"].items():
        if arm == CONTROL:
            continue
        for name, entry in figures.items():
            control = result["arms"][CONTROL][name]["values"]
            entry["difference"] = over_seeds(np.subtract(entry["values"], control).tolist())
        both = (np.mean([one[0] for one in sums[name]], axis=0) for name in (arm, CONTROL))
        possible = sums[arm][0][1]
        ours, theirs = (gained / possible for gained in both)
        interval = metrics.bootstrap_interval(ours - theirs, 0, weights=possible, num_replicates=_REPLICATES)
        figures["ndcg_ips"]["difference_over_requests"] = dict(zip(("mean", "low", "high"), interval, strict=True))
    _say(result)
    return result


class _Split:
    """The test split: what was shown where, clicked or not, and how seldom its position is looked at.

    Attributes:
      clicks: [N].
      units: [N], what one item is within its context.
      propensities: [N], of the reference, of the impression's group where that has clicks enough.
      effective_clicks: that the clicks are worth when weighed.
    """

    def __init__(self, root: Path, data: str, predictions: Predictions, curves: dict[str | None, Examination]) -> None:
        self.clicks = predictions.labels["click"]
        self.positions = predictions.columns["position"]
        self.requests = np.unique(predictions.columns[REQUEST_ID], return_inverse=True)[1]
        log = logged_clicks(root, data)
        item, group = UNITS[data]
        keys = zip(log["request_id"], log[next(iter(_item_key(log)))].astype(str), strict=True)
        place = {key: row for row, key in enumerate(keys)}
        columns = (predictions.columns[REQUEST_ID], predictions.columns[ITEM_ID])
        rows = [place[request.decode(), one.decode()] for request, one in zip(*columns, strict=True)]
        assert np.array_equal(log["click"].to_numpy()[rows], self.clicks)
        self.items = log[item].to_numpy()[rows]
        self.groups = None if group is None else log[group].to_numpy()[rows]
        self.propensities = curves[None].at(self.positions)
        for name, curve in curves.items():
            if name is not None and curve.suffices:
                of_group = self.groups == name
                own = curve.on_scale_of(curves[None], self.positions[of_group])
                self.propensities[of_group] = np.where(np.isnan(own), self.propensities[of_group], own)
        self.propensities[self.propensities <= 0] = np.nan
        used = inverse_weights(self.propensities)[self.clicks == 1]
        self.effective_clicks = float(used.sum() ** 2 / (used**2).sum())

    def examination(self, outcomes: NDArray[np.float64]) -> Examination:
        """What a position does to an outcome of the same items."""
        return examination_of(natural_interventions(self.items, self.positions, outcomes, self.groups))

    def gains(self, predictions: Predictions, weighed: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """DCG of the ranking and of the best one, by request."""
        weights = inverse_weights(self.propensities) if weighed else np.ones(len(self.clicks))
        found = gains_by_request(self.clicks, predictions.predictions["click"], self.requests, weights, _K)
        return found.gained, found.possible


def _item_key(log: Any) -> list[str]:
    return [name for name in ("url_id", "hotel_id") if name in log]


def _figures(split: _Split, reference: Examination, trained: Sequence[Arm]) -> dict[str, Any]:
    figures: dict[str, list[float]] = {}
    curves: dict[str, list[Any]] = {"seen": [], "missing": []}
    for one in trained:
        missing = one.predictions.predictions["click"]
        seen = missing if one.predictions.seen is None else one.predictions.seen["click"]
        effects = {"seen": split.examination(seen), "missing": split.examination(missing)}
        for name, effect in effects.items():
            curves[name].append(effect.at(reference.positions))
        plain, weighed = (split.gains(one.predictions, weighed=weighed) for weighed in (False, True))
        row = {
            "position_effect": _distance(curves["seen"][-1], reference.values),
            "position_left": _distance(curves["missing"][-1], np.ones(len(reference.values))),
            "auc_within": metrics.auc_within(split.clicks, missing, split.positions).value,
            "ndcg": float(plain[0].sum() / plain[1].sum()),
            "ndcg_ips": float(weighed[0].sum() / weighed[1].sum()),
            "order_agreement": order_agreement(missing, split.positions, split.requests).value,
        }
        for name, value in row.items():
            figures.setdefault(name, []).append(value)
    result = {name: over_seeds(values) for name, values in figures.items()}
    # Over the items of the reference, the mean over seeds of the model's curve held fast.
    mean = np.exp(np.mean(np.log(curves["seen"]), axis=0))
    drawn = [_distance(mean, replicate) for replicate in reference.replicates if np.all(replicate > 0)]
    result["position_effect"]["over_items"] = np.quantile(drawn, [0.025, 0.975]).tolist()
    for name, values in curves.items():
        result["position_effect"][f"curve_{name}"] = np.exp(np.mean(np.log(values), axis=0)).tolist()
    return result


def _distance(curve: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Root mean square of the log ratio, over the positions after the first that both know."""
    known = (curve > 0) & (other > 0) & np.isfinite(curve) & np.isfinite(other)
    known[0] = False
    return float(np.sqrt(np.mean(np.square(np.log(curve[known] / other[known])))))


def _say(result: dict[str, Any]) -> None:
    print(f"\n{result['impressions']} impressions, {result['clicks']} clicks, weighed {result['effective_clicks']:.0f}")
    for arm, figures in result["arms"].items():
        print(arm)
        for name, entry in figures.items():
            difference = f", minus {CONTROL} {text(entry['difference'])}" if "difference" in entry else ""
            if "difference_over_requests" in entry:
                difference += f", over requests {text(entry['difference_over_requests'])}"
            print(f"  {name:16s} {text(entry)}{difference}")
