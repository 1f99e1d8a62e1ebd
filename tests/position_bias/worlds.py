"""Simulated logs as the columns that position bias is measured on, with the truth beside them."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from mmoe_ranker.predictions import Predictions
from mmoe_ranker.simulation import DEVICES, EVENT_NAMES, WorldConfig, simulate


@dataclasses.dataclass(frozen=True)
class Log:
    """N impressions.

    Attributes:
      device: index into DEVICES.
      relevance: the true P(click | examined); `examination` the true P(examined).
    """

    items: np.ndarray
    positions: np.ndarray
    device: np.ndarray
    requests: np.ndarray
    clicks: np.ndarray
    relevance: np.ndarray
    examination: np.ndarray

    def rows(self, kept: np.ndarray) -> Log:
        return Log(**{field.name: getattr(self, field.name)[kept] for field in dataclasses.fields(self)})

    def predictions(self) -> Predictions:
        """Of a ranker that knows the truth."""
        return Predictions(
            predictions={"click": self.relevance},
            labels={"click": self.clicks},
            columns={
                "request_id": np.char.mod("r%d", self.requests).astype(bytes),
                "item_id": np.char.mod("v%d", self.items).astype(bytes),
                "position": self.positions,
                "device": np.array(DEVICES).astype(bytes)[self.device],
            },
            seen={"click": self.relevance * self.examination},
        )


@functools.lru_cache(maxsize=4)
def simulated(requests: int = 6000, seed: int = 3, **knobs: float) -> Log:
    logs = simulate(requests, seed, WorldConfig(**knobs))  # type: ignore[arg-type]
    shape = logs.shown.shape
    clicked = np.zeros(shape)
    is_click = logs.events.kind == EVENT_NAMES.index("click")
    clicked[logs.events.request[is_click], logs.events.slot[is_click]] = 1.0
    by_request = np.arange(shape[0])[:, None]
    columns = (
        logs.shown,
        np.arange(1, shape[1] + 1)[None, :],
        logs.device[:, None],
        by_request,
        clicked,
        logs.preferences.relevance,
        logs.examination,
    )
    return Log(*(np.broadcast_to(column, shape).ravel() for column in columns))


def true_curve(log: Log, device: int) -> np.ndarray:
    """Examination at each position relative to the first."""
    of_device = log.rows(log.device == device)
    _, first = np.unique(of_device.positions, return_index=True)
    return of_device.examination[first] / of_device.examination[first[0]]
