"""Two trained rankers on the same impressions: differences with paired intervals, and a verdict an objective.

The difference is always the second run less the first. Both are drawn together in the bootstrap, which takes out what
they owe to the draw; the unit is what `evaluation.bootstrap.by` of the first run names, a request by default. A verdict
rests on one metric an objective, chosen before looking:

* binary: AUC within requests, because a ranker orders the candidates of one request, and what an order across requests
  is worth nobody sees; the AUC of all impressions where no request has both classes;
* regression: MAE where it trains on logarithms, whose prediction is nearer to a median than to a mean; else RMSE.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Container, Mapping, Sequence
from statistics import NormalDist

import numpy as np

from mmoe_ranker import metrics
from mmoe_ranker.combined_score import CombinedScore
from mmoe_ranker.config import Config
from mmoe_ranker.config_objectives import Objective
from mmoe_ranker.errors import InputError
from mmoe_ranker.evaluation_metrics import paired_differences
from mmoe_ranker.evaluation_rows import EvaluationRows
from mmoe_ranker.examples import REQUEST_ID
from mmoe_ranker.metrics import PairedDifference
from mmoe_ranker.metrics.bootstrap import Path
from mmoe_ranker.pairing import CommonGround, Pairing, common_ground
from mmoe_ranker.saved_evaluation import SavedEvaluation

BETTER, WORSE, SAME, NOT_JUDGED = "better", "worse", "no difference seen", "not judged"

HIGHER_IS_BETTER = {
    **dict.fromkeys(("auc", "pr_auc", "group_auc", "auc_within", "ndcg", "mrr", "recall"), True),
    **dict.fromkeys(("log_loss", "normalized_entropy", "rmse", "mae"), False),
}
"""Metrics that a verdict may rest on: the calibration ratio has no better and worse, its error no interval."""

LEAST_LABELS = 20
"""A slice of fewer labels (of either class) is not tried: a handful look surer of themselves than they are."""

_NOT_DEFINED = PairedDifference(math.nan, math.nan, math.nan, math.nan, math.nan)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the comparison says of an objective.

    Attributes:
        verdict: Of the second run: `BETTER`, `WORSE`, `SAME` (the interval holds 0) or `NOT_JUDGED`.
        metric: That it rests on, as a path below the objective, such as "group_auc.request_id".
        difference: Of that metric.
        reason: Why it was not judged, else "".
    """

    verdict: str
    metric: str
    difference: PairedDifference
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class SliceMove:
    """What an objective's metric does within one value of a slice.

    Attributes:
        feature: Of the slice.
        value: Of the feature, as text.
        objective: Whose metric it is.
        metric: Its name.
        difference: Of it.
        p_value: Of no difference, two-sided, from the width of the interval as of a normal distribution.
        adjusted: The p-value by Holm's method over all values of all slices: below 1 - level, it moved.
        verdict: `BETTER`, `WORSE` or `SAME`, by the adjusted one.
    """

    feature: str
    value: str
    objective: str
    metric: str
    difference: PairedDifference
    p_value: float
    adjusted: float
    verdict: str


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A second run held against a first.

    Attributes:
        first: The one.
        second: The other.
        pairing: The impressions of both.
        requests: Of the impressions compared.
        level: Of the intervals.
        differences: By path in the report of `evaluation_metrics`, for all objectives in common.
        verdicts: By objective in common.
        slices: Those of `LEAST_LABELS` and more, the surest move first.
        notes: Sentences on what could not be compared, or not as it is.
    """

    first: SavedEvaluation
    second: SavedEvaluation
    pairing: Pairing
    requests: int
    level: float
    differences: dict[Path, PairedDifference]
    verdicts: dict[str, Verdict]
    slices: tuple[SliceMove, ...]
    notes: tuple[str, ...]


def compare(
    first: SavedEvaluation,
    second: SavedEvaluation,
    level: float = 0.95,
    judge_by: Mapping[str, str] | None = None,
    common: bool = False,
) -> Comparison:
    """Compares two evaluations of the same impressions.

    Args:
        first: The one.
        second: The other; its configuration may differ.
        level: Coverage of the intervals, and the level of the verdicts.
        judge_by: By objective, the metric of its verdict where it is not the usual one, as in `Verdict.metric`.
        common: Where some impressions are in one evaluation alone, compare the others, rather than refuse.

    Returns:
        The comparison; the same for the same evaluations.

    Raises:
        InputError: the impressions or the objectives of the runs have nothing in common, impressions differ without
            `common`, or `judge_by` names what there is not.
    """
    ground = common_ground(first, second, common)
    config = _with_level(ground.config, level)
    judge_by = judge_by or {}
    if unknown := [name for name in judge_by if name not in config.objective_names]:
        allowed = ", ".join(config.objective_names)
        raise InputError(f"A verdict must be on an objective of both runs, {allowed}. Received: {unknown[0]!r}.")
    scores = [
        CombinedScore.from_terms(own.objective_names, own.combined_score.form, own.combined_score.terms)
        for own in (first.config, second.config)
    ]
    differences, missing = paired_differences(ground.first, ground.second, config, scores)
    # Of an order by each run's own score, NDCG says enough.
    of_score = f"ndcg@{config.evaluation.ndcg_k}"
    differences = {
        path: found for path, found in differences.items() if path[0] != "combined_score" or path[1] == of_score
    }
    notes = [*ground.notes, *missing]
    if scores[0] != scores[1]:
        notes.append("The combined scores of the runs differ in terms or weights: each run is ranked by its own.")
    metric_of = _metrics_of_verdicts(config, differences, judge_by)
    return Comparison(
        first=first,
        second=second,
        pairing=ground.pairing,
        requests=len(np.unique(metrics.group_codes(ground.first.columns[REQUEST_ID]))),
        level=level,
        differences=differences,
        verdicts={name: _verdict(name, metric, differences, notes) for name, metric in metric_of.items()},
        slices=_slice_moves(config.objectives, differences, metric_of, _large_slices(ground, config), level),
        notes=tuple(notes),
    )


def is_better(metric: str, value: float) -> bool | None:
    """Whether a difference of a metric is for the better; None for a metric that has no better, and for 0.

    Args:
        metric: Its name, such as "ndcg@10", "auc" or "group_auc.request_id".
        value: The difference.
    """
    higher = HIGHER_IS_BETTER.get(metric.split(".")[0].split("@")[0])
    return None if higher is None or not value else (value > 0) == higher


def _with_level(config: Config, level: float) -> Config:
    drawn = config.evaluation.bootstrap
    replicates = metrics.replicates_for(level, drawn.replicates)
    bootstrap = drawn.model_copy(update={"level": level, "replicates": replicates})
    return config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"bootstrap": bootstrap})})


def _metrics_of_verdicts(
    config: Config, differences: Mapping[Path, PairedDifference], judge_by: Mapping[str, str]
) -> dict[str, str]:
    usual = {objective.name: _usual_metric(objective, differences) for objective in config.objectives}
    for name, metric in judge_by.items():
        there = [".".join(path[2:]) for path in differences if path[:2] == ("objectives", name)]
        allowed = [one for one in there if is_better(one, 1.0) is not None]
        if metric not in allowed:
            raise InputError(
                f"The verdict on `{name}` must rest on one of {', '.join(allowed) or 'none'}. Received: {metric!r}."
            )
    return usual | dict(judge_by)


def _usual_metric(objective: Objective, differences: Mapping[Path, PairedDifference]) -> str:
    if objective.kind == "regression":
        return "mae" if objective.transform == "log1p" else "rmse"
    within = differences.get(("objectives", objective.name, "group_auc", REQUEST_ID), _NOT_DEFINED)
    return "auc" if math.isnan(within.low) else f"group_auc.{REQUEST_ID}"


def _verdict(name: str, metric: str, differences: Mapping[Path, PairedDifference], notes: Sequence[str]) -> Verdict:
    found = differences.get(("objectives", name, *metric.split(".")), _NOT_DEFINED)
    if not math.isnan(found.low):
        better = is_better(metric, found.difference) if found.low > 0 or found.high < 0 else None
        return Verdict(SAME if better is None else BETTER if better else WORSE, metric, found)
    why = [note for note in notes if f"`{name}` has" in note] or ["There are too few impressions for an interval."]
    return Verdict(NOT_JUDGED, metric, found, " ".join(why))


def _large_slices(ground: CommonGround, config: Config) -> set[tuple[str, str, str]]:
    """Feature, value and objective of the slices that have enough labels, of a binary objective enough of each."""
    large = set()
    for feature, sliced in EvaluationRows(ground.first, config).slices.items():
        for objective in config.objectives:
            labels = ground.first.labels[objective.name]
            kinds = [labels == 0, labels == 1] if objective.kind == "binary" else [~np.isnan(labels)]
            fewest = np.min([np.bincount(sliced.codes[kind], minlength=len(sliced.texts)) for kind in kinds], axis=0)
            large |= {(feature, sliced.texts[code], objective.name) for code in np.flatnonzero(fewest >= LEAST_LABELS)}
    return large


def _slice_moves(
    objectives: Sequence[Objective],
    differences: Mapping[Path, PairedDifference],
    metric_of: Mapping[str, str],
    large: Container[tuple[str, str, str]],
    level: float,
) -> tuple[SliceMove, ...]:
    """The metric of each objective in each value: that of its verdict, or AUC where that is of whole requests."""
    kinds = {objective.name: objective.kind for objective in objectives}
    found = []
    for path, difference in differences.items():
        if path[0] != "slices" or path[1:4] not in large or math.isnan(difference.low):
            continue
        _, feature, value, name, metric = path
        usual = "auc" if kinds[name] == "binary" else metric_of[name]
        wanted = metric_of[name] if (*path[:4], metric_of[name]) in differences else usual
        if metric == wanted:
            found.append((feature, value, name, metric, difference, _p_value(difference, level)))
    found.sort(key=lambda one: one[-1])
    moves, adjusted = [], 0.0
    for rank, (feature, value, name, metric, difference, p_value) in enumerate(found):
        adjusted = min(1.0, max(adjusted, p_value * (len(found) - rank)))
        better = is_better(metric, difference.difference) if adjusted < 1 - level else None
        verdict = SAME if better is None else BETTER if better else WORSE
        moves.append(SliceMove(feature, value, name, metric, difference, p_value, adjusted, verdict))
    return tuple(moves)


def _p_value(difference: PairedDifference, level: float) -> float:
    error = (difference.high - difference.low) / (2 * NormalDist().inv_cdf((1 + level) / 2))
    if not error:
        return 0.0 if difference.difference else 1.0
    return math.erfc(abs(difference.difference) / error / math.sqrt(2))
