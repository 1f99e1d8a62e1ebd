"""Section `model`: the shape of the ranker. Each choice is one key, and a layer of its own behind it."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, PositiveFloat, PositiveInt

from mmoe_ranker.config_fields import Fraction, Frozen, Name


class MMoE(Frozen):
    """Experts shared by all objectives, mixed by one softmax gate an objective (eq. 1 and 2)."""

    kind: Literal["mmoe"] = "mmoe"
    experts: PositiveInt = 8
    units: tuple[PositiveInt, ...] = Field(default=(128,), min_length=1)
    gate_dropout: Fraction = 0.1


class SharedBottom(Frozen):
    """One bottom of `units` shared by all objectives: the paper's baseline."""

    kind: Literal["shared_bottom"]
    units: tuple[PositiveInt, ...] = Field(min_length=1)


class ProgressiveLayeredExtraction(Frozen):
    """Levels of experts shared by all objectives and experts of each objective's own (Tang et al. 2020)."""

    kind: Literal["ple"]
    levels: PositiveInt = 1
    shared_experts: PositiveInt = 4
    objective_experts: PositiveInt = 1
    units: tuple[PositiveInt, ...] = Field(default=(128,), min_length=1)
    gate_dropout: Fraction = 0.1


Sharing: TypeAlias = Annotated[MMoE | SharedBottom | ProgressiveLayeredExtraction, Field(discriminator="kind")]


class AdditiveTower(Frozen):
    """A logit from `features` and their crosses, added to that of the main tower, for `objectives`."""

    features: tuple[Name, ...] = Field(min_length=1)
    cross: tuple[Annotated[tuple[Name, ...], Field(min_length=2)], ...] = ()
    dropout: Fraction = 0.1
    objectives: tuple[Name, ...] = Field(min_length=1)


class ShallowTower(AdditiveTower):
    """Selection bias as an additive logit from `features` and their crosses, for `objectives` (sec. 4.4, fig. 3)."""

    kind: Literal["shallow_tower"]


class Anchored(AdditiveTower):
    """A shallow tower and a second reading of the log without it, weighed by what requests in random order bear out.

    `random_order` names the feature that flags them by the value `true`. A flag is strongly advised: without one the
    log does not tell which reading is right, and half of each is served, by convention.
    """

    kind: Literal["anchored"]
    random_order: Name | None = None


class InputFeature(Frozen):
    """The bias features as inputs of the main tower, missing at serving: a baseline of the paper's table 2."""

    kind: Literal["input_feature"]
    features: tuple[Name, ...] = Field(min_length=1)
    dropout: Fraction = 0.1


class Adversarial(Frozen):
    """The shared hidden layer must not tell the bias features, by gradient reversal: the other one of table 2.

    `units` are hidden layers of the adversary, `weight` is that of its reversed gradient.
    """

    kind: Literal["adversarial"]
    features: tuple[Name, ...] = Field(min_length=1)
    units: tuple[PositiveInt, ...] = ()
    weight: PositiveFloat = 0.1


class NoBias(Frozen):
    """No bias modelling: the paper's other baseline."""

    kind: Literal["none"] = "none"


Bias: TypeAlias = Annotated[ShallowTower | Anchored | InputFeature | Adversarial | NoBias, Field(discriminator="kind")]


class Crosses(Frozen):
    """Feature crosses before the hidden layers: DCN-V2, each cross of rank `projection`, full rank without it."""

    layers: PositiveInt
    projection: PositiveInt | None = None


class Model(Frozen):
    """Crosses if any, shared hidden layers, sharing, a tower an objective, and the bias tower."""

    crosses: Crosses | None = None
    hidden: tuple[PositiveInt, ...] = (256,)
    sharing: Sharing = MMoE()
    tower: tuple[PositiveInt, ...] = (64,)
    dropout: Fraction = 0.0
    bias: Bias = NoBias()
