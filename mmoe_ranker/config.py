"""The one config file, as frozen typed objects: features, objectives, model, training, combined score.

Pipeline, training, export, server and client all read it, so that a feature or an objective is named once. Each
section has a page of its own (`config_features`, `config_tables`, `config_objectives`, `config_model`,
`config_training`); reading files and overrides, and the sentences for mistakes, are in `config_loading`.

Terms: a feature's `side` is `context` (known once a request), `candidate` (known once an item) or `bias` (selection
bias: known in the logs, never served). An objective is labelled from one event of the feedback log.
"""

from __future__ import annotations

import datetime
from typing import Annotated

from pydantic import (
    AwareDatetime,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    field_validator,
    model_validator,
)

from mmoe_ranker.config_features import (
    CategoricalFeature,
    Feature,
    NumericFeature,
    SequenceFeature,
    VectorFeature,
)
from mmoe_ranker.config_fields import Fraction, Frozen, Name
from mmoe_ranker.config_model import Model
from mmoe_ranker.config_objectives import CombinedScore, Objective
from mmoe_ranker.config_tables import Table
from mmoe_ranker.config_training import Sampling, Training

# Names that examples, signatures and rankings use for themselves.
RESERVED_NAMES: tuple[str, ...] = (
    "request_id",
    "item_id",
    "timestamp",
    "timestamp_micros",
    "sampling_weight",
    "combined_score",
    "ranking",
    "gates",
    "shared",
    "score",
    "contributions",
    "score_weights",
    "event",
    "value",
)


class Split(Frozen):
    """Chronological split: by the times at which parts start, where given; else by shares of the requests.

    `by` names a categorical context feature and splits by a hash of it instead: all requests of a user, say, are in one
    split, and the shares are of users.
    """

    by: Name | None = None
    validation: Fraction = 0.1
    test: Fraction = 0.1
    validation_start: AwareDatetime | None = None
    test_start: AwareDatetime | None = None

    @field_validator("validation_start", "test_start", mode="before")
    @classmethod
    def _yaml_times_are_utc(cls, value: object) -> object:
        # YAML turns 2022-05-05T00:00:00Z into a datetime without a zone, already moved to UTC.
        if isinstance(value, datetime.datetime) and value.tzinfo is None:
            return value.replace(tzinfo=datetime.timezone.utc)
        return value

    @model_validator(mode="after")
    def _in_order(self) -> Split:
        if self.validation + self.test >= 1:
            raise ValueError(f"`validation` and `test` must leave a share for training||{self.validation + self.test}")
        if (self.validation_start is None) != (self.test_start is None):
            raise ValueError("needs both `validation_start` and `test_start`, or neither||one of them")
        if self.by is not None and self.validation_start is not None:
            raise ValueError(f"takes `by` only without `validation_start` and `test_start`||{self.by}")
        if self.validation_start and self.test_start and self.validation_start > self.test_start:
            raise ValueError(f"`validation_start` must not be after `test_start`||{self.validation_start}")
        return self


class Join(Frozen):
    """How feedback meets its impressions: an event up to `clock_skew` seconds before its impression still counts."""

    clock_skew: NonNegativeFloat = 0.0


class Bootstrap(Frozen):
    """How intervals are drawn: `by` is a request, or a categorical feature of side context; 0 `replicates`: none."""

    replicates: NonNegativeInt = 200
    by: Name = "request_id"
    level: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.95


class Evaluation(Frozen):
    """What `evaluate` groups and slices by, and how sure it is.

    Slices are of position and device, of every categorical feature of the bias tower, and of `slices`: categorical
    features by value, numeric ones in buckets of equal counts, sequences likewise by their length.
    """

    group_by: tuple[Name, ...] = ()
    slices: tuple[Name, ...] = ()
    ndcg_k: PositiveInt = 10
    bootstrap: Bootstrap = Bootstrap()


class Config(Frozen):
    """The whole config; every name in it refers to something in it."""

    name: Name
    item_key: Name
    features: tuple[Feature, ...] = Field(min_length=1)
    tables: tuple[Table, ...] = ()
    objectives: tuple[Objective, ...] = Field(min_length=1)
    model: Model = Model()
    training: Training = Training()
    sampling: Sampling | None = None
    combined_score: CombinedScore
    join: Join = Join()
    split: Split = Split()
    evaluation: Evaluation = Evaluation()

    @model_validator(mode="after")
    def _names_refer(self) -> Config:
        # Imported here because the checks take a Config; they are a page of their own.
        from mmoe_ranker.config_checks import check_references

        check_references(self)
        return self

    def feature(self, name: str) -> CategoricalFeature | NumericFeature | SequenceFeature | VectorFeature:
        """The feature called `name`."""
        return next(feature for feature in self.features if feature.name == name)

    def side(self, *sides: str) -> tuple[CategoricalFeature | NumericFeature | SequenceFeature | VectorFeature, ...]:
        """The features of these sides, in config order."""
        return tuple(feature for feature in self.features if feature.side in sides)

    def logged(self, *sides: str) -> tuple[CategoricalFeature | NumericFeature | SequenceFeature | VectorFeature, ...]:
        """The features of these sides that stand in the impressions log."""
        return tuple(feature for feature in self.side(*sides) if feature.is_logged)

    @property
    def served_features(self) -> tuple[CategoricalFeature | NumericFeature | SequenceFeature | VectorFeature, ...]:
        """The features a request carries: context and candidate, never bias."""
        return self.side("context", "candidate")

    @property
    def objective_names(self) -> tuple[str, ...]:
        """The objectives' names, in config order: the order of `score_weights`."""
        return tuple(objective.name for objective in self.objectives)
