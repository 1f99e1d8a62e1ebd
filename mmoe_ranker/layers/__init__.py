"""The layers of the ranker, one idea a file; they take plain arguments and know no config, so they stand alone."""

from mmoe_ranker.layers.dense import ParallelDense, dense_stack
from mmoe_ranker.layers.experts import MixtureOfExperts, drop_experts
from mmoe_ranker.layers.inputs import NumericInput, QuantileEmbedding, masked_mean
from mmoe_ranker.layers.rows import HashRows, IntegerRows, VocabularyRows
from mmoe_ranker.layers.shallow_tower import MISSING, ShallowTower

__all__ = [
    "HashRows",
    "IntegerRows",
    "MISSING",
    "MixtureOfExperts",
    "NumericInput",
    "ParallelDense",
    "QuantileEmbedding",
    "ShallowTower",
    "VocabularyRows",
    "dense_stack",
    "drop_experts",
    "masked_mean",
]
