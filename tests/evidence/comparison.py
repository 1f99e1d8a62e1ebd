"""Arms against a control, seed by seed, and the table of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.evidence.intervals import over_seeds


def by_arm(rows: Sequence[dict[str, Any]], name: str) -> dict[str, list[float]]:
    """One figure of every row, by arm, in the order of the seeds."""
    arms: dict[str, list[float]] = {}
    for row in sorted(rows, key=lambda row: row["seed"]):
        arms.setdefault(row["arm"], []).append(row[name])
    return arms


def against_control(
    rows: Sequence[dict[str, Any]], control: str, names: Sequence[str], relative: bool = False
) -> dict[str, dict[str, Any]]:
    """Each arm's differences from the control, paired over seeds.

    Args:
      rows: with `arm`, `seed` and the figures; each arm has the same seeds.
      control: the arm that the others are held against.
      names: of the figures.
      relative: in percent of the control's figure rather than as they are.

    Returns:
      By figure and arm, the control included: `mean` over seeds, and for the others `difference`, an interval.
    """
    result: dict[str, dict[str, Any]] = {}
    for name in names:
        values = by_arm(rows, name)
        base = np.asarray(values[control])
        result[name] = {}
        for arm, figures in values.items():
            result[name][arm] = {"mean": float(np.mean(figures))}
            if arm != control:
                difference = np.asarray(figures) - base
                result[name][arm]["difference"] = over_seeds(
                    (100 * difference / base if relative else difference).tolist()
                )
    return result


def table(compared: dict[str, dict[str, Any]], digits: int, unit: str = "") -> str:
    """Markdown: a line an arm, a column a figure; the control's mean, the others' difference with its interval.

    A difference whose interval leaves out 0 is bold.
    """
    arms = list(next(iter(compared.values())))
    lines = [f"| arm | {' | '.join(compared)} |", "|---" * (len(compared) + 1) + "|"]
    for arm in arms:
        cells = []
        for figures in compared.values():
            entry = figures[arm].get("difference")
            if entry is None:
                cells.append(f"{figures[arm]['mean']:.4f}")
                continue
            mean = f"{entry['mean']:+.{digits}f}{unit}"
            strong = "**" if entry["excludes_0"] else ""
            cells.append(f"{strong}{mean}{strong} [{entry['low']:+.{digits}f}, {entry['high']:+.{digits}f}]")
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return "\n".join(lines)
