"""Examination from natural interventions: the same item at several positions, so that the item cannot be the reason.

An item that a log shows at positions k and k' compares the two, whatever it is worth: with c_k clicks of n_k
impressions at k and c_k' of n_k' at k', its relevance drops out of the ratio of the rates. All items together give

    C_kk' = sum over items of c_k n_k' / (n_k + n_k'),       e_k / e_k' = C_kk' / C_k'k

the weights being those of Mantel & Haenszel. Over all pairs of positions at once, e is where

    sum over k, k' of C_kk' log(e_k / (e_k + e_k'))

is largest: Bradley-Terry, which is what the AllPairs likelihood becomes for rare clicks when its nuisance, the items'
mean relevance r_kk', is maximised out. See "Estimating Position Bias without Intrusive Interventions" by Agarwal et
al., WSDM 2019 (https://doi.org/10.1145/3289600.3291017), on AllPairs.

It rests on this: which impressions of an item stand higher has nothing to do with how relevant it is *to them*. Whoever
compares within a context (the query, the device) needs less of that; a ranker that knows its users still breaks it, and
then the first positions look better than they are.

Shapes: N impressions, P positions, B blocks of items, R replicates.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmoe_ranker.errors import InputError
from mmoe_ranker.metrics import group_codes
from mmoe_ranker.metrics.rows import check_shapes
from mmoe_ranker.metrics.tied_runs import run_starts
from mmoe_ranker.position_bias.overlap import MIN_SHARED_ITEMS

Floats = NDArray[np.float64]

MOST_POSITIONS = 100
"""Positions further down are left out: pairs of positions are what this module counts."""
CLICKS_A_POSITION = 20
"""Clicks that count a position, on average, below which a curve is too rough to weigh anything by."""
_BLOCKS = 512
_REPLICATES = 200
_SEED = 0
_PSEUDO = 1e-6
_ROUNDS = 100
_TOLERANCE = 1e-6
_LONGEST_STEP = 2.0
# A factor of a thousand.
_BEYOND = 7.0


@dataclasses.dataclass(frozen=True)
class Interventions:
    """Comparisons between positions, of items that stood at both; see the module for C.

    Attributes:
      positions: [P], ascending.
      compared: [P, P], items (within one context) that stood at both positions; pairs with fewer than
        `MIN_SHARED_ITEMS` have 0 here and in `sums`.
      items: [P], items that count at each position, each once.
      outcomes: [P], outcomes of these items at each position, summed.
      num_items: items that count anywhere.
      sums: [B, P, P], C of each block of items; the bootstrap draws blocks.
    """

    positions: NDArray[np.int64]
    compared: NDArray[np.int64]
    items: NDArray[np.int64]
    outcomes: Floats
    num_items: int
    sums: Floats


@dataclasses.dataclass(frozen=True)
class Examination:
    """Chance of being examined, relative to the first position that can be compared.

    Attributes:
      positions: [P].
      values: [P], NaN where a position cannot be compared with the others.
      low: [P], lower end of the 95 % interval over items.
      high: [P], upper end; infinite where the first position may have no click.
      items: [P], items that count.
      outcomes: [P], their outcomes summed, such as the number of clicks that the curve rests on.
      num_items: items that count anywhere.
      replicates: [R, P], the values of the bootstrap; the same items, contexts and positions give the same draws,
        whatever the outcomes, so that two curves can be compared draw by draw.
    """

    positions: NDArray[np.int64]
    values: Floats
    low: Floats
    high: Floats
    items: NDArray[np.int64]
    outcomes: Floats
    num_items: int
    replicates: Floats

    @property
    def suffices(self) -> bool:
        """Whether the curve rests on `CLICKS_A_POSITION` clicks a position, on average."""
        return bool(self.outcomes.sum() >= CLICKS_A_POSITION * len(self.positions))

    def at(self, positions: ArrayLike) -> Floats:
        """The values of positions [N]; NaN where there is none."""
        asked = np.asarray(positions)
        place = np.searchsorted(self.positions, asked)
        known = np.isin(asked, self.positions)
        return np.where(known, np.append(self.values, np.nan)[np.where(known, place, -1)], np.nan)

    def on_scale_of(self, other: Examination, positions: ArrayLike) -> Floats:
        """The values of positions [N] relative to the first position of another curve, as that has this one's first.

        NaN everywhere where the other does not know this one's first position, or has no click there.
        """
        known = self.positions[~np.isnan(self.values)]
        level = other.at(known[:1])
        factor = level[0] if len(level) and 0 < level[0] < np.inf else np.nan
        return self.at(positions) * factor


def natural_interventions(
    items: ArrayLike, positions: ArrayLike, outcomes: ArrayLike, contexts: ArrayLike | None = None
) -> Interventions:
    """Collects what a log says about pairs of positions.

    Args:
      items: [N], in any form that sorts or hashes.
      positions: [N], integers; those below 1 are unknown, and left out like those beyond the `MOST_POSITIONS` first.
      outcomes: [N], at least 0: clicks, or what a model predicts of them; NaN where missing.
      contexts: [N], what items are compared within, such as the query, or None.

    Raises:
      InputError: shapes differ, or an outcome is below 0 or infinite.
    """
    outcome, position = np.asarray(outcomes, dtype=np.float64), np.asarray(positions)
    item = group_codes(items)
    context = np.zeros(len(outcome), np.int64) if contexts is None else group_codes(contexts)
    check_shapes("outcomes", outcome, {"positions": position, "items": item, "contexts": context})
    if np.any((outcome < 0) | np.isinf(outcome)):
        wrong = outcome[(outcome < 0) | np.isinf(outcome)][0]
        raise InputError(f"`outcomes` must be at least 0 and finite. Received: {wrong:g}.")
    there = ~np.isnan(outcome) & (position >= 1)
    there &= np.isin(position, np.unique(position[there])[:MOST_POSITIONS])
    places, place = np.unique(position[there].astype(np.int64), return_inverse=True)
    if not len(places):
        return Interventions(places, np.zeros((0, 0), np.int64), places, np.zeros(0), 0, np.zeros((0, 0, 0)))
    item = np.unique(item[there], return_inverse=True)[1]
    context = np.unique(context[there], return_inverse=True)[1]
    unit = np.unique(item * (int(context.max()) + 1) + context, return_inverse=True)[1]  # sorted by item
    order = np.lexsort((place, unit))
    starts = run_starts(unit[order], place[order])
    shown = np.diff(starts, append=len(order)).astype(np.float64)
    gained = np.add.reduceat(outcome[there][order], starts)
    first = order[starts]
    return _pairs(places, item[first], unit[first], place[first], shown, gained)


def _pairs(
    places: NDArray[np.int64],
    item: NDArray[np.int64],
    unit: NDArray[np.int64],
    place: NDArray[np.int64],
    shown: Floats,
    gained: Floats,
) -> Interventions:
    """Of cells, one an item, context and position, sorted by these."""
    count = len(places)
    blocks = min(_BLOCKS, int(item.max()) + 1)
    block = item % blocks
    sums = np.zeros(blocks * count * count)
    compared = np.zeros(count * count, np.int64)
    pairs = []  # of cells, by their distance: an item stands at most at P positions
    for step in range(1, count):
        left = np.flatnonzero(unit[:-step] == unit[step:])
        if not len(left):
            break
        pairs.append((left, left + step))
        compared += np.bincount(place[left] * count + place[left + step], minlength=count * count)
    admitted = compared.reshape(count, count)
    admitted = np.where(admitted >= MIN_SHARED_ITEMS, admitted, 0)
    admitted = admitted + admitted.T
    stands = np.zeros(len(item), bool)
    for left, right in pairs:
        kept = admitted[place[left], place[right]] > 0
        left, right = left[kept], right[kept]
        stands[left] = stands[right] = True
        share = 1.0 / (shown[left] + shown[right])
        for one, other in ((left, right), (right, left)):
            index = (block[one] * count + place[one]) * count + place[other]
            sums += np.bincount(index, weights=gained[one] * shown[other] * share, minlength=len(sums))
    at_place = np.unique(item[stands] * count + place[stands])
    return Interventions(
        positions=places,
        compared=admitted,
        items=np.bincount(at_place % count, minlength=count),
        outcomes=np.bincount(place[stands], weights=gained[stands], minlength=count).astype(np.float64),
        num_items=len(np.unique(item[stands])),
        sums=sums.reshape(blocks, count, count),
    )


def all_pairs(sums: Floats, start: Floats | None = None) -> Floats:
    """AllPairs: the examination that all comparisons together make most likely, by Newton's method on its logarithm.

    Args:
      sums: [..., P, P], C of the module's formula; every position is compared with another.
      start: [P] logarithms to start from.

    Returns:
      [..., P] logarithms, 0 at the first position. Each comparison gets a millionth of its clicks on both sides, so
      that a position without a click has a value, very small.
    """
    both = sums + np.swapaxes(sums, -1, -2)
    won = (sums + _PSEUDO * both).sum(axis=-1)
    both = (1 + 2 * _PSEUDO) * both
    count = sums.shape[-1]
    value = np.array(np.broadcast_to(np.zeros(count) if start is None else start, won.shape))
    # The likelihood does not know the level; and a position that nobody clicked in these draws stays where it is.
    level = (both.max(axis=(-1, -2), initial=0.0) + 1e-300)[..., None, None] * (1e-9 * np.eye(count) + 1 / count)
    for _ in range(_ROUNDS):
        share = 1 / (1 + np.exp(value[..., None, :] - value[..., :, None]))
        curvature = both * share * (1 - share)
        hessian = curvature.sum(axis=-1)[..., None] * np.eye(count) - curvature + level
        gradient = won - (both * share).sum(axis=-1)
        step = np.clip(np.linalg.solve(hessian, gradient[..., None])[..., 0], -_LONGEST_STEP, _LONGEST_STEP)
        value += step
        if np.abs(step).max(initial=0.0) < _TOLERANCE:
            break
    return value - value[..., :1]


def examination_of(interventions: Interventions) -> Examination:
    """Examination by position, by AllPairs, with the interval of a bootstrap over items.

    Args:
      interventions: as collected; blocks of items are drawn, at most 512, so that the cost does not grow with the log.
    """
    count = len(interventions.positions)
    values, low, high = (np.full(count, np.nan) for _ in range(3))
    drawn = np.full((_REPLICATES, count), np.nan)
    together = _largest_component(interventions)
    if len(together) > 1:
        sums = interventions.sums[:, together[:, None], together]  # [B, P', P']
        point = all_pairs(sums.sum(axis=0))
        blocks = len(sums)
        weights = np.random.default_rng(_SEED).multinomial(blocks, np.full(blocks, 1 / blocks), size=_REPLICATES)
        resampled = (weights @ sums.reshape(blocks, -1)).reshape(_REPLICATES, *sums.shape[1:])
        values[together] = _relative(point, sums.sum(axis=0), np.nan)
        drawn[:, together] = _relative(all_pairs(resampled, start=point), resampled, np.inf)
        if blocks > 1:
            # Without interpolation, which infinity does not take.
            low[together], high[together] = np.quantile(
                drawn[:, together], [0.025, 0.975], axis=0, method="inverted_cdf"
            )
    return Examination(
        interventions.positions,
        values,
        low,
        high,
        interventions.items,
        interventions.outcomes,
        interventions.num_items,
        drawn,
    )


def _relative(logarithms: Floats, sums: Floats, without_reference: float) -> Floats:
    """Values [..., P] relative to the first position; 0 without a click, and something else if that one has none.

    A value beyond `_BEYOND` rests on the pseudo clicks, not on the log: it is infinite, or 0.
    """
    clicked = sums.sum(axis=-1) > 0
    values = np.where(clicked & (logarithms > -_BEYOND), np.exp(np.minimum(logarithms, _BEYOND)), 0.0)
    values[logarithms > _BEYOND] = np.inf
    values = np.where(clicked[..., :1], values, without_reference)
    values[..., 0] = np.where(np.isnan(values[..., 0]), np.nan, 1.0)
    return values


def _largest_component(interventions: Interventions) -> NDArray[np.intp]:
    """Of the positions that comparisons tie together, directly or by way of others, the set that holds most items."""
    ties = interventions.compared > 0
    label = np.arange(len(ties))
    while True:
        reached = np.minimum(label, np.where(ties, label[None, :], len(ties)).min(axis=1, initial=len(ties)))
        if np.array_equal(reached, label):
            break
        label = reached
    if not len(label):
        return np.empty(0, np.intp)
    weight = np.bincount(label, weights=interventions.items, minlength=len(label))
    return np.flatnonzero(label == np.argmax(weight))
