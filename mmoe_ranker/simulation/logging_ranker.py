"""The ranker that was live when the logs were written: partly relevance, partly an agenda of its own, partly noise."""

from __future__ import annotations

import numpy as np

from mmoe_ranker.simulation.population import Bools, Ints
from mmoe_ranker.simulation.requests import Requests
from mmoe_ranker.simulation.world import World

# Bounds memory: [chunk, candidates, factors] doubles are about 25 MB.
_CHUNK = 4096


def rank_candidates(world: World, requests: Requests, rng: np.random.Generator) -> tuple[Ints, Bools]:
    """Orders each request's candidates and shows the first `config.positions`.

    `score = alignment * z + agenda * boost + noise * N(0, 1)`; a share `random_share` of the requests is ordered by
    chance alone.

    Args:
      world: what is true.
      requests: to rank for.
      rng: for noise and random order.

    Returns:
      [B, P] video indices in the order shown, and [B] whether the order is random.
    """
    config = world.config
    shown = np.empty((len(requests.user), config.positions), dtype=np.int64)
    random_order = rng.random(len(requests.user)) < config.random_share
    for begin in range(0, len(shown), _CHUNK):
        rows = slice(begin, begin + _CHUNK)
        candidates = requests.candidates[rows]
        luck = rng.normal(size=candidates.shape)
        score = config.noise * luck
        score += config.alignment * world.standardised_relevance(requests.user[rows], candidates)
        score += config.agenda * world.videos.boost[candidates]
        score = np.where(random_order[rows, None], luck, score)
        score[~requests.eligible[rows]] = -np.inf
        best = np.argpartition(-score, config.positions - 1, axis=1)[:, : config.positions]
        order = np.argsort(-np.take_along_axis(score, best, axis=1), axis=1, kind="stable")
        shown[rows] = np.take_along_axis(candidates, np.take_along_axis(best, order, axis=1), axis=1)
    return shown, random_order
