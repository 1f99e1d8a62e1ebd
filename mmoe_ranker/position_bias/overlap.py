"""Items over positions: whether a log can tell what a position does from what stands there.

An item that stood at two positions is a comparison that owes nothing to which item it was; a log in which every item
keeps its place has none, and whatever a bias tower learns from it may as well be relevance (intervention harvesting:
Agarwal et al., "Estimating Position Bias without Intrusive Interventions", WSDM 2019,
https://doi.org/10.1145/3289600.3291017).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

from mmoe_ranker.config import Config
from mmoe_ranker.metrics import spearman
from mmoe_ranker.metrics.tied_runs import run_sizes, run_starts

MAX_CELLS = 1 << 17
MIN_SHARED_ITEMS = 10
"""Items that must have stood at two positions for these to be compared: of fewer, one popular item is the answer."""
MIN_ITEM_IMPRESSIONS = 20
"""Of an item whose relevance is to be told from its clicks."""
_ROUNDS = 100


@dataclasses.dataclass(frozen=True)
class PositionOverlap:
    """Impressions and clicks by item, group of users' contexts (such as the device) and position.

    Attributes:
      level: of all items, those whose hash begins with so many zero bits: a fair sample where there are too many.
      items, groups: hashes, uint64 [M]; rows ascend by item, group, position.
      positions, impressions, clicks: int64 [M].
    """

    level: int
    items: np.ndarray
    groups: np.ndarray
    positions: np.ndarray
    impressions: np.ndarray
    clicks: np.ndarray

    @classmethod
    def of(cls, items: np.ndarray, groups: np.ndarray, positions: np.ndarray, clicked: np.ndarray) -> PositionOverlap:
        """Of impressions [I]."""
        return cls(0, items, groups, positions, np.ones(len(items), np.int64), clicked.astype(np.int64))._compacted()

    @classmethod
    def merge(cls, many: Iterable[PositionOverlap]) -> PositionOverlap:
        """The sum, of the smallest sample among them or a smaller one."""
        ones = list(many)
        names = ("items", "groups", "positions", "impressions", "clicks")
        joined = [np.concatenate([getattr(one, name) for one in ones]) for name in names]
        return cls(max(one.level for one in ones), *joined)._compacted()

    def _compacted(self) -> PositionOverlap:
        level, one = self.level, self
        while True:
            stay = one.items >> np.uint64(64 - level) == 0 if level else np.ones(len(one.items), bool)
            one = one._summed(np.flatnonzero(stay))
            if len(one.items) <= MAX_CELLS:
                return dataclasses.replace(one, level=level)
            level += 1

    def _summed(self, rows: np.ndarray) -> PositionOverlap:
        rows = rows[np.lexsort((self.positions[rows], self.groups[rows], self.items[rows]))]
        if not len(rows):
            return PositionOverlap(self.level, *(column[:0] for column in self._columns()))
        items, groups, positions, impressions, clicks = (column[rows] for column in self._columns())
        starts = run_starts(items, groups, positions)
        return PositionOverlap(
            self.level,
            *(column[starts] for column in (items, groups, positions)),
            *(np.add.reduceat(column, starts) for column in (impressions, clicks)),
        )

    def _columns(self) -> tuple[np.ndarray, ...]:
        return self.items, self.groups, self.positions, self.impressions, self.clicks


def click_objective(config: Config) -> str | None:
    """The objective whose bias is looked at: the first binary one without condition, if one of the bias tower's."""
    binary = [one.name for one in config.objectives if one.kind == "binary" and one.given is None]
    biased = [name for name in binary if name in getattr(config.model.bias, "objectives", ())]
    return next(iter([*biased, *binary]), None)


def grouping_features(config: Config) -> tuple[str, ...]:
    """The features that position is crossed with: positions are compared within their values."""
    crosses = getattr(config.model.bias, "cross", ())
    return next((tuple(name for name in cross if name != "position") for cross in crosses if "position" in cross), ())


def identifiability(overlap: PositionOverlap) -> dict[str, Any]:
    """How far positions can be compared on the same items.

    Returns:
      `items`, `sampled` (whether they are a sample), `impressions`; `at_several_positions`, the share of impressions
      whose item stands at two positions or more, and `..._within_group`, in one group; `connected`, the share at
      positions that can be compared with one another by way of shared items; `examination`, by position, and
      `follows_relevance`, see `examination`.
    """
    total = int(overlap.impressions.sum())
    found: dict[str, Any] = {
        "items": len(np.unique(overlap.items)),
        "sampled": overlap.level > 0,
        "impressions": total,
        "positions": len(np.unique(overlap.positions)),
    }
    if not total:
        shares = dict.fromkeys(("at_several_positions", "at_several_positions_within_group", "connected"))
        return {**found, **shares, "examination": {}, "follows_relevance": None}
    by_item = run_starts(overlap.items)
    by_unit = run_starts(overlap.items, overlap.groups)
    positions, connected = _connected(overlap, by_unit)
    at_positions = np.bincount(np.searchsorted(positions, overlap.positions), weights=overlap.impressions)
    relative, correlation = examination(overlap)
    return {
        **found,
        "at_several_positions": _several(overlap, by_item) / total,
        "at_several_positions_within_group": _several(overlap, by_unit) / total,
        "connected": float(at_positions[connected].sum() / total),
        "examination": relative,
        "follows_relevance": correlation,
    }


def examination(overlap: PositionOverlap) -> tuple[dict[str, float | None], float | None]:
    """What a position does by itself, and whether better items stood higher.

    Clicks of item i in group g at position p are taken as Poisson with mean n_igp r_ig e_p; maximum likelihood by
    turns: r_ig = sum_p clicks / sum_p n_igp e_p, and e_p = sum_ig clicks / sum_ig n_igp r_ig.

    That is what the position does as far as it is chance who sees an item where; a ranker that knows its users makes
    the first positions look better still.

    Returns:
      e_p over that of the first position (None where there are no clicks); and Spearman's correlation, over items and
      groups of at least `MIN_ITEM_IMPRESSIONS`, of r_ig with their mean position: below 0 where the logging ranker puts
      higher what is clicked more anyway. None where there is too little.
    """
    positions, place = np.unique(overlap.positions, return_inverse=True)
    sizes = run_sizes(run_starts(overlap.items, overlap.groups), len(place))
    unit = np.repeat(np.arange(len(sizes)), sizes)
    clicks_of_unit = np.bincount(unit, weights=overlap.clicks)
    clicks_at = np.bincount(place, weights=overlap.clicks)
    effect = np.ones(len(positions))
    relevance = np.zeros_like(clicks_of_unit)
    for _ in range(_ROUNDS):
        relevance = _over(clicks_of_unit, np.bincount(unit, weights=overlap.impressions * effect[place]))
        effect = _over(clicks_at, np.bincount(place, weights=overlap.impressions * relevance[unit]))
        effect /= effect[0] or 1.0
    shown = np.bincount(unit, weights=overlap.impressions)
    mean_position = np.bincount(unit, weights=overlap.impressions * overlap.positions) / shown
    enough = shown >= MIN_ITEM_IMPRESSIONS
    correlation = spearman(relevance[enough], mean_position[enough]) if enough.sum() > 2 else np.nan
    relative = {str(one): float(e) if c else None for one, e, c in zip(positions, effect, clicks_at, strict=True)}
    return relative, None if np.isnan(correlation) else correlation


def _several(overlap: PositionOverlap, starts: np.ndarray) -> int:
    """Impressions in runs of rows with more than one position; a run of an item may repeat one in several groups."""
    low = np.minimum.reduceat(overlap.positions, starts)
    high = np.maximum.reduceat(overlap.positions, starts)
    return int(np.add.reduceat(overlap.impressions, starts)[low != high].sum())


def _connected(overlap: PositionOverlap, by_unit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The positions, ascending, and which of them hang together with the commonest one by shared items."""
    positions, place = np.unique(overlap.positions, return_inverse=True)
    follows = np.ones(len(place), bool)
    follows[by_unit] = False
    ends = np.flatnonzero(follows)
    pairs, shared = np.unique(place[ends - 1] * len(positions) + place[ends], return_counts=True)
    pairs = pairs[shared >= MIN_SHARED_ITEMS]
    low, high = pairs // len(positions), pairs % len(positions)
    reached = np.zeros(len(positions), bool)
    reached[np.argmax(np.bincount(place, weights=overlap.impressions))] = True
    while True:
        before = reached.sum()
        np.logical_or.at(reached, high, reached[low])
        np.logical_or.at(reached, low, reached[high])
        if reached.sum() == before:
            return positions, reached


def _over(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)
