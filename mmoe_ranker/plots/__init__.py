"""The paper's figures from one's own logs and models; each function returns a matplotlib figure.

They take reports and arrays, never a model, so that a figure can be drawn again from a saved file. Colours are those of
Okabe and Ito, which the colour-blind tell apart, and curves differ in their markers too.
"""

from mmoe_ranker.plots.experts import expert_history, expert_similarity, gate_utilisation
from mmoe_ranker.plots.position import (
    calibration_by_position,
    examination,
    learned_bias,
    learned_bias_over_seeds,
    rate_by_position,
)
from mmoe_ranker.plots.training import training_curves

__all__ = [
    "calibration_by_position",
    "examination",
    "expert_history",
    "expert_similarity",
    "gate_utilisation",
    "learned_bias",
    "learned_bias_over_seeds",
    "rate_by_position",
    "training_curves",
]
