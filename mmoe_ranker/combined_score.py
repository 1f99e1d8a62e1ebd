"""The combined score: one number a candidate from the predictions of all objectives, and the order comes from it.

The formula stands here once. `combined_score` is written over a handful of elementwise operations, so that numpy
(tests, evaluation, weight tuning) and the exported TensorFlow graph (`operations=tf.math`) run the same lines.

Shapes: N candidates, T objectives in the order of the config. An objective without a term has weight 0 and offset 0.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmoe_ranker.errors import InputError

EPSILON = 1e-6
"""Floor of each factor of the product; the exported graph shares it."""

FORMS = ("weighted_product", "weighted_sum")

Predictions: TypeAlias = Mapping[str, ArrayLike]
Weights: TypeAlias = ArrayLike | Mapping[str, float] | None


class Term(Protocol):
    """One objective's part in the score, as the config states it."""

    weight: float
    offset: float
    complement: bool


class NumpyOperations:
    """The four operations that the formula needs, on numpy arrays; the module `tf.math` has them under these names."""

    log = staticmethod(np.log)
    exp = staticmethod(np.exp)
    maximum = staticmethod(np.maximum)

    @staticmethod
    def multiply_no_nan(x: Any, y: Any) -> Any:
        """x * y, and 0 wherever y is 0, even if x is NaN or infinite: no weight must mean no influence."""
        with np.errstate(invalid="ignore"):
            return np.where(np.equal(y, 0.0), 0.0, np.multiply(x, y))


def term_contributions(
    predictions: Sequence[Any],
    weights: Any,
    offsets: Sequence[float],
    complements: Sequence[bool],
    form: str,
    operations: Any = NumpyOperations,
) -> list[Any]:
    """Each objective's summand in the exponent of the product, or in the sum.

        q_k = 1 - p_k where complement, else p_k
        weighted_product: w_k log(max(q_k + offset_k, EPSILON));  weighted_sum: w_k (q_k + offset_k)

    Args:
        predictions: T arrays or tensors, each [N]: probabilities, or regression outputs in the objective's own unit.
        weights: [T], an array, a sequence of floats or a tensor that is known only when the graph runs.
        offsets: [T], floats, added to each prediction.
        complements: [T], Python booleans; they decide which operations the graph gets.
        form: One of `FORMS`.
        operations: `NumpyOperations`, or the module `tf.math` for tensors.

    Returns:
        T arrays or tensors, each [N]; all 0 where the weight is 0.
    """
    contributions = []
    for index, prediction in enumerate(predictions):
        factor = (1.0 - prediction if complements[index] else prediction) + offsets[index]  # [N]
        if form == "weighted_product":
            factor = operations.log(operations.maximum(factor, EPSILON))
        contributions.append(operations.multiply_no_nan(factor, weights[index]))
    return contributions


def ranking_key(
    predictions: Sequence[Any],
    weights: Any,
    offsets: Sequence[float],
    complements: Sequence[bool],
    form: str,
    operations: Any = NumpyOperations,
) -> Any:
    """The combined score before the exponential: the log score of a product, the score itself of a sum.

    Order candidates by this one: it gives the same order as the score, and in float32 it still tells candidates apart
    where the product of many small probabilities has become 0.

    Args:
        predictions, weights, offsets, complements, form, operations: As in `term_contributions`.

    Returns:
        [N], higher is better.
    """
    contributions = term_contributions(predictions, weights, offsets, complements, form, operations)
    return functools.reduce(operator.add, contributions)


def combined_score(
    predictions: Sequence[Any],
    weights: Any,
    offsets: Sequence[float],
    complements: Sequence[bool],
    form: str,
    operations: Any = NumpyOperations,
) -> Any:
    """The combined score of each candidate.

        weighted_product: exp(sum_k w_k log(max(q_k + offset_k, EPSILON)));  weighted_sum: sum_k w_k (q_k + offset_k)

    with q_k = 1 - p_k where complement, else p_k. The weighted multiplication of "Recommending What Video to Watch
    Next" by Zhao et al. (https://doi.org/10.1145/3298689.3346997), sec. 4.2. Checks nothing, because tensors have no
    values yet: `CombinedScore` checks.

    Args:
        predictions, weights, offsets, complements, form, operations: As in `term_contributions`.

    Returns:
        [N], higher is better.
    """
    key = ranking_key(predictions, weights, offsets, complements, form, operations)
    return operations.exp(key) if form == "weighted_product" else key


@dataclass(frozen=True)
class CombinedScore:
    """The combined score as plain values, checked; weights can be overridden at each call.

    Example:
        >>> score = CombinedScore(("click", "dismiss"), "weighted_product", (1.0, 2.0), (0.0, 0.0), (False, True))
        >>> score.score({"click": [0.5, 0.4], "dismiss": [0.5, 0.1]}).round(3).tolist()
        [0.125, 0.324]

    Attributes:
        objectives: Names of the T objectives, in the order of the config.
        form: "weighted_product" or "weighted_sum".
        weights: T finite floats; 0 for an objective without a term.
        offsets: T finite floats.
        complements: T booleans: whether the term uses 1 - p.

    Raises:
        InputError: on an unknown form, a wrong length, a value that is not finite, a negative weight beside complement.
    """

    objectives: tuple[str, ...]
    form: str
    weights: tuple[float, ...]
    offsets: tuple[float, ...]
    complements: tuple[bool, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "objectives", tuple(self.objectives))
        if not self.objectives:
            raise InputError("`objectives` must name at least one objective. Received: ().")
        if self.form not in FORMS:
            raise InputError(f"`form` must be one of {', '.join(FORMS)}. Received: {self.form!r}.")
        complements = tuple(self.complements)
        if len(complements) != len(self.objectives) or not all(isinstance(c, (bool, np.bool_)) for c in complements):
            names = ", ".join(self.objectives)
            raise InputError(f"`complements` must hold one boolean for each of {names}. Received: {complements}.")
        object.__setattr__(self, "complements", tuple(bool(c) for c in complements))
        object.__setattr__(self, "offsets", tuple(self._finite_vector(self.offsets, "offsets").tolist()))
        object.__setattr__(self, "weights", tuple(self._checked_weights(self.weights).tolist()))

    @classmethod
    def from_terms(cls, objectives: Sequence[str], form: str, terms: Mapping[str, Term]) -> CombinedScore:
        """Builds the score from the terms of the config; an objective that has none gets weight 0 and offset 0.

        Args:
            objectives: Names of all objectives, in the order of the config.
            form: One of `FORMS`.
            terms: Term of each objective that takes part: anything with `weight`, `offset` and `complement`.

        Returns:
            The score over all objectives.

        Raises:
            InputError: on a term that names no objective, and as the class does.
        """
        _check_names(terms, "terms", objectives)
        found = [terms.get(name) for name in objectives]
        return cls(
            objectives=tuple(objectives),
            form=form,
            weights=tuple(term.weight if term else 0.0 for term in found),
            offsets=tuple(term.offset if term else 0.0 for term in found),
            complements=tuple(term.complement if term else False for term in found),
        )

    def score(self, predictions: Predictions, weights: Weights = None) -> NDArray[np.float64]:
        """Scores candidates.

        Args:
            predictions: [N] under each objective's name; other keys are ignored, since a model's outputs have more.
            weights: As in `resolve_weights`.

        Returns:
            [N], higher is better; NaN where a prediction that has weight is NaN.

        Raises:
            InputError: on wrong shapes, a missing objective, and as `resolve_weights` does.
        """
        columns = self._columns(predictions)
        return combined_score(columns, self.resolve_weights(weights), self.offsets, self.complements, self.form)

    def contributions(self, predictions: Predictions, weights: Weights = None) -> NDArray[np.float64]:
        """What each term adds to the log score (weighted product) or to the score (weighted sum), to explain an order.

        Args:
            predictions: As in `score`.
            weights: As in `resolve_weights`; ones show the bare log factors.

        Returns:
            [N, T]; its sum over T is the log score, or the score.

        Raises:
            InputError: as `score` does.
        """
        columns, resolved = self._columns(predictions), self.resolve_weights(weights)
        return np.stack(term_contributions(columns, resolved, self.offsets, self.complements, self.form), axis=1)

    def sign(self, objective: str) -> int:
        """1 where more of an objective raises the score, -1 where it lowers it: a complement, or a negative weight.

        Args:
            objective: Its name.
        """
        index = self.objectives.index(objective)
        return -1 if self.complements[index] or self.weights[index] < 0 else 1

    def resolve_weights(self, weights: Weights) -> NDArray[np.float64]:
        """The weights of one call, checked.

        Args:
            weights: None for the defaults; [T] in the order of `objectives`; or a dict from objectives to weights, the
                others keeping their default.

        Returns:
            [T].

        Raises:
            InputError: on a name that is no objective, and as the class does.
        """
        if weights is None:
            return np.asarray(self.weights)
        if not isinstance(weights, Mapping):
            return self._checked_weights(weights)
        _check_names(weights, "weights", self.objectives)
        merged = dict(zip(self.objectives, self.weights, strict=True)) | dict(weights)
        return self._checked_weights(list(merged.values()))

    def _finite_vector(self, values: Any, argument: str) -> NDArray[np.float64]:
        rule = f"`{argument}` must hold one finite number for each of {', '.join(self.objectives)}."
        vector = _as_floats(values, argument)
        if vector.shape != (len(self.objectives),):
            raise InputError(f"{rule} Received: an array of shape {vector.shape}.")
        for index in np.flatnonzero(~np.isfinite(vector)):
            raise InputError(f"{rule} Received: {vector[index]} for {self.objectives[index]!r}.")
        return vector

    def _checked_weights(self, weights: Any) -> NDArray[np.float64]:
        vector = self._finite_vector(weights, "weights")
        for index in np.flatnonzero((vector < 0) & self.complements):
            raise InputError(
                "`weights` must be at least 0 where `complement` is true, since 1 - p already turns the objective "
                f"round. Received: {vector[index]} for {self.objectives[index]!r}."
            )
        return vector

    def _columns(self, predictions: Predictions) -> list[NDArray[np.float64]]:
        if missing := [name for name in self.objectives if name not in predictions]:
            names = ", ".join(self.objectives)
            raise InputError(f"`predictions` must hold every objective of {names}. Received: no {missing[0]!r}.")
        columns = [_as_floats(predictions[name], name) for name in self.objectives]
        shapes = [column.shape for column in columns]
        if len(shapes[0]) != 1 or len(set(shapes)) != 1:
            raise InputError(f"`predictions` must hold arrays of one shape [N]. Received: shapes {shapes}.")
        return columns


def _check_names(names: Iterable[str], argument: str, objectives: Sequence[str]) -> None:
    for name in names:
        if name not in objectives:
            raise InputError(f"`{argument}` may name only the objectives {', '.join(objectives)}. Received: {name!r}.")


def _as_floats(values: Any, name: str) -> NDArray[np.float64]:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"`{name}` must be an array of numbers. Received: {values!r}.") from error
