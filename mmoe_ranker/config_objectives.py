"""Sections `objectives` and `combined_score`: what is predicted, and how predictions become one score."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from mmoe_ranker.config_fields import Frozen, Name


class _Objective(Frozen):
    """Each has an `event` that labels it, at most `window` seconds after its impression (null: no limit)."""

    name: Name
    family: Literal["engagement", "satisfaction"]
    event: str = Field(min_length=1)
    window: PositiveFloat | None = None
    given: Name | None = None
    loss_weight: NonNegativeFloat = 1.0


class BinaryObjective(_Objective):
    """1 where the impression has the event, else 0; cross entropy.

    `at_least` asks more of the event: 1 where the value of `any` of the impression's events, of the `first` or the
    `last`, or the `sum` of them, is that much.

    `space: entire`, with `given`: the loss is that of the product with the probability of what is given, over all
    impressions (ESMM, Ma et al. 2018), and the prediction stays the conditional probability.
    """

    kind: Literal["binary"]
    space: Literal["conditional", "entire"] = "conditional"
    aggregate: Literal["any", "first", "last", "sum"] = "any"
    at_least: float | None = None

    @model_validator(mode="after")
    def _aggregate_of_values(self) -> BinaryObjective:
        if self.aggregate != "any" and self.at_least is None:
            raise ValueError(f"takes `aggregate: {self.aggregate}` only with `at_least`||{self.aggregate}")
        return self

    @model_validator(mode="after")
    def _entire_space_of_something(self) -> BinaryObjective:
        if self.space == "entire" and self.given is None:
            raise ValueError(f"takes `space: entire` only with `given`||{self.space}")
        return self


class RegressionObjective(_Objective):
    """The `sum` of the values of the impression's events, or the `first` or `last`; `loss` on the `transform`ed value.

    `weighted_logistic` is the watch-time-weighted logistic regression of Covington et al. 2016.

    Where there is no such event the label is missing, because a missing label is not a 0; `without_event: zero` says
    that for this event no record does mean 0.
    """

    kind: Literal["regression"]
    transform: Literal["none", "log1p"] = "none"
    loss: Literal["squared_error", "huber", "weighted_logistic"] = "squared_error"
    without_event: Literal["missing", "zero"] = "missing"
    aggregate: Literal["sum", "first", "last"] = "sum"

    @model_validator(mode="after")
    def _logistic_of_seconds(self) -> RegressionObjective:
        if self.loss == "weighted_logistic" and self.transform != "none":
            raise ValueError(f"takes `loss: weighted_logistic` only with `transform: none`||{self.transform}")
        return self


Objective: TypeAlias = Annotated[BinaryObjective | RegressionObjective, Field(discriminator="kind")]


class Term(Frozen):
    """One factor (p + offset) ^ weight of the product, or one summand weight * (p + offset) of the sum.

    `complement` puts 1 - p for p.
    """

    weight: float
    offset: float = 0.0
    complement: bool = False

    @model_validator(mode="after")
    def _one_sign(self) -> Term:
        if self.complement and self.weight < 0:
            raise ValueError(f"`weight` must be at least 0 where `complement` is true||{self.weight}")
        return self


class CombinedScore(Frozen):
    """How predictions become one score (sec. 4.2); an objective without a term weighs 0 unless a request says so."""

    form: Literal["weighted_product", "weighted_sum"] = "weighted_product"
    terms: dict[Name, Term] = Field(min_length=1)
