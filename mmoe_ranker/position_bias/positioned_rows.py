"""The impressions of a split that position bias can be measured on, as the estimators take them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmoe_ranker.config import Config
from mmoe_ranker.examples import ITEM_ID, REQUEST_ID
from mmoe_ranker.metrics import group_codes
from mmoe_ranker.position_bias.interventions import Examination, examination_of, natural_interventions
from mmoe_ranker.position_bias.overlap import PositionOverlap, grouping_features
from mmoe_ranker.predictions import Predictions

POSITION = "position"
_SPREAD = np.uint64(0x9E3779B97F4A7C15)


@dataclasses.dataclass(frozen=True)
class PositionedRows:
    """The impressions that have a position and a label; M of them.

    Attributes:
      features: the names of what `groups` are values of.
      groups: [M], text.
      missing: [M], predictions with bias features missing; `seen` with them, or None.
    """

    features: tuple[str, ...]
    groups: NDArray[np.str_]
    labels: NDArray[np.float64]
    positions: NDArray[np.int64]
    requests: NDArray[Any]
    items: NDArray[Any]
    missing: NDArray[np.float64]
    seen: NDArray[np.float64] | None

    @classmethod
    def of(cls, predictions: Predictions, config: Config, objective: str, notes: list[str]) -> PositionedRows | None:
        """None, with a sentence in `notes`, where there is no such impression."""
        positions = predictions.columns.get(POSITION)
        if positions is None or not np.issubdtype(positions.dtype, np.integer):
            notes.append("Position bias was not measured: the config has no feature `position` with a `size`.")
            return None
        labels = predictions.labels[objective]
        kept = (positions >= 1) & ~np.isnan(labels)
        if not kept.any():
            notes.append(f"Position bias was not measured: no impression has a position and a label of `{objective}`.")
            return None
        features = grouping_features(config)
        if not features and "device" in predictions.columns:
            features = ("device",)
        groups = [_texts(predictions.columns[name][kept]) for name in features if name in predictions.columns]
        joined = groups[0] if groups else np.full(int(kept.sum()), "")
        for more in groups[1:]:
            joined = np.char.add(np.char.add(joined, ", "), more)
        seen = predictions.seen
        return cls(
            features=features,
            groups=joined,
            labels=labels[kept],
            positions=positions[kept].astype(np.int64),
            requests=group_codes(predictions.columns[REQUEST_ID])[kept],
            items=group_codes(predictions.columns[ITEM_ID])[kept],
            missing=predictions.predictions[objective][kept],
            seen=None if seen is None else seen[objective][kept],
        )

    def of_group(self, group: str) -> PositionedRows:
        """The impressions of one group."""
        kept = self.groups == group
        columns = {
            field.name: getattr(self, field.name)[kept]
            for field in dataclasses.fields(self)
            if field.name != "features" and getattr(self, field.name) is not None
        }
        return dataclasses.replace(self, **columns)

    def intervene(self, outcomes: NDArray[np.float64]) -> Examination:
        """Examination by natural interventions within groups, of clicks or predictions [M]."""
        return examination_of(natural_interventions(self.items, self.positions, outcomes, self.groups))

    def overlap(self) -> PositionOverlap:
        """Items over positions."""
        codes = [np.unique(column, return_inverse=True)[1].astype(np.uint64) for column in (self.items, self.groups)]
        # The overlap takes a fair sample of the items by the first bits of what they are called.
        return PositionOverlap.of(codes[0] * _SPREAD, codes[1], self.positions, self.labels == 1)


def _texts(values: NDArray[Any]) -> NDArray[np.str_]:
    """A categorical column as it stands in the examples, as text."""
    if np.issubdtype(values.dtype, np.integer):
        return values.astype(np.str_)
    return np.char.decode(values.astype(np.bytes_), "utf-8")
