"""The ranking of one request: read from the server's answers, put together where it was asked for in chunks.

The model scores each candidate by itself, so candidates may be asked for in chunks; their order within a chunk is the
server's. Chunks are merged by the score that the server returned and, where scores are equal, as those of a product of
many small probabilities are when it has become 0, by what the server orders by: `combined_score.ranking_key`. Where
that is equal too, candidates stay in the order of the request, as they do at the server. So the ranking is that of one
call, as far as the model gives a candidate the same predictions whatever is beside it.

Shapes: N candidates, T objectives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmoe_ranker.combined_score import CombinedScore, ranking_key
from serving.connection import RankingError
from serving.request_columns import Column
from serving.signature import COMBINED_SCORE, RANKING, RankSignature
from serving.tensor_codec import Array, TensorFormatError, decode


@dataclass(frozen=True, eq=False)
class Ranking:
    """The candidates of one request, best first; candidates of the same id are ranked each by itself.

    Attributes:
        item_key: What names a candidate.
        ids: [N], the candidates' keys as the request has them.
        scores: float32 [N], the combined scores.
        predictions: Objective to float32 [N].
        order: int64 [N], rows of the request: the best candidate is number `order[0]` there.
        version: The version of the model that answered.
        weights: Objective to its weight in this score; empty where the model does not tell.
        contributions: Objective to float64 [N], what it added to the log score of a weighted product, or to the score
            of a weighted sum; None where it was not asked for.
        request_id: By which feedback names the request; None where it is not logged.
    """

    item_key: str
    ids: Array
    scores: Array
    predictions: Mapping[str, Array]
    order: Array
    version: int
    weights: Mapping[str, float]
    contributions: Mapping[str, Array] | None = None
    request_id: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The ranking as plain Python values, ready for JSON.

        Returns:
            `{"ranking": [{<item key>: ..., "score": ..., <objective>: prediction, ...}, ...]}`, best first; with
            `"contributions": {<objective>: ...}` in each, where they were asked for; and `"request_id"`, if there is.
        """
        columns = {self.item_key: _plain(self.ids), "score": self.scores, **self.predictions}
        rows = _rows(columns)
        if self.contributions is not None:
            for row, contributions in zip(rows, _rows(self.contributions), strict=True):
                row["contributions"] = contributions
        return {"ranking": rows} | ({} if self.request_id is None else {"request_id": self.request_id})


def read_ranking(
    responses: Sequence[Any],
    chunk_size: int,
    signature: RankSignature,
    weights: Array | None,
    item_key: str,
    ids: Column,
    explain: bool,
) -> Ranking:
    """Reads the answers to one request.

    Args:
        responses: PredictResponses of one version to consecutive chunks of candidates.
        chunk_size: Candidates in each of them; fewer in the last.
        signature: What that version takes and returns.
        weights: float32 [T], the weights that it used.
        item_key: The name of `ids`.
        ids: The candidates' keys, [N].
        explain: Whether to add each objective's contribution; the signature has a combined score then.

    Raises:
        RankingError: an output is absent, has another size than the candidates, or ranks them in no order.
    """
    names = [COMBINED_SCORE, RANKING, *signature.objectives]
    chunks = [{name: _vector(response, name) for name in names} for response in responses]
    starts = range(0, len(ids), chunk_size)
    for start, chunk in zip(starts, chunks, strict=True):
        _check(chunk, min(chunk_size, len(ids) - start))
    columns = {name: _joined([chunk[name] for chunk in chunks]) for name in names if name != RANKING}
    predictions = {name: columns[name] for name in signature.objectives}
    orders = [start + chunk[RANKING].astype(np.int64) for start, chunk in zip(starts, chunks, strict=True)]
    order = orders[0]
    if len(orders) > 1:
        score = signature.combined_score
        key = columns[COMBINED_SCORE] if score is None else _key(score, weights, predictions)
        order = merged_order(orders, columns[COMBINED_SCORE], key)
    contributions = None
    if explain:
        assert signature.combined_score is not None
        summands = signature.combined_score.contributions(predictions, weights)[order]  # [N, T]
        contributions = dict(zip(signature.objectives, summands.T, strict=True))
    return Ranking(
        item_key=item_key,
        ids=_as_array(ids)[order],
        scores=columns[COMBINED_SCORE][order],
        predictions={name: values[order] for name, values in predictions.items()},
        order=order,
        version=signature.version,
        weights=signature.weights_by_objective(weights),
        contributions=contributions,
    )


def merged_order(orders: Sequence[Array], scores: Array, key: Array) -> Array:
    """Merges the orders of chunks into one.

    Args:
        orders: For each chunk the rows of its candidates, best first; together each row once.
        scores: [N], by row: the higher is before the lower.
        key: [N], by row, decides between equal scores; between equal keys the earlier chunk is first.

    Returns:
        int64 [N], rows, best first.
    """
    rows = np.concatenate(orders)
    # A key that was computed here may differ in its last bit: no candidate comes before one that its server put first.
    levels = [np.concatenate([np.fmin.accumulate(values[order]) for order in orders]) for values in (scores, key)]
    return rows[np.lexsort((-levels[1], -levels[0]))]


def _key(score: CombinedScore, weights: Array | None, predictions: Mapping[str, Array]) -> Array:
    columns = [predictions[name] for name in score.objectives]
    used = np.array(score.weights, np.float32) if weights is None else weights
    return ranking_key(columns, used, score.offsets, score.complements, score.form)


def _vector(response: Any, name: str) -> Array:
    try:
        return decode(response.outputs[name]).reshape(-1)
    except TensorFormatError as error:
        raise RankingError(f"The server answered without a readable output `{name}` ({error}).") from None


def _check(chunk: Mapping[str, Array], size: int) -> None:
    if any(len(values) != size for values in chunk.values()):
        sizes = ", ".join(f"`{name}` {len(values)}" for name, values in chunk.items())
        raise RankingError(f"The server answered with outputs that do not fit {size} candidates: {sizes}.")
    ranking = chunk[RANKING]
    numbered = ranking.dtype.kind in "iu" and ranking.min() >= 0 and ranking.max() < size
    if not numbered or np.bincount(ranking.astype(np.int64), minlength=size).max() > 1:
        raise RankingError(
            f"The server answered with a `{RANKING}` that does not hold each number from 0 to {size - 1} once."
        )


def _joined(parts: list[Array]) -> Array:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _as_array(ids: Column) -> Array:
    if isinstance(ids, np.ndarray):
        return ids
    array = np.empty(len(ids), object)
    array[:] = ids
    return array


def _plain(ids: Array) -> Array:
    """Ids without numpy's scalars, which the candidates that a caller made from arrays hold."""
    if ids.dtype != object:
        return ids
    return _as_array([value.item() if isinstance(value, np.generic) else value for value in ids])


def _rows(columns: Mapping[str, Array]) -> list[dict[str, Any]]:
    # Column by column into copies of one dict, which allocates a quarter of what a zip for each row does.
    empty = dict.fromkeys(columns)
    rows: list[dict[str, Any]] = [empty.copy() for _ in range(len(next(iter(columns.values()))))]
    for name, values in columns.items():
        for row, value in zip(rows, values.tolist(), strict=True):
            row[name] = value
    return rows
