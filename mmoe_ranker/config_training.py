"""Sections `training` and `sampling`: how the ranker is fitted, and to which share of the log."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from mmoe_ranker.config_fields import Frozen, Name


class Optimizer(Frozen):
    """An optimiser by name and learning rate."""

    name: Literal["adagrad", "adam", "sgd"]
    learning_rate: PositiveFloat


class EarlyStopping(Frozen):
    """Stops when the validation loss after a pass has not fallen by `min_delta` for `patience` passes."""

    patience: PositiveInt = 1
    min_delta: NonNegativeFloat = 0.0


class Distribution(Frozen):
    """Which of TensorFlow's strategies trains in step: on one device, those of a machine, or those of several."""

    kind: Literal["none", "mirrored", "multi_worker"] = "none"


class ParameterServers(Frozen):
    """Weights on parameter servers, a table cut over them into shards of at least `min_shard_bytes`."""

    kind: Literal["parameter_server"]
    # Smaller shards would cut the states of random generators, which TensorFlow refuses.
    min_shard_bytes: Annotated[int, Field(ge=1024)] = 256 << 10


class Training(Frozen):
    """Chronological passes over the training split; embeddings by a sparse optimiser, the rest by dense ones.

    `bias_optimizer` moves the shallow tower, by default as `optimizer` does. A faster one makes its curve steeper, and
    may let it take what position and relevance both explain.
    `loss_weighting: uncertainty` learns the objectives' weights (Kendall et al. 2018). `sample_weight` names a numeric
    feature of side bias, at least 0: the weight of the impression in every loss, relative to its mean in the batch; an
    impression without a value weighs 1. `precision` and `xla` are for devices that gain
    from them.
    """

    epochs: PositiveInt = 1
    batch_size: PositiveInt = 1024
    shuffle_window: PositiveInt = 50_000
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1
    checkpoint_steps: PositiveInt = 500
    embedding_optimizer: Optimizer = Optimizer(name="adagrad", learning_rate=0.05)
    optimizer: Optimizer = Optimizer(name="adam", learning_rate=0.001)
    bias_optimizer: Optimizer | None = None
    loss_weighting: Literal["static", "uncertainty"] = "static"
    sample_weight: Name | None = None
    early_stopping: EarlyStopping | None = None
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    xla: bool = False
    distribution: Annotated[Distribution | ParameterServers, Field(discriminator="kind")] = Distribution()


class Sampling(Frozen):
    """The pipeline keeps the share `negatives` of the training impressions that have no event of any objective.

    `correction: export` trains on what is kept and shifts the served logits; `weights` trains with weights 1 / share.
    """

    negatives: Annotated[float, Field(gt=0.0, lt=1.0)]
    correction: Literal["export", "weights"] = "export"
