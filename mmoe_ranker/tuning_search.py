"""The search file of `mmoe-ranker tune`: which config keys vary and how, what is sought, and when a trial is given up.

    parameters:
      training.optimizer.learning_rate: {kind: float, low: 1.0e-4, high: 1.0e-2, log: true}
      model.sharing.experts: {kind: int, low: 2, high: 8}
      model.hidden: {kind: choice, values: [[64], [128, 64]]}
    directions: {click.auc: maximize, like.log_loss: minimize}
    pruning: {kind: median, startup_trials: 5, warmup_passes: 0}

A direction names a metric by its path in the evaluation report of the validation split: an objective and its metric, or
a path from the top, such as `combined_score.ndcg@10.click`. Several directions give the trade-offs between them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, model_validator

from mmoe_ranker.config_fields import Frozen
from mmoe_ranker.config_loading import parse_mapping, validated
from mmoe_ranker.errors import InputError

REASON = "reason"
"""A trial's user attribute that says why it failed."""


class _Range(Frozen):
    low: float
    high: float
    log: bool = False

    @model_validator(mode="after")
    def _rising(self) -> Any:
        if self.low >= self.high:
            raise ValueError(f"needs `low` below `high`||{self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"needs `low` above 0 where `log` is true||{self.low}")
        return self


class FloatParameter(_Range):
    """A number from `low` to `high`; with `log`, every factor between them is as likely as any other."""

    kind: Literal["float"]


class IntParameter(_Range):
    """A whole number from `low` to `high`, both included."""

    kind: Literal["int"]
    low: int
    high: int


class ChoiceParameter(Frozen):
    """One of some values, each as the config would take it."""

    kind: Literal["choice"]
    values: tuple[Any, ...] = Field(min_length=2)


class NoPruning(Frozen):
    """Every trial trains all of its passes."""

    kind: Literal["none"] = "none"


class MedianPruning(Frozen):
    """Gives a trial up after a pass whose metric is worse than the median of the earlier trials at that pass."""

    kind: Literal["median"]
    startup_trials: NonNegativeInt = 5
    warmup_passes: NonNegativeInt = 0


class Search(Frozen):
    """The whole search file."""

    parameters: dict[str, Annotated[FloatParameter | IntParameter | ChoiceParameter, Field(discriminator="kind")]] = (
        Field(min_length=1)
    )
    directions: dict[str, Literal["maximize", "minimize"]] = Field(min_length=1)
    pruning: Annotated[NoPruning | MedianPruning, Field(discriminator="kind")] = NoPruning()

    @model_validator(mode="after")
    def _pruning_has_one_metric(self) -> Search:
        if self.pruning.kind != "none" and len(self.directions) > 1:
            rule = "must be none where `directions` has several metrics, as Optuna prunes by one metric alone"
            raise ValueError(f"pruning.kind||{rule}||{self.pruning.kind!r}")
        return self


def load_search(file: Path) -> Search:
    """Reads a search file.

    Raises:
      InputError: the file is missing, is not YAML, or breaks a rule; a sentence as for the config.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InputError(f"The search must be a readable YAML file; {reason}. Received: {str(file)!r}.") from None
    return validated(Search, parse_mapping(text, f"The search `{file}`"), f"The search `{file}`")


def probes(search: Search) -> list[dict[str, Any]]:
    """Overrides at the ends of each range and at each choice, one key at a time: what no trial may be refused for."""
    found: list[dict[str, Any]] = []
    for key, parameter in search.parameters.items():
        values = parameter.values if isinstance(parameter, ChoiceParameter) else (parameter.low, parameter.high)
        found += [{key: value} for value in values]
    return found


def metric_at(report: Mapping[str, Any], path: str) -> float | None:
    """The metric of this path in an evaluation report, None where it is not defined.

    Raises:
      InputError: the path leads to no metric.
    """
    node: Any = report["objectives"] if path.split(".")[0] in report["objectives"] else report
    for part in path.split("."):
        if not isinstance(node, Mapping) or part not in node:
            allowed = ", ".join(_paths(report["objectives"]) + _paths(report["combined_score"], "combined_score."))
            raise InputError(f"A direction must name a metric of the report; allowed: {allowed}. Received: {path!r}.")
        node = node[part]
    if isinstance(node, Mapping) and "value" in node:
        node = node["value"]
    if isinstance(node, (Mapping, str, list)):
        allowed = ", ".join(_paths(node, f"{path}.")) if isinstance(node, Mapping) else "a number"
        raise InputError(f"A direction must name one metric; allowed: {allowed}. Received: {path!r}.")
    return None if node is None else float(node)


def _paths(node: Mapping[str, Any], prefix: str = "") -> list[str]:
    paths: list[str] = []
    for key, value in node.items():
        if isinstance(value, Mapping) and "value" not in value:
            paths += _paths(value, f"{prefix}{key}.")
        else:
            paths.append(f"{prefix}{key}")
    return paths
