"""The layers of the ranker, one idea a file; they take plain arguments and know no config, so they stand alone."""

from mmoe_ranker.layers.attention import AttentionPooling
from mmoe_ranker.layers.dense import ParallelDense, dense_stack
from mmoe_ranker.layers.expert_health import ExpertHealth, SilentExperts
from mmoe_ranker.layers.experts import MixtureOfExperts, drop_experts
from mmoe_ranker.layers.gradient_reversal import reverse_gradient
from mmoe_ranker.layers.inputs import NumericInput, QuantileEmbedding, masked_mean
from mmoe_ranker.layers.loss_weighting import StaticWeights, UncertaintyWeights
from mmoe_ranker.layers.online_logistic import OnlineLogistic
from mmoe_ranker.layers.oov_dropout import OovDropout
from mmoe_ranker.layers.ple import ExtractionLevel, ProgressiveLayeredExtraction
from mmoe_ranker.layers.rows import HashRows, IntegerRows, VocabularyRows
from mmoe_ranker.layers.shallow_tower import MISSING, ShallowTower, drop_features
from mmoe_ranker.layers.shared_bottom import SharedBottom

__all__ = [
    "AttentionPooling",
    "ExpertHealth",
    "ExtractionLevel",
    "HashRows",
    "IntegerRows",
    "MISSING",
    "MixtureOfExperts",
    "NumericInput",
    "OnlineLogistic",
    "OovDropout",
    "ParallelDense",
    "ProgressiveLayeredExtraction",
    "QuantileEmbedding",
    "ShallowTower",
    "SharedBottom",
    "SilentExperts",
    "StaticWeights",
    "UncertaintyWeights",
    "VocabularyRows",
    "dense_stack",
    "drop_experts",
    "drop_features",
    "masked_mean",
    "reverse_gradient",
]
