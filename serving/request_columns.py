"""The forms in which a request may come, brought to one: a column a feature.

Candidates are a list of objects, a mapping from features to columns (numpy arrays, lists, pandas Series), or a pandas
DataFrame. Each form names exactly the features that the served model takes; a value that is missing is said to be:
None, NaN, or pandas' NA. A feature that is absent is refused, because it is more often forgotten than unknown.

A numpy array that has the right type is handed on as it is; pandas is never imported here.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from mmoe_ranker.errors import InputError
from serving.signature import RankSignature
from serving.tensor_codec import Array

Column: TypeAlias = Sequence[Any] | Array
"""A value a candidate: Python values, or a numpy array [N], or [N, L] for a feature of several values."""


@dataclass(frozen=True)
class RequestColumns:
    """One request, whatever form it came in.

    Attributes:
        context: Value of each feature of the context.
        candidates: Column of each candidate feature, and of the item key.
        size: N, the number of candidates.
        item_key: The column that names the candidates.
        given: The candidates as they came; columns where they were a DataFrame.
    """

    context: Mapping[str, Any]
    candidates: Mapping[str, Column]
    size: int
    item_key: str
    given: Sequence[Mapping[str, Any]] | Mapping[str, Any]


def request_columns(
    request: Mapping[str, Any], signature: RankSignature, item_key: str | None = None
) -> RequestColumns:
    """Takes a request apart and holds its names and lengths against the signature.

    Args:
        request: `{"context": {feature: value}, "candidates": ...}`, with exactly the features that the signature takes.
        signature: What the served model takes.
        item_key: The candidates' key where it is known; each candidate has it, even where it is no feature. By
            default the first key of the first candidate, or the first column.

    Raises:
        InputError: a feature is missing or unknown, columns differ in length, or there is no candidate.
    """
    if not isinstance(request, Mapping) or set(request) != {"context", "candidates"}:
        received = sorted(map(str, request)) if isinstance(request, Mapping) else type(request).__name__
        raise InputError(f"A request must be an object with the keys context and candidates. Received: {received}.")
    context, candidates = request["context"], request["candidates"]
    if not isinstance(context, Mapping):
        raise InputError(f"`context` must be an object of features by name. Received: {type(context).__name__}.")
    names = {feature.name for feature in signature.candidates}
    if item_key is not None:
        names.add(item_key)
    if isinstance(candidates, _pandas("DataFrame")):
        if not candidates.columns.is_unique:
            raise InputError(f"A column of the candidates must be there once. Received: {list(candidates.columns)}.")
        candidates = dict(candidates.items())
    if isinstance(candidates, Mapping) and candidates:
        columns = _from_table(candidates, names)
        first, given = next(iter(candidates)), columns
    else:
        columns = _from_rows(candidates, names)
        first, given = next(iter(candidates[0])), candidates
    _check_names("The context", context, {feature.name for feature in signature.context})
    return RequestColumns(context, columns, len(columns[first]), item_key or first, given)


def is_missing(value: Any) -> bool:
    """Whether a value says that there is none: None, NaN, pandas' NA or NaT."""
    if value is None:
        return True
    if isinstance(value, float | np.floating):
        return bool(np.isnan(value))
    return type(value).__name__ in ("NAType", "NaTType") and type(value).__module__.startswith("pandas.")


def _from_rows(candidates: Any, names: set[str]) -> dict[str, Column]:
    if not isinstance(candidates, Sequence) or isinstance(candidates, str | bytes) or not candidates:
        raise InputError(f"`candidates` must be a list of at least one candidate. Received: {candidates!r}.")
    if set(map(type, candidates)) != {dict}:  # by far the cheaper question
        for number, candidate in enumerate(candidates):
            if not isinstance(candidate, Mapping):
                raise InputError(
                    f"Candidate {number} must be an object of features by name. Received: {type(candidate).__name__}."
                )
            _check_names(f"Candidate {number}", candidate, names)  # a defaultdict would be given what it lacks
    get = operator.itemgetter(*names)
    try:
        columns = list(zip(*map(get, candidates), strict=True)) if len(names) > 1 else [[*map(get, candidates)]]
        exact = set(map(len, candidates)) == {len(names)}
    except KeyError:
        exact = False
    if not exact:
        for number, candidate in enumerate(candidates):
            _check_names(f"Candidate {number}", candidate, names)
    return dict(zip(names, columns, strict=True))


def _from_table(table: Mapping[str, Any], names: set[str]) -> dict[str, Column]:
    _check_names("The table of candidates", table, names)
    columns = {name: _column(name, values) for name, values in table.items()}
    first = next(iter(columns))
    size = len(columns[first])
    for name, column in columns.items():
        if len(column) != size:
            raise InputError(
                f"The column `{name}` of the candidates must have as many rows as `{first}`, {size}. "
                f"Received: {len(column)}."
            )
    if size == 0:
        raise InputError("`candidates` must be a table of at least one candidate. Received: columns of 0 rows.")
    return columns


def _column(name: str, values: Any) -> Column:
    if isinstance(values, _pandas("Series")):
        # pandas' own types have their own way to say "missing", and no counterpart in numpy.
        own = not isinstance(values.dtype, np.dtype)
        return values.to_numpy(dtype=object, na_value=None) if own else values.to_numpy()
    if isinstance(values, list | tuple) or (isinstance(values, np.ndarray) and values.ndim > 0):
        return values
    raise InputError(
        f"The column `{name}` of the candidates must be a list, a numpy array or a pandas Series. "
        f"Received: {type(values).__name__}."
    )


def _pandas(name: str) -> Any:
    """A class of pandas, if the caller has loaded it: else there is no object of it either."""
    return getattr(sys.modules.get("pandas"), name, ())


def _check_names(where: str, values: Mapping[str, Any], names: set[str]) -> None:
    if values.keys() == names:
        return
    missing, unknown = sorted(names - values.keys()), sorted(map(str, values.keys() - names))
    wrong = f"lacks the feature `{missing[0]}`" if missing else f"has the unknown feature `{unknown[0]}`"
    raise InputError(
        f"{where} {wrong}: the served model takes exactly {', '.join(sorted(names))} there, null where a value is "
        f"missing. Received: {', '.join(map(str, values))}."
    )
