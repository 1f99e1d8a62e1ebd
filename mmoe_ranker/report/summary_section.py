"""The top of the page: what was trained on what, headline figures, and what the rest comes to in sentences."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mmoe_ranker.config import Config
from mmoe_ranker.config_objectives import RegressionObjective
from mmoe_ranker.report.data_section import utc
from mmoe_ranker.report.document import Finding, Headline, Section, interval, listed, number, percent
from mmoe_ranker.report.metric_values import Metric, metrics_of

_CALIBRATED = 0.1
_STANDARD_ERRORS = 3.5  # of one slice among many


def summary_section(
    report: Mapping[str, Any] | None,
    config: Config,
    split: str,
    result: Mapping[str, Any],
    summary: Mapping[str, Any] | None,
    findings: Sequence[Finding],
) -> Section:
    """The section.

    Args:
      report: as `evaluation_metrics.evaluate` gives it; None where the split could not be evaluated.
      config: the config that trained.
      split: that was evaluated.
      result: of the training, from `training.json`.
      summary: of the examples, or None.
      findings: of the other sections.
    """
    if report is None:
        return Section("summary", "Summary", paragraphs=[_model(config, result)], findings=findings)
    return Section(
        "summary",
        "Summary",
        paragraphs=[_model(config, result), _period(report, split, summary)],
        headlines=_headlines(report, config),
        findings=[*metric_findings(report, config), *findings],
    )


def metric_findings(report: Mapping[str, Any], config: Config) -> list[Finding]:
    """What the metrics come to: what is told from chance, what is calibrated, which slice falls behind."""
    return [*_chance(report, config), *_calibration(report), *_weakest_slice(report), *_gates(report)]


def _model(config: Config, result: Mapping[str, Any]) -> str:
    sharing, bias = config.model.sharing, config.model.bias
    mixes = {
        "mmoe": lambda: f"{sharing.experts} experts mixed by a gate an objective",  # type: ignore[union-attr]
        "ple": lambda: f"{sharing.levels} levels of shared and own experts",  # type: ignore[union-attr]
        "shared_bottom": lambda: "one bottom that all objectives share",
    }[sharing.kind]()
    biases = {
        "shallow_tower": "a shallow tower that takes position bias out",
        "anchored": "a shallow tower anchored by requests in random order",
        "input_feature": "position as an input feature",
        "adversarial": "an adversary that keeps position out",
        "none": "no model of position bias",
    }[bias.kind]
    steps = result.get("steps")
    trained = f", trained for {number(steps)} steps" if steps else ""
    return f"{len(config.objectives)} objectives ({listed(config.objective_names)}), {mixes}, {biases}{trained}."


def _period(report: Mapping[str, Any], split: str, summary: Mapping[str, Any] | None) -> str:
    sizes = f"{number(report['impressions'])} impressions of {number(report['requests'])} requests"
    splits = (summary or {}).get("splits", {})
    if split not in splits or "train" not in splits or not splits[split].get("first_time"):
        return f"Evaluated on the {split} split: {sizes}."
    train, evaluated = splits["train"], splits[split]
    trained, tested = (f"{utc(one['first_time'])} to {utc(one['last_time'])}" for one in (train, evaluated))
    sentence = (
        f"Trained on {number(train['examples'])} impressions from {trained}; evaluated on the {split} split, {sizes} "
        f"from {tested} (UTC)."
    )
    # Dates do not break.
    return re.sub(r"(\d{4})-(\d\d)-(\d\d) (\d\d:)", "\\1\u2011\\2\u2011\\3\u00a0\\4", sentence)


def _headlines(report: Mapping[str, Any], config: Config) -> list[Headline]:
    found = []
    for objective in config.objectives:
        metrics = _by_path(report, objective.name)
        wanted = ("xauc", "rmse") if isinstance(objective, RegressionObjective) else ("auc",)
        metric = next((metrics[(key,)] for key in wanted if (key,) in metrics), None)
        if metric is not None:
            found.append(
                Headline(
                    f"{metric.title} of {objective.name}",
                    number(metric.value, 3),
                    interval(metric.low, metric.high, 3) if metric.low is not None else "",
                )
            )
    return found


def _chance(report: Mapping[str, Any], config: Config) -> list[Finding]:
    found, told = [], []
    for objective in config.objectives:
        path = ("xauc",) if isinstance(objective, RegressionObjective) else ("auc",)
        metric = _by_path(report, objective.name).get(path, Metric(path, None))
        if metric.value is None:
            found.append(Finding(f"{objective.name} has no {metric.title}: {_labels(report, objective.name)}.", True))
        elif metric.low is None and metric.value > 0.5:
            continue  # Without an interval, nothing tells it from chance.
        elif metric.low is not None and metric.low > 0.5:
            told.append(objective.name)
        else:
            ends = f" ({interval(metric.low, metric.high, 3)})" if metric.low is not None else ""
            found.append(
                Finding(
                    f"The order of {objective.name} cannot be told from chance: "
                    f"{metric.title} {number(metric.value, 3)}{ends}.",
                    True,
                )
            )
    if told:
        found.insert(0, Finding(f"{listed(told)} {'is' if len(told) == 1 else 'are'} ordered better than by chance."))
    return found


def _labels(report: Mapping[str, Any], name: str) -> str:
    objective = report["objectives"].get(name, {})
    labelled, mean = objective.get("labelled"), objective.get("mean_label")
    if not labelled:
        return "no impression has its label"
    return f"its {number(labelled)} labels have mean {number(mean)}"


def _calibration(report: Mapping[str, Any]) -> list[Finding]:
    ratios = {
        name: objective["calibration"]
        for name, objective in report["objectives"].items()
        if objective.get("calibration") is not None
    }
    good = [name for name, ratio in ratios.items() if abs(ratio - 1) <= _CALIBRATED]
    off = [f"{name} ({number(ratio, 2)})" for name, ratio in ratios.items() if name not in good]
    found = []
    if good:
        found.append(Finding(f"Predicted and observed rates of {listed(good)} agree within {percent(_CALIBRATED, 0)}."))
    if off:
        found.append(Finding(f"Predicted rates are off for {listed(off)}: predicted over observed, 1 is right.", True))
    return found


def _weakest_slice(report: Mapping[str, Any]) -> list[Finding]:
    """The slice whose AUC falls furthest below the objective's own, of those where that is no chance."""
    furthest: tuple[float, str] | None = None
    for feature, values in report.get("slices", {}).items():
        for value, objectives in values.items():
            for name, objective in objectives.items():
                whole, auc = report["objectives"].get(name, {}).get("auc"), objective.get("auc")
                if whole is None or auc is None or whole - auc <= _surprising(objective, whole):
                    continue
                if furthest is None or whole - auc > furthest[0]:
                    sentence = (
                        f"The slice that falls furthest behind is {feature} = {value}: AUC of {name} {number(auc, 3)} "
                        f"against {number(whole, 3)} over all, on {number(objective['impressions'])} impressions."
                    )
                    furthest = whole - auc, sentence
    return [Finding(furthest[1], True)] if furthest is not None else []


def _surprising(objective: Mapping[str, Any], auc: float) -> float:
    """How far a slice's AUC may fall below the whole's by chance; its variance is at most auc (1 - auc) / min(P, N)."""
    positives = objective["labelled"] * objective["mean_label"]
    fewer = min(positives, objective["labelled"] - positives)
    return _STANDARD_ERRORS * math.sqrt(auc * (1 - auc) / fewer)


def _gates(report: Mapping[str, Any]) -> list[Finding]:
    gates = report.get("gates")
    if gates is None:
        return []
    experts = len(next(iter(gates["objectives"].values()))["utilisation"])
    polarised = [name for name, gate in gates["objectives"].items() if gate["polarised"] > 0.5]
    found = []
    if gates["dead_experts"]:
        found.append(Finding(f"{gates['dead_experts']} of {experts} experts are dead.", True))
    if polarised:
        found.append(Finding(f"The gates of {listed(polarised)} give most impressions to a single expert.", True))
    if not found:
        found.append(Finding(f"All {experts} experts are used, and no gate is polarised."))
    return found


def _by_path(report: Mapping[str, Any], name: str) -> dict[tuple[str, ...], Metric]:
    bounds = (report.get("intervals") or {}).get("objectives", {}).get(name)
    return {metric.path: metric for metric in metrics_of(report["objectives"].get(name, {}), bounds)}
