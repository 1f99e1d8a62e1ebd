"""Intervals over a handful of seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats


def over_seeds(values: Sequence[float], level: float = 0.95) -> dict[str, Any]:
    """Mean with Student's interval over independent seeds, and whether it excludes 0."""
    array = np.asarray(values, dtype=float)
    half = stats.t.ppf((1 + level) / 2, len(array) - 1) * array.std(ddof=1) / np.sqrt(len(array))
    low, high = array.mean() - half, array.mean() + half
    return {
        "mean": float(array.mean()),
        "low": float(low),
        "high": float(high),
        "excludes_0": bool(low > 0 or high < 0),
        "values": array.tolist(),
    }


def text(interval: dict[str, Any], digits: int = 4) -> str:
    """`mean [low, high]`."""
    return f"{interval['mean']:+.{digits}f} [{interval['low']:+.{digits}f}, {interval['high']:+.{digits}f}]"
