"""From a ranking request, as plain Python values, to the input tensors of the `rank` signature.

Everything a server would reject, or worse accept, is found here and said with the feature's name before anything is
sent: TF Serving checks no shapes. Columns are encoded from numpy or as bytes; the checks ask for the set of types in a
column first, and look at single values only where that set needs it.

Sequences are padded in front: a model that cuts to its most recent places then keeps what matters of every row.

Shapes: N candidates, L places of a sequence or numbers of a vector.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from mmoe_ranker.errors import InputError
from mmoe_ranker.examples import canonical_category
from serving.signature import SCORE_WEIGHTS, RankSignature, ServedFeature
from serving.tensor_codec import encode_numbers, encode_strings

_Place: TypeAlias = Callable[[int], str]  # from a row or a place in a list to the words that name it

_MISSING_INTEGER = -1


def encode_request(request: Mapping[str, Any], signature: RankSignature, item_key: str | None = None) -> dict[str, Any]:
    """Encodes the features of a request.

    Args:
        request: `{"context": {feature: value}, "candidates": [{feature: value}, ...]}`, with exactly the features that
            the signature takes; None for a missing value.
        signature: What the served model takes.
        item_key: The candidates' key where it is known; each candidate has it, even where it is no feature.

    Returns:
        Input name to TensorProto: context features [1] or [1, L], candidate features [N] or [N, L].

    Raises:
        InputError: a feature is missing, unknown or of a wrong type, or there is no candidate.
    """
    context, candidates = _parts(request)
    _check_names("The context", context, {feature.name for feature in signature.context})
    names = {feature.name for feature in signature.candidates}
    columns = _columns(candidates, names | {item_key} if item_key else names)
    tensors = {}
    for feature in signature.context:
        tensors[feature.name] = _ENCODERS[feature.kind](
            feature, [context[feature.name]], _always(f"`{feature.name}` of the context")
        )
    for feature in signature.candidates:
        tensors[feature.name] = _ENCODERS[feature.kind](feature, columns[feature.name], _in_candidate(feature))
    return tensors


def encode_score_weights(score_weights: Mapping[str, float], signature: RankSignature) -> Any:
    """Encodes weights by objective over the model's own: an objective that is not named keeps its weight.

    Returns:
        TensorProto, float32 [T].

    Raises:
        InputError: an unknown objective, a weight that is no finite number, or a model that takes no weights.
    """
    if signature.default_weights is None or len(signature.default_weights) != len(signature.objectives):
        raise InputError(
            f"`{SCORE_WEIGHTS}` need a served model whose signature has one default weight for each of the objectives "
            f"{', '.join(signature.objectives)}. Received: defaults {signature.default_weights}."
        )
    if not isinstance(score_weights, Mapping):
        raise _wrong(f"`{SCORE_WEIGHTS}`", "an object of weights by objective", score_weights)
    weights = np.array(signature.default_weights, np.float32)
    for objective, weight in score_weights.items():
        if objective not in signature.objectives:
            raise InputError(
                f"`{SCORE_WEIGHTS}` are given by objective, one of {', '.join(signature.objectives)}. "
                f"Received: {objective!r}."
            )
        place = f"`{SCORE_WEIGHTS}` of `{objective}`"
        number = _numbers([weight], _always(place))[0]
        if np.isnan(number):
            raise _wrong(place, "a finite number", weight)
        weights[list(signature.objectives).index(objective)] = number
    return encode_numbers(weights)


def _parts(request: Mapping[str, Any]) -> tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]:
    if not isinstance(request, Mapping) or set(request) != {"context", "candidates"}:
        received = sorted(map(str, request)) if isinstance(request, Mapping) else type(request).__name__
        raise InputError(f"A request must be an object with the keys context and candidates. Received: {received}.")
    context, candidates = request["context"], request["candidates"]
    if not isinstance(context, Mapping):
        raise InputError(f"`context` must be an object of features by name. Received: {type(context).__name__}.")
    if not isinstance(candidates, Sequence) or isinstance(candidates, str | bytes) or not candidates:
        raise InputError(f"`candidates` must be a list of at least one candidate. Received: {candidates!r}.")
    for number, candidate in enumerate(candidates):
        if not isinstance(candidate, Mapping):
            raise InputError(
                f"Candidate {number} must be an object of features by name. Received: {type(candidate).__name__}."
            )
    return context, candidates


def _columns(candidates: Sequence[Mapping[str, Any]], names: set[str]) -> dict[str, Sequence[Any]]:
    """Name to the values of all candidates, each of which has exactly these names."""
    get = operator.itemgetter(*names)
    try:
        rows = [get(candidate) for candidate in candidates]
        exact = set(map(len, candidates)) == {len(names)}
    except KeyError:
        exact = False
    if not exact:
        for number, candidate in enumerate(candidates):
            _check_names(f"Candidate {number}", candidate, names)
    return dict(zip(names, zip(*rows, strict=True) if len(names) > 1 else [rows], strict=True))


def _check_names(where: str, values: Mapping[str, Any], names: set[str]) -> None:
    if values.keys() == names:
        return
    missing, unknown = sorted(names - values.keys()), sorted(map(str, values.keys() - names))
    wrong = f"lacks the feature `{missing[0]}`" if missing else f"has the unknown feature `{unknown[0]}`"
    raise InputError(
        f"{where} {wrong}: the served model takes exactly {', '.join(sorted(names))} there, null where a value is "
        f"missing. Received: {', '.join(map(str, values))}."
    )


def _always(place: str) -> _Place:
    return lambda row: place


def _in_candidate(feature: ServedFeature) -> _Place:
    return lambda row: f"`{feature.name}` of candidate {row}"


def _in_list(place: str) -> _Place:
    return lambda position: f"{place}, at place {position},"


def _encode_categories(feature: ServedFeature, column: Sequence[Any], place: _Place) -> Any:
    return encode_strings(_categories(column, place), (len(column),))


def _encode_integers(feature: ServedFeature, column: Sequence[Any], place: _Place) -> Any:
    return encode_numbers(_integers(column, place))


def _encode_numbers(feature: ServedFeature, column: Sequence[Any], place: _Place) -> Any:
    return encode_numbers(_numbers(column, place))


def _encode_sequences(feature: ServedFeature, column: Sequence[Any], place: _Place) -> Any:
    rows = _lists(feature, column, place)
    length = _padded_length(feature, rows)
    values: list[bytes] = []
    for number, row in enumerate(rows):
        values += [b""] * (length - len(row)) + _categories(row, _in_list(place(number)))
    return encode_strings(values, (len(rows), length))


def _encode_integer_sequences(feature: ServedFeature, column: Sequence[Any], place: _Place) -> Any:
    rows = _lists(feature, column, place)
    values = np.full((len(rows), _padded_length(feature, rows)), _MISSING_INTEGER, np.int64)
    for number, row in enumerate(rows):
        values[number, values.shape[1] - len(row) :] = _integers(row, _in_list(place(number)))
    return encode_numbers(values)


def _encode_vectors(feature: ServedFeature, column: Sequence[Any], place: _Place) -> Any:
    size = feature.size
    if size is None:
        size = next((len(row) for row in column if row is not None), 0)
    values = np.zeros((len(column), size), np.float32)
    for number, row in enumerate(column):
        if row is None:
            continue
        if not isinstance(row, list | tuple | np.ndarray):
            raise _wrong(place(number), f"a list of {size} numbers, or null", row)
        if len(row) != size:
            raise InputError(f"{place(number)} must be a list of {size} numbers, or null. Received: {len(row)} values.")
        values[number] = _numbers(row, _in_list(place(number)))
        if np.isnan(values[number]).any():
            raise _wrong(place(number), f"a list of {size} numbers none of which is missing, or null", row)
    return encode_numbers(values)


_ENCODERS: dict[str, Callable[[ServedFeature, Sequence[Any], _Place], Any]] = {
    "category": _encode_categories,
    "integer category": _encode_integers,
    "number": _encode_numbers,
    "sequence": _encode_sequences,
    "integer sequence": _encode_integer_sequences,
    "vector": _encode_vectors,
}


def _categories(column: Sequence[Any], place: _Place) -> list[bytes]:
    try:
        if set(map(type, column)) <= {str}:
            return [value.encode() for value in column]
        return [b"" if value is None else canonical_category(value).encode() for value in column]
    except (InputError, UnicodeEncodeError):
        row = next(row for row, value in enumerate(column) if not _is_category(value))
        raise _wrong(place(row), "a string of valid Unicode, an integer, a boolean or null", column[row]) from None


def _is_category(value: Any) -> bool:
    try:
        return value is None or canonical_category(value).encode() is not None
    except (InputError, UnicodeEncodeError):
        return False


def _integers(column: Sequence[Any], place: _Place) -> Any:
    for row, value in enumerate(column):
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value < 2**63:
            raise _wrong(place(row), "an integer from 0 to 2^63 - 1, or null", value)
    return np.array([_MISSING_INTEGER if value is None else value for value in column], np.int64)


def _numbers(column: Any, place: _Place) -> Any:
    """float32 [N]; NaN where a value is None."""
    if not set(map(type, column)) <= {float, int}:
        for row, value in enumerate(column):
            if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating | None):
                raise _wrong(place(row), "a number or null", value)
        column = [math.nan if value is None else value for value in column]
    try:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is refused below
            numbers = np.array(column, np.float64).astype(np.float32)
    except OverflowError:
        numbers = np.array([math.inf if abs(value) > 1e308 else value for value in column], np.float32)
    if np.isinf(numbers).any():
        row = int(np.argmax(np.isinf(numbers)))
        raise _wrong(place(row), "a number that float32 can hold, or null", column[row])
    return numbers


def _lists(feature: ServedFeature, column: Sequence[Any], place: _Place) -> list[Sequence[Any]]:
    """The sequences, oldest first, cut to the most recent places that fit; None is an empty one."""
    rows: list[Sequence[Any]] = []
    for row, values in enumerate(column):
        if values is not None and not isinstance(values, list | tuple | np.ndarray):
            raise _wrong(place(row), "a list of categories, oldest first, or null", values)
        values = [] if values is None else list(values)
        rows.append(values if feature.size is None else values[max(len(values) - feature.size, 0) :])
    return rows


def _padded_length(feature: ServedFeature, rows: list[Sequence[Any]]) -> int:
    return max(map(len, rows)) if feature.size is None else feature.size


def _wrong(place: str, allowed: str, value: Any) -> InputError:
    text = repr(value)
    return InputError(f"{place} must be {allowed}. Received: {text if len(text) <= 80 else text[:80] + '...'}.")
