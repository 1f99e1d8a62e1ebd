"""Whole requests drawn from many impressions, so that what is repeated on them, as a search or a bootstrap, ends."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmoe_ranker import metrics

_SEED = 20190916  # the same evaluation gives the same requests


def sample_requests(requests: NDArray[Any], most: int) -> tuple[NDArray[np.intp] | None, str]:
    """Rows of requests drawn at random, as many as have `most` impressions together; one at least.

    Args:
        requests: [N], of each impression.
        most: Impressions, at most, unless one request alone has more.

    Returns:
        [M], rising rows, and a sentence on it; None and "" where all impressions are few enough.
    """
    if len(requests) <= most:
        return None, ""
    _, codes, sizes = np.unique(metrics.group_codes(requests), return_inverse=True, return_counts=True)
    drawn = np.random.default_rng(_SEED).permutation(len(sizes))
    whole = drawn[np.cumsum(sizes[drawn]) <= most]
    sentence = f"{len(whole):,} of {len(sizes):,} requests are drawn, so as to have {most:,} impressions at most."
    if not len(whole):
        whole = drawn[:1]
        sentence = f"1 of {len(sizes):,} requests is drawn, though it has more impressions than the {most:,} wanted."
    kept = np.zeros(len(sizes), dtype=bool)
    kept[whole] = True
    return np.flatnonzero(kept[codes]), sentence
