"""The one config file, as frozen typed objects: features, objectives, model, training, combined score.

Pipeline, training, export, server and client all read it, so that a feature or an objective is named once. Reading
files and overrides, and the sentences for mistakes, are in `config_loading`.

Terms: a feature's `side` is `context` (known once a request), `candidate` (known once an item) or `bias` (selection
bias: known in the logs, never served). An objective is labelled from one event of the feedback log.
"""

from __future__ import annotations

import datetime
from typing import Annotated, Literal, TypeAlias

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

Name: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
Fraction: TypeAlias = Annotated[float, Field(ge=0.0, lt=1.0)]

# Names that examples, signatures and rankings use for themselves.
RESERVED_NAMES: tuple[str, ...] = (
    "request_id",
    "item_id",
    "timestamp",
    "timestamp_micros",
    "combined_score",
    "ranking",
    "gates",
    "score",
    "score_weights",
    "event",
    "value",
)


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


class _Feature(_Frozen):
    name: Name
    side: Literal["context", "candidate", "bias"]


class _Categories(_Frozen):
    """How values become rows of an embedding table.

    By `vocabulary` (`auto`: counted on the training split), by hashing into `buckets`, or as integers from 0 to `size`
    (inclusive, because positions start at 1).
    """

    vocabulary: Literal["auto"] | tuple[str, ...] | None = None
    min_count: PositiveInt = 1
    oov_buckets: PositiveInt = 1
    buckets: PositiveInt | None = None
    size: PositiveInt | None = None
    dim: PositiveInt | None = None

    @property
    def is_integer(self) -> bool:
        """Whether values are integers from 0 to `size` rather than strings."""
        return self.size is not None

    @field_validator("vocabulary")
    @classmethod
    def _distinct_values(cls, value: object) -> object:
        if isinstance(value, tuple) and (not value or len(set(value)) != len(value) or "" in value):
            raise ValueError(f"must hold at least one value, each once, none empty||{list(value)}")
        return value

    def _chosen(self) -> list[str]:
        return [key for key in ("vocabulary", "buckets", "size") if getattr(self, key) is not None]


class CategoricalFeature(_Feature, _Categories):
    """One category: an embedding of `dim` in the main tower; a column of the shallow tower where `bias` names it."""

    kind: Literal["categorical"]

    @model_validator(mode="after")
    def _one_way_to_rows(self) -> CategoricalFeature:
        chosen = self._chosen()
        if len(chosen) != 1:
            raise ValueError(f"needs exactly one of `vocabulary`, `buckets`, `size`||{chosen}")
        if self.vocabulary is None and (self.min_count != 1 or self.oov_buckets != 1):
            raise ValueError("takes `min_count` and `oov_buckets` only with `vocabulary`||" + chosen[0])
        return self


class NumericFeature(_Feature):
    """One number. `transform` comes first, then (x - mean) / std with the statistics of the training split.

    `quantiles` adds, beside the number, an embedding of `dim` of the bucket it falls into, among that many buckets
    of equal counts: for what rises and falls, or jumps.
    """

    kind: Literal["numeric"]
    transform: Literal["none", "log1p"] = "none"
    normalize: bool = True
    quantiles: Annotated[int, Field(ge=2)] | None = None
    dim: PositiveInt | None = None

    @model_validator(mode="after")
    def _dim_of_quantiles(self) -> NumericFeature:
        if self.dim is not None and self.quantiles is None:
            raise ValueError(f"takes `dim` only with `quantiles`||{self.dim}")
        return self


class SequenceFeature(_Feature, _Categories):
    """A list of categories, oldest first, of which the `max_length` most recent are pooled.

    `embedding` names the categorical feature whose table and vocabulary it shares; without it the sequence has a
    table of its own, described by the same keys as a categorical feature's.
    """

    kind: Literal["sequence"]
    embedding: Name | None = None
    max_length: PositiveInt = 50
    pooling: Literal["mean"] = "mean"

    @model_validator(mode="after")
    def _one_table(self) -> SequenceFeature:
        chosen = self._chosen() + (["embedding"] if self.embedding else [])
        if len(chosen) != 1:
            raise ValueError(f"needs exactly one of `embedding`, `vocabulary`, `buckets`, `size`||{chosen}")
        if self.embedding and (self.dim is not None or self.min_count != 1 or self.oov_buckets != 1):
            raise ValueError("takes no `dim`, `min_count` or `oov_buckets` where `embedding` names a table||its own")
        return self


class VectorFeature(_Feature):
    """A dense content vector of `size` numbers."""

    kind: Literal["vector"]
    size: PositiveInt


Feature: TypeAlias = Annotated[
    CategoricalFeature | NumericFeature | SequenceFeature | VectorFeature, Field(discriminator="kind")
]


class _Objective(_Frozen):
    name: Name
    family: Literal["engagement", "satisfaction"]
    event: str = Field(min_length=1)
    given: Name | None = None
    loss_weight: NonNegativeFloat = 1.0


class BinaryObjective(_Objective):
    """1 where the impression has the event, else 0; cross entropy."""

    kind: Literal["binary"]


class RegressionObjective(_Objective):
    """The summed value of the impression's events; squared error on the `transform`ed value.

    Where there is no such event the label is missing, because a missing label is not a 0; `without_event: zero` says
    that for this event no record does mean 0.
    """

    kind: Literal["regression"]
    transform: Literal["none", "log1p"] = "none"
    without_event: Literal["missing", "zero"] = "missing"


Objective: TypeAlias = Annotated[BinaryObjective | RegressionObjective, Field(discriminator="kind")]


class MMoE(_Frozen):
    """Experts shared by all objectives, mixed by one softmax gate an objective (eq. 1 and 2)."""

    kind: Literal["mmoe"] = "mmoe"
    experts: PositiveInt = 8
    units: tuple[PositiveInt, ...] = Field(default=(128,), min_length=1)
    gate_dropout: Fraction = 0.1


class SharedBottom(_Frozen):
    """One bottom of `units` shared by all objectives: the paper's baseline."""

    kind: Literal["shared_bottom"]
    units: tuple[PositiveInt, ...] = Field(min_length=1)


class ShallowTower(_Frozen):
    """Selection bias as an additive logit from `features` and their crosses, for `objectives` (sec. 4.4, fig. 3)."""

    kind: Literal["shallow_tower"]
    features: tuple[Name, ...] = Field(min_length=1)
    cross: tuple[Annotated[tuple[Name, ...], Field(min_length=2)], ...] = ()
    dropout: Fraction = 0.1
    objectives: tuple[Name, ...] = Field(min_length=1)


class NoBias(_Frozen):
    """No bias modelling: the paper's other baseline."""

    kind: Literal["none"] = "none"


class Crosses(_Frozen):
    """Feature crosses before the hidden layers: DCN-V2, each cross of rank `projection`, full rank without it."""

    layers: PositiveInt
    projection: PositiveInt | None = None


class Model(_Frozen):
    """Crosses if any, shared hidden layers, sharing, a tower an objective, and the bias tower."""

    crosses: Crosses | None = None
    hidden: tuple[PositiveInt, ...] = (256,)
    sharing: Annotated[MMoE | SharedBottom, Field(discriminator="kind")] = MMoE()
    tower: tuple[PositiveInt, ...] = (64,)
    dropout: Fraction = 0.0
    bias: Annotated[ShallowTower | NoBias, Field(discriminator="kind")] = NoBias()


class Optimizer(_Frozen):
    """An optimiser by name and learning rate."""

    name: Literal["adagrad", "adam", "sgd"]
    learning_rate: PositiveFloat


class Training(_Frozen):
    """Chronological passes over the training split; embeddings by a sparse optimiser, the rest by a dense one."""

    epochs: PositiveInt = 1
    batch_size: PositiveInt = 1024
    shuffle_window: PositiveInt = 50_000
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1
    checkpoint_steps: PositiveInt = 500
    embedding_optimizer: Optimizer = Optimizer(name="adagrad", learning_rate=0.05)
    optimizer: Optimizer = Optimizer(name="adam", learning_rate=0.001)


class Term(_Frozen):
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


class CombinedScore(_Frozen):
    """How predictions become one score (sec. 4.2); an objective without a term weighs 0 unless a request says so."""

    form: Literal["weighted_product", "weighted_sum"] = "weighted_product"
    terms: dict[Name, Term] = Field(min_length=1)


class Split(_Frozen):
    """Chronological split: by the times at which parts start, where given; else by shares of the requests."""

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
        if self.validation_start and self.test_start and self.validation_start > self.test_start:
            raise ValueError(f"`validation_start` must not be after `test_start`||{self.validation_start}")
        return self


class Evaluation(_Frozen):
    """What `evaluate` groups and slices by; every categorical feature of the bias tower is a slice already."""

    group_by: tuple[Name, ...] = ()
    slices: tuple[Name, ...] = ()
    ndcg_k: PositiveInt = 10


class Config(_Frozen):
    """The whole config; every name in it refers to something in it."""

    name: Name
    item_key: Name
    features: tuple[Feature, ...] = Field(min_length=1)
    objectives: tuple[Objective, ...] = Field(min_length=1)
    model: Model = Model()
    training: Training = Training()
    combined_score: CombinedScore
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

    @property
    def served_features(self) -> tuple[CategoricalFeature | NumericFeature | SequenceFeature | VectorFeature, ...]:
        """The features a request carries: context and candidate, never bias."""
        return self.side("context", "candidate")

    @property
    def objective_names(self) -> tuple[str, ...]:
        """The objectives' names, in config order: the order of `score_weights`."""
        return tuple(objective.name for objective in self.objectives)
