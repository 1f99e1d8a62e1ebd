"""What shallow towers learned of each position, over trainings that differ in their seed alone (fig. 7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmoe_ranker.errors import InputError

_NO_GROUP = ""


def learned_curves(runs: Sequence[Sequence[Mapping[str, Any]]], objective: str) -> list[dict[str, Any]]:
    """The learned bias of one objective relative to the first position, each run's and their mean and spread.

        odds_k = exp(bias_k - bias_first)

    The factor by which the tower says that standing at k rather than first changes the odds of the event; where
    events are rare, that is the examination relative to the first position. A difference, because a tower is free up to
    a constant, which the main tower takes.

    Args:
      runs: of each training, the rows of `evaluation.learned_bias`.
      objective: whose logits.

    Returns:
      A row a group and position, ascending: `group` (the values of the tower's other features, such as the device,
      joined by ", "; "" where position is the only one), `position`, `odds` and `logit` (mean over runs; of the odds,
      the geometric one), `spread` (standard deviation of the logit over runs; None for one), `low` and `high` (least
      and greatest odds of a run), `runs` (the odds of each). Rows of a missing value are left out.

    Raises:
      InputError: there is no run, or runs differ in their rows, or have no position or no such objective.
    """
    if not runs:
        raise InputError("`runs` must be learned biases, one or more. Received: none.")
    curves = [_logits(rows, objective) for rows in runs]
    keys = sorted(curves[0])
    for curve in curves[1:]:
        if sorted(curve) != keys:
            raise InputError(
                "`runs` must have learned the same positions of the same groups. "
                f"Received: {len(keys)} rows and {len(curve)} rows."
            )
    logits: NDArray[np.float64] = np.array([[curve[key] for key in keys] for curve in curves])  # [runs, rows]
    spread = logits.std(axis=0, ddof=1).tolist() if len(runs) > 1 else [None] * len(keys)
    return [
        {
            "group": group,
            "position": position,
            "logit": float(logits[:, column].mean()),
            "spread": spread[column],
            "odds": float(np.exp(logits[:, column].mean())),
            "low": float(np.exp(logits[:, column].min())),
            "high": float(np.exp(logits[:, column].max())),
            "runs": np.exp(logits[:, column]).tolist(),
        }
        for column, (group, position) in enumerate(keys)
    ]


def _logits(rows: Sequence[Mapping[str, Any]], objective: str) -> dict[tuple[str, int], float]:
    """By group and position, the logit less that of the group's first position."""
    curve: dict[tuple[str, int], float] = {}
    for row in rows:
        if "position" not in row or objective not in row:
            raise InputError(
                f"A learned bias must have rows with `position` and `{objective}`. Received: {sorted(row)}."
            )
        # Values of features are text, whole numbers or None; logits are floats.
        others = [name for name, value in row.items() if name != "position" and not isinstance(value, float)]
        if row["position"] is None or row["position"] < 1 or any(row[name] is None for name in others):
            continue
        curve[", ".join(str(row[name]) for name in others) or _NO_GROUP, int(row["position"])] = float(row[objective])
    groups = {group for group, _ in curve}
    missing = sorted(group for group in groups if (group, 1) not in curve)
    if missing or not groups:
        raise InputError(f"A learned bias must have position 1 in each group. Received: none in {missing}.")
    return {(group, position): logit - curve[group, 1] for (group, position), logit in curve.items()}
