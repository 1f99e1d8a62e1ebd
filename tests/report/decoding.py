"""Reads back what the page embeds, and computes on it with the package's own functions."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmoe_ranker import metrics
from mmoe_ranker.combined_score import CombinedScore


@dataclasses.dataclass(frozen=True)
class Embedded:
    """The sample of the weight explorer, decoded."""

    document: dict[str, Any]
    predictions: dict[str, NDArray[np.float64]]
    labels: dict[str, NDArray[np.float64]]
    requests: NDArray[np.int64]
    score: CombinedScore

    @classmethod
    def of(cls, page: str) -> Embedded:
        """From a page."""
        (text,) = re.findall(r'<script type="application/json" id="explorer-data">(.*?)</script>', page)
        document = json.loads(text)
        objectives = document["objectives"]
        score = CombinedScore(
            tuple(one["name"] for one in objectives),
            document["form"],
            *(tuple(one[key] for one in objectives) for key in ("weight", "offset", "complement")),
        )
        sizes = _column(document["sizes"], "<u4")
        labels = {}
        for one in objectives:
            column = _column(one["labels"], {"uint8": "u1", "float32": "<f4"}[one["label_type"]])
            labels[one["name"]] = np.where(column == 255, np.nan, column) if one["label_type"] == "uint8" else column
        predictions = {one["name"]: _column(one["predictions"], "<f4") for one in objectives}
        return cls(document, predictions, labels, np.repeat(np.arange(len(sizes)), sizes.astype(int)), score)

    def ndcg(self, weights: list[float]) -> dict[str, float]:
        """Of the combined score under other weights, against each label that can be ranked."""
        return {name: float(np.nanmean(values)) for name, values in self.ndcg_by_request(weights).items()}

    def ndcg_by_request(self, weights: list[float]) -> dict[str, NDArray[np.float64]]:
        """The same of each request."""
        scores = self.score.score(self.predictions, weights)
        ranked = [one["name"] for one in self.document["objectives"] if one["ranked"]]
        return {
            name: metrics.ndcg(self.labels[name], scores, self.requests, self.document["k"]).values for name in ranked
        }


def _column(text: str, kind: str) -> NDArray[np.float64]:
    return np.frombuffer(base64.b64decode(text), dtype=kind).astype(np.float64)
