"""What is known of the log over time: days, gaps, and whether feedback is still complete at its end."""

from __future__ import annotations

import datetime
import math
from typing import Any

import numpy as np

from mmoe_ranker.config import Config
from pipelines.checking.measures import impressions_of, labels_of
from pipelines.checking.tallies import DAY, Tally
from pipelines.summary import utc_time

TAILS = (0.01, 0.02, 0.05, 0.1)
"""Last shares of the impressions whose label rates are held against those of the half before."""
_SHOWN_GAPS = 5
_PERIODS = 10


def time_figures(config: Config, times: Tally, days: Tally) -> dict[str, Any]:
    """Days with their impressions and rates, the longest gaps between requests, and label rates at the end."""
    keys, day_keys = times.keys.astype(np.int64), days.keys.astype(np.int64)
    labels = labels_of(days.counts).sum(axis=2)  # [D, T, 2]
    rows = []
    for day, count, by_objective in zip(day_keys, impressions_of(days.counts).sum(axis=1), labels, strict=True):
        rates = {
            one.name: float(sums[1] / sums[0]) if sums[0] else None
            for one, sums in zip(config.objectives, by_objective, strict=True)
            if one.kind == "binary"
        }
        date = datetime.date(1970, 1, 1) + datetime.timedelta(days=int(day))
        rows.append({"day": date.isoformat(), "impressions": int(count), "rates": rates})
    return {
        "span_seconds": int(keys[-1] - keys[0]) / 1e6,
        "resolution_seconds": (1 << times.level) / 1e6,
        "days": rows,
        "days_without_requests": int(day_keys[-1] - day_keys[0] + 1 - len(day_keys)),
        **_gaps(keys, times.level),
        "end": {one.name: _end(times, place) for place, one in enumerate(config.objectives) if one.kind == "binary"},
    }


def _gaps(keys: np.ndarray, level: int) -> dict[str, Any]:
    """The longest gaps; and what is usual: the median, over days or tenths of the log, of the longest in each."""
    # Of times on a grid, the least that a gap can be: from the last moment of its cell.
    last = keys[:-1] + (1 << level) - 1
    gaps = keys[1:] - last
    if not len(gaps):
        return {"usual_gap_seconds": None, "longest_gaps": []}
    days = keys[:-1] // DAY
    span = max(int(keys[-1] - keys[0]), 1)
    period = days if len(np.unique(days)) >= 3 else (keys[:-1] - keys[0]) * _PERIODS // (span + 1)
    longest = np.maximum.reduceat(gaps, np.flatnonzero(np.diff(period, prepend=-1)))
    order = sorted(range(len(gaps)), key=lambda place: (-gaps[place], place))[:_SHOWN_GAPS]
    return {
        "usual_gap_seconds": float(np.median(longest)) / 1e6,
        "longest_gaps": [{"after": utc_time(int(last[place])), "seconds": int(gaps[place]) / 1e6} for place in order],
    }


def _end(times: Tally, objective: int) -> dict[str, Any] | None:
    """The tail of the log whose positive rate is lowest against the half before it, in standard errors.

    `z = (p_tail - p_before) / sqrt(p (1 - p) (1 / n_tail + 1 / n_before))`, p the rate of both together.
    """
    labels = labels_of(times.counts).sum(axis=2)[:, objective]  # [K, 2]
    share_after = 1.0 - np.cumsum(impressions_of(times.counts).sum(axis=1)) / impressions_of(times.counts).sum()
    found = []
    for tail in TAILS:
        late = share_after < tail - 1e-9
        before = ~late & (share_after < 0.5 + tail)
        (n_tail, s_tail), (n_before, s_before) = labels[late].sum(axis=0), labels[before].sum(axis=0)
        if not n_tail or not n_before or not s_before:
            continue
        pooled = (s_tail + s_before) / (n_tail + n_before)
        error = math.sqrt(pooled * (1 - pooled) * (1 / n_tail + 1 / n_before))
        rate, rate_before = float(s_tail / n_tail), float(s_before / n_before)
        z = (rate - rate_before) / error if error else 0.0
        found.append({"tail": tail, "rate": rate, "rate_before": rate_before, "standard_errors": z})
    return min(found, key=lambda one: one["standard_errors"]) if found else None


def feedback_end(config: Config, times: Tally, event_times: dict[str, tuple[int, int]]) -> dict[str, Any]:
    """By objective with a window, the share of impressions whose window the feedback log does not cover."""
    impressions = impressions_of(times.counts).sum(axis=1)
    last = max((end for _, end in event_times.values()), default=None)
    found = {}
    for objective in config.objectives:
        window = getattr(objective, "window", None)
        if window is not None and last is not None:
            open_ = times.keys.astype(np.int64) > last - int(window * 1e6)
            found[objective.name] = {"window": window, "uncovered": float(impressions[open_].sum() / impressions.sum())}
    return {"last_time": utc_time(last) if last is not None else None, "windows": found}
