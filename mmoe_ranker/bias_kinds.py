"""Which class models the selection bias: the choice that `model.bias.kind` makes."""

from __future__ import annotations

from collections.abc import Mapping

from mmoe_ranker.anchored_bias import AnchoredBias
from mmoe_ranker.config import Config
from mmoe_ranker.config_model import Adversarial, Anchored, InputFeature, ShallowTower
from mmoe_ranker.features import FeatureRows
from mmoe_ranker.selection_bias import AdversarialBias, InputFeatureBias, SelectionBias, ShallowTowerBias


def selection_bias(config: Config, rows: FeatureRows, initial_logits: Mapping[str, float]) -> SelectionBias:
    """Builds the kind that `model.bias` names.

    Args:
      config: the whole config; the bias features are described among its features.
      rows: give the tables their sizes.
      initial_logits: of each objective, where training starts.
    """
    bias = config.model.bias
    if isinstance(bias, Anchored):
        return AnchoredBias(config, bias, rows, initial_logits, name="bias")
    if isinstance(bias, ShallowTower):
        return ShallowTowerBias(config, bias, rows, name="bias")
    if isinstance(bias, InputFeature):
        return InputFeatureBias(config, bias, rows, name="bias")
    if isinstance(bias, Adversarial):
        return AdversarialBias(bias, rows, name="bias")
    return SelectionBias(name="bias")
