"""From the config's objectives to their heads, and to the layer that makes one loss of theirs."""

from __future__ import annotations

from collections.abc import Mapping

from mmoe_ranker.config import Config
from mmoe_ranker.config_objectives import BinaryObjective
from mmoe_ranker.errors import InputError
from mmoe_ranker.layers import StaticWeights, UncertaintyWeights
from mmoe_ranker.objective_heads import BinaryHead, EntireSpaceHead, ObjectiveHead, RegressionHead, WeightedLogisticHead
from mmoe_ranker.statistics import LabelStatistics, Statistics


def objective_heads(config: Config, statistics: Statistics) -> dict[str, ObjectiveHead]:
    """A head an objective, by name, in config order.

    Raises:
      InputError: the statistics know nothing of an objective, or its labels do not suit its loss.
    """
    correction = config.sampling.correction if config.sampling is not None else None
    built: dict[str, ObjectiveHead] = {}
    for objective in config.objectives:
        label = _label_statistics(objective.name, statistics)
        if isinstance(objective, BinaryObjective):
            built[objective.name] = BinaryHead(objective, label, correction)
        elif objective.loss == "weighted_logistic":
            built[objective.name] = WeightedLogisticHead(objective, label)
        else:
            built[objective.name] = RegressionHead(objective, label)
    # Afterwards, because a condition may stand anywhere in the config.
    for objective in config.objectives:
        if isinstance(objective, BinaryObjective) and objective.space == "entire":
            parents = [built[name] for name in reversed(_conditions(config, objective))]
            label = _label_statistics(objective.name, statistics)
            built[objective.name] = EntireSpaceHead(objective, label, correction, parents)
    return built


def loss_weighting(config: Config, heads: Mapping[str, ObjectiveHead]) -> StaticWeights | UncertaintyWeights:
    """The layer that makes one loss of the objectives' (`training.loss_weighting`)."""
    weights = [head.loss_weight for head in heads.values()]
    if config.training.loss_weighting == "static":
        return StaticWeights(weights, name="loss_weighting")
    scales = [head.scale for head in heads.values()]
    return UncertaintyWeights(list(heads), weights, scales, name="loss_weighting")


def _label_statistics(name: str, statistics: Statistics) -> LabelStatistics:
    if name not in statistics.labels:
        raise InputError(
            f"The statistics of the examples must hold the objective `{name}`: build the examples with the config that "
            f"trains. Received: objectives {sorted(statistics.labels)}."
        )
    return statistics.labels[name]


def _conditions(config: Config, objective: BinaryObjective) -> list[str]:
    """All that an objective is given, its own condition first."""
    given = {other.name: other.given for other in config.objectives}
    names, name = [], objective.given
    while name is not None:
        names.append(name)
        name = given[name]
    return names
