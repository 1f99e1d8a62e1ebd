"""The `rank` signature as a client reads it from a server's metadata: inputs with side and kind, outputs, defaults.

The side shows in the shapes: a context feature has 1 as its first dimension, a candidate feature one that is left open.
The kind shows in the dtype and the number of dimensions:

| dtype | [1] or [N] | [1, L] or [N, L] |
|---|---|---|
| string | category; "" is missing | sequence of categories, padded with "" |
| int64 | category given as a number; -1 is missing | sequence of such, padded with -1 |
| float | number; NaN is missing | vector; zeros are missing |

`score_weights` [T] holds one weight an objective; its default says which weights the model was exported with.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np

from mmoe_ranker.combined_score import CombinedScore, Term
from mmoe_ranker.errors import InputError
from serving.protos import DT_FLOAT, DT_INT64, DT_STRING
from serving.tensor_codec import Array, TensorFormatError, decode

Kind: TypeAlias = Literal["category", "integer category", "number", "sequence", "integer sequence", "vector"]

RANK = "rank"
SCORE_WEIGHTS = "score_weights"
COMBINED_SCORE = "combined_score"
RANKING = "ranking"
_KINDS: dict[tuple[int, int], Kind] = {
    (DT_STRING, 1): "category",
    (DT_INT64, 1): "integer category",
    (DT_FLOAT, 1): "number",
    (DT_STRING, 2): "sequence",
    (DT_INT64, 2): "integer sequence",
    (DT_FLOAT, 2): "vector",
}


@dataclass(frozen=True)
class ServedFeature:
    """One input of the signature; `size` is its second dimension, None where there is none or it is left open."""

    name: str
    kind: Kind
    size: int | None = None


@dataclass(frozen=True)
class RankSignature:
    """What one version of a ranker takes and returns.

    Attributes:
        version: The version that was asked.
        context: Features given once a request.
        candidates: Features given once a candidate.
        objectives: Names of the predictions, in the order of `score_weights`.
        default_weights: float32 [T], the weights that hold where a request has none; None where the model takes none.
        item_key: The candidate's key, where the model's contract tells it.
        combined_score: What the score is made of, where the contract tells it.
    """

    version: int
    context: Sequence[ServedFeature]
    candidates: Sequence[ServedFeature]
    objectives: Sequence[str]
    default_weights: Array | None = field(default=None, compare=False)
    item_key: str | None = None
    combined_score: CombinedScore | None = field(default=None, compare=False)

    @classmethod
    def from_signature_def(cls, signature: Any, version: int) -> RankSignature:
        """Reads a SignatureDef.

        The names of outputs come without an order, so that without a contract the objectives are taken in
        alphabetical order, which is the order that SavedModel itself gives to the outputs of a function.

        Raises:
            InputError: the signature is not one of a ranker.
        """
        for name in (COMBINED_SCORE, RANKING):
            if name not in signature.outputs:
                raise InputError(
                    f"The signature `{RANK}` of the served model must return `{COMBINED_SCORE}` and `{RANKING}`. "
                    f"Received: outputs {', '.join(sorted(signature.outputs))}."
                )
        context: list[ServedFeature] = []
        candidates: list[ServedFeature] = []
        for name in sorted(set(signature.inputs) - {SCORE_WEIGHTS}):
            feature, once = _served_feature(name, signature.inputs[name])
            (context if once else candidates).append(feature)
        if not candidates:
            raise InputError(
                f"The signature `{RANK}` of the served model must take at least one candidate feature, [N, ...]. "
                f"Received: inputs {', '.join(sorted(signature.inputs))}."
            )
        return cls(
            version=version,
            context=context,
            candidates=candidates,
            objectives=sorted(set(signature.outputs) - {COMBINED_SCORE, RANKING}),
            default_weights=_default_weights(signature),
        )

    def with_contract(self, text: str | bytes) -> RankSignature:
        """Adds what types and shapes cannot tell, from the JSON that the model's signature `contract` returns.

        Raises:
            InputError: it is no contract of a ranker.
        """
        try:
            contract = json.loads(text)
            objectives = [objective["name"] for objective in contract["objectives"]]
            item_key, score = contract["item_key"], contract.get("combined_score")
            combined = None
            if score:
                terms: dict[str, Term] = {
                    name: _Term(term["weight"], term["offset"], term["complement"])
                    for name, term in score["terms"].items()
                }
                combined = CombinedScore.from_terms(objectives, score["form"], terms)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(
                f"The signature `contract` of the served model must tell the item key, the objectives and the terms of "
                f"the score ({type(error).__name__}: {error}). Received: {text[:80]!r}."
            ) from None
        return replace(self, item_key=item_key, objectives=objectives, combined_score=combined)

    def resolve_weights(self, score_weights: Mapping[str, float] | None) -> Array | None:
        """The weights of one request: an objective that is not named keeps the model's weight.

        Returns:
            float32 [T]; None where none are given and the model takes none.

        Raises:
            InputError: an unknown objective, a weight that is no finite number or below 0 for a complement, or a model
                that takes no weights.
        """
        if not score_weights and isinstance(score_weights, Mapping | None):
            return self.default_weights
        if self.default_weights is None or len(self.default_weights) != len(self.objectives):
            raise InputError(
                f"`{SCORE_WEIGHTS}` need a served model whose signature has one default weight for each of the "
                f"objectives {', '.join(self.objectives)}. Received: defaults {self.default_weights}."
            )
        if not isinstance(score_weights, Mapping):
            raise InputError(
                f"`{SCORE_WEIGHTS}` must be an object of weights by objective. Received: {score_weights!r}."
            )
        weights = np.array(self.default_weights, np.float32)
        for objective, weight in score_weights.items():
            if objective not in self.objectives:
                raise InputError(
                    f"`{SCORE_WEIGHTS}` are given by objective, one of {', '.join(self.objectives)}. "
                    f"Received: {objective!r}."
                )
            index = list(self.objectives).index(objective)
            weights[index] = _finite(weight, objective)
            if self.combined_score and self.combined_score.complements[index] and weights[index] < 0:
                raise InputError(
                    f"`{SCORE_WEIGHTS}` of `{objective}` must be at least 0, since its term is a complement, which "
                    f"turns the objective round already. Received: {weight!r}."
                )
        return weights

    def weights_by_objective(self, weights: Array | None) -> dict[str, float]:
        """Weights [T] by objective; empty where the model takes none."""
        if weights is None or len(weights) != len(self.objectives):
            return {}
        return dict(zip(self.objectives, weights.tolist(), strict=True))


@dataclass(frozen=True)
class _Term(Term):
    """A term of the score as the contract writes it."""

    weight: float
    offset: float
    complement: bool


def _default_weights(signature: Any) -> Array | None:
    if SCORE_WEIGHTS not in signature.defaults:
        return None
    try:
        weights = decode(signature.defaults[SCORE_WEIGHTS])
        received = f"dtype {weights.dtype} of shape {weights.shape}"
    except TensorFormatError as error:
        weights, received = None, str(error)
    if weights is None or weights.dtype.kind != "f" or weights.ndim != 1:
        raise InputError(
            f"The default of `{SCORE_WEIGHTS}` in the signature `{RANK}` of the served model must be a float tensor, "
            f"one number an objective. Received: {received}."
        )
    return weights


def _finite(weight: Any, objective: str) -> np.float32:
    number = np.float32(np.nan)
    if isinstance(weight, int | float | np.integer | np.floating) and not isinstance(weight, bool):
        with np.errstate(over="ignore"), contextlib.suppress(OverflowError):
            number = np.float32(weight)
    if not np.isfinite(number):
        raise InputError(
            f"`{SCORE_WEIGHTS}` of `{objective}` must be a finite number that float32 can hold. Received: {weight!r}."
        )
    return number


def _served_feature(name: str, info: Any) -> tuple[ServedFeature, bool]:
    shape = [dim.size for dim in info.tensor_shape.dim]
    kind = _KINDS.get((info.dtype, len(shape)))
    if kind is None or shape[0] not in (1, -1):
        raise InputError(
            f"Input `{name}` of the served signature `{RANK}` must be a string, int64 or float tensor of shape [1], "
            f"[N], [1, L] or [N, L]. Received: DataType {info.dtype} of shape {shape}."
        )
    size = shape[1] if len(shape) == 2 and shape[1] >= 0 else None
    return ServedFeature(name, kind, size), shape[0] == 1
