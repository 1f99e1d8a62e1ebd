"""What objectives share under their towers: the layer behind `model.sharing`.

Each takes the shared hidden layer [B, H] and returns `(towers, gates)`: the input of the towers, [B, T, U] or [B, U]
where it is the same for all objectives, and the gates [B, T, E], or None where there are none.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from mmoe_ranker.config_model import MMoE, Model
from mmoe_ranker.config_model import ProgressiveLayeredExtraction as Extraction
from mmoe_ranker.layers import ExpertHealth, MixtureOfExperts, ProgressiveLayeredExtraction, SharedBottom


def sharing_layer(model: Model, num_objectives: int, seed: int) -> tf.keras.layers.Layer:
    """Builds the layer that `model.sharing` names.

    Args:
      model: section `model` of the config.
      num_objectives: T.
      seed: of the gate dropout.
    """
    sharing = model.sharing
    if isinstance(sharing, MMoE):
        return MixtureOfExperts(
            sharing.experts, sharing.units, num_objectives, sharing.gate_dropout, seed=seed, name="experts"
        )
    if isinstance(sharing, Extraction):
        return ProgressiveLayeredExtraction(
            sharing.levels,
            sharing.shared_experts,
            sharing.objective_experts,
            sharing.units,
            num_objectives,
            sharing.gate_dropout,
            seed=seed,
            name="extraction",
        )
    return SharedBottom(sharing.units, model.dropout, name="shared_bottom")


def expert_health(model: Model, objectives: Sequence[str]) -> ExpertHealth | None:
    """The metric of the gates that `model.sharing` has, if it has any.

    Args:
      model: section `model` of the config.
      objectives: their names, in the order of the gates.
    """
    sharing = model.sharing
    if isinstance(sharing, MMoE):
        return ExpertHealth(objectives, sharing.experts)
    if isinstance(sharing, Extraction):
        own = sharing.objective_experts
        return ExpertHealth(objectives, own + sharing.shared_experts, own_experts=own)
    return None
