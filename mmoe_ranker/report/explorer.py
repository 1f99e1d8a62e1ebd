"""What the weight explorer in the page computes from: a sample of requests, and a search for weights on it.

The page repeats `combined_score.ranking_key` and `metrics.ndcg` in JavaScript. Predictions and labels go in as they
are, in float32 (what the model and the examples hold), so that both come to the same numbers. Requests without a
positive label of any objective have no NDCG and are left out before the sample is drawn.

Shapes: N impressions, R requests, T objectives, W settings of weights.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from typing import Any

import numpy as np
import yaml
from numpy.typing import ArrayLike, NDArray

from mmoe_ranker.combined_score import EPSILON
from mmoe_ranker.config import Config
from mmoe_ranker.examples import REQUEST_ID
from mmoe_ranker.json_numbers import without_nan
from mmoe_ranker.metrics import group_codes
from mmoe_ranker.predictions import Predictions
from mmoe_ranker.weight_search import WeightSearch, search_weights

MAX_BYTES = 1_500_000
"""What the sample may take in the page, as base64; at least one request is taken."""
MISSING_LABEL = 255
"""Stands for NaN among labels of 0 and 1, which take a byte each."""
SETTINGS = 300
"""Weights that the Pareto plot shows beside the config's."""
_SEED = 1
_SLIDER_STEPS = 200


@dataclasses.dataclass(frozen=True)
class Explorer:
    """What the page shows.

    Attributes:
      sample: the predictions and labels that it holds, in float32.
      available: requests that the sample was drawn from.
      search: for weights, on the sample.
    """

    sample: Predictions
    available: int
    search: WeightSearch

    @classmethod
    def of(cls, predictions: Predictions, config: Config, settings: int = SETTINGS) -> Explorer | None:
        """Draws the sample and searches on it; None where no request has a positive label that makes an NDCG.

        Args:
          predictions: of one split.
          config: the config that trained.
          settings: weights that are tried beside the config's.
        """
        bytes_a_row = sum(4 + (1 if _is_binary(labels) else 4) for labels in predictions.labels.values()) * 4 / 3
        rows, available = _drawn(predictions, max(1, int(MAX_BYTES / bytes_a_row)))
        if not len(rows):
            return None
        sample = Predictions(
            {name: _as_float32(values[rows]) for name, values in predictions.predictions.items()},
            {name: _as_float32(values[rows]) for name, values in predictions.labels.items()},
            {REQUEST_ID: group_codes(predictions.columns[REQUEST_ID])[rows]},
        )
        return cls(sample, available, search_weights(sample, config, settings))

    def document(self, config: Config) -> str:
        """The sample and the search as JSON that may stand in a script element."""
        names, score = config.objective_names, self.search.score
        requests = self.sample.columns[REQUEST_ID]
        starts = np.flatnonzero(np.concatenate([[True], requests[1:] != requests[:-1]]))
        ndcg = dict(zip(self.search.labels, self.search.ndcg.T, strict=True))
        nothing = np.full(len(self.search.weights), np.nan)
        document = {
            "form": score.form,
            "epsilon": EPSILON,
            "k": self.search.k,
            "sizes": _base64(np.diff(np.append(starts, len(requests))), "<u4"),
            "objectives": [
                {
                    "name": name,
                    "key": yaml.safe_dump(name, width=1000).splitlines()[0],
                    "weight": score.weights[place],
                    "offset": score.offsets[place],
                    "complement": score.complements[place],
                    "in_config": name in config.combined_score.terms,
                    "ranked": name in self.search.labels,
                    "lower_is_better": self.search.signs.get(name) == -1,
                    "predictions": _base64(self.sample.predictions[name], "<f4"),
                    **_label_column(self.sample.labels[name]),
                }
                for place, name in enumerate(names)
            ],
            "sweep": [
                {"weights": weights, "ndcg": without_nan(values)}
                for weights, values in zip(
                    self.search.weights.tolist(),
                    np.stack([ndcg.get(name, nothing) for name in names], axis=1).tolist(),
                    strict=True,
                )
            ],
        }
        # A name may hold what would end the element.
        return json.dumps(document, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")

    def controls(self, config: Config) -> list[dict[str, Any]]:
        """For each objective, what its slider shows."""
        score = self.search.score
        return [
            {
                "name": name,
                "weight": score.weights[place],
                "note": _note(place, self.search, name in config.combined_score.terms),
                "complement": score.complements[place],
                "ranked": name in self.search.labels,
                "lower_is_better": self.search.signs.get(name) == -1,
                **_reach(score.weights[place]),
            }
            for place, name in enumerate(config.objective_names)
        ]


def _drawn(predictions: Predictions, max_rows: int) -> tuple[NDArray[np.intp], int]:
    """Rows of the sample, request after request, and how many requests there were to draw from."""
    requests = group_codes(predictions.columns[REQUEST_ID])
    order = np.argsort(requests, kind="stable")
    if not len(order):
        return order, 0
    _, starts, sizes = np.unique(requests[order], return_index=True, return_counts=True)
    gains = [labels[order] > 0 for labels in predictions.labels.values() if not np.nanmin(labels, initial=0.0) < 0]
    positive = np.any(gains, axis=0) if gains else np.zeros(len(order), dtype=bool)
    counted = np.flatnonzero(np.logical_or.reduceat(positive, starts))
    drawn = np.random.default_rng(_SEED).permutation(counted)
    chosen = np.sort(drawn[: max(1, np.searchsorted(np.cumsum(sizes[drawn]), max_rows, side="right"))])
    return np.concatenate([order[:0], *(order[starts[one] : starts[one] + sizes[one]] for one in chosen)]), len(counted)


def _as_float32(values: NDArray[Any]) -> NDArray[np.float64]:
    """As the page will read them."""
    return values.astype(np.float32).astype(np.float64)


def _is_binary(labels: ArrayLike) -> bool:
    values = np.asarray(labels)
    return bool(np.isin(values[~np.isnan(values)], (0.0, 1.0)).all())


def _label_column(labels: NDArray[Any]) -> dict[str, str]:
    if _is_binary(labels):
        return {"label_type": "uint8", "labels": _base64(np.where(np.isnan(labels), MISSING_LABEL, labels), "u1")}
    return {"label_type": "float32", "labels": _base64(labels, "<f4")}


def _base64(values: NDArray[Any], kind: str) -> str:
    return base64.b64encode(values.astype(kind).tobytes()).decode("ascii")


def _reach(weight: float) -> dict[str, float]:
    """Ends and step of a slider: from 0 to twice the weight and more, on whole steps."""
    high = max(1.0, 2.0 ** np.ceil(np.log2(2.5 * abs(weight)))) if weight else 1.0
    low = -high if weight < 0 else 0.0
    return {"low": low, "high": float(high), "step": float(high) / _SLIDER_STEPS}


def _note(place: int, search: WeightSearch, in_config: bool) -> str:
    """What the term does with the prediction."""
    score = search.score
    factor = "1 \N{MINUS SIGN} p" if score.complements[place] else "p"
    factor += f" + {score.offsets[place]:g}" if score.offsets[place] else ""
    return factor if in_config else "not in the config's score"
