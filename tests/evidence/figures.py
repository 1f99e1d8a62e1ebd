"""The paper's figures 5, 6 and 7, redrawn: from the simulated world, and from public logs as far as these have it.

  simulated   all three, with the true examination beside figure 7
  trivago     all three, by device
  clara2      all three; it has no device
  kuairand    figure 5; it has no position

Figure 6 is of the test period's clicks, figure 7 of three trainings that differ in their seed. Beside them: examination
by every reference (by natural interventions from the whole log where it is a public one), calibration at each position,
and gates over the training where the training kept them.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from mmoe_ranker import plots
from mmoe_ranker.config_loading import load_config
from mmoe_ranker.position_bias import Examination, learned_curves, position_bias_report
from mmoe_ranker.simulation import DEVICES
from tests.evidence.bias_arms import UNITS, Arm, arm_of_examples, logged_examination, trained_arm
from tests.evidence.example_sets import SimulatedSet, public_set, simulated_config

SEEDS = (1, 2, 3)
DATA = ("simulated", "trivago", "clara2", "kuairand")
REQUESTS = 10_000


def run(
    folder: Path, seeds: Sequence[int] = SEEDS, data: Sequence[str] = DATA, requests: int = REQUESTS
) -> dict[str, Any]:
    """Trains where it has not been done, and draws.

    Args:
      folder: for the figures, `<data>_<figure>.png`; trainings lie beside it.
      seeds: one training each.
      data: among `DATA`.
      requests: of the simulated world.

    Returns:
      By data set, the report on position bias of the first training and the learned curves of all.
    """
    mpl.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {}
    for name in data:
        truth = None
        if name == "simulated":
            world = SimulatedSet((), 1, requests)
            examples = world.folder(folder.parent) / "examples"
            arms = [_simulated(folder.parent, examples, requests, seed) for seed in seeds]
            positions = np.arange(1, 21)
            truth = {one: world.logs().world.examination(place, positions) for place, one in enumerate(DEVICES)}
        elif name == "kuairand":
            examples = public_set(folder.parent, name) / "examples"
            arms = [arm_of_examples(folder.parent, "kuairand-1", load_config(name), examples)]
        else:
            arms = [trained_arm(folder.parent, name, "shallow_tower", seed) for seed in seeds]
        logged = logged_examination(folder.parent, name)[None] if name in UNITS else None
        result[name] = _draw(folder, name, arms, truth, logged)
    return result


def _simulated(root: Path, examples: Path, requests: int, seed: int) -> Arm:
    return arm_of_examples(root, f"simulated-{requests}-{seed}", simulated_config(seed), examples)


def _draw(
    folder: Path,
    name: str,
    arms: Sequence[Arm],
    truth: dict[str, np.ndarray] | None,
    logged: Examination | None,
) -> dict[str, Any]:
    first = arms[0]
    save = functools.partial(_save, folder, name)
    health = first.predictions.expert_health
    assert health is not None
    save("5_gates", plots.gate_utilisation(health.utilisation, first.config.objective_names))
    if first.experts is not None:
        save("gates_over_training", plots.expert_history(first.experts))
        save("expert_similarity", plots.expert_similarity(first.experts["similarity"]))
    report = position_bias_report(first.predictions, first.config, first.learned_bias)
    if report["rates"] is None:
        return {"report": report}
    groups = sorted({row["group"] for row in report["rates"]} - {None}) or [None]
    rates = {
        group or "all": {
            row["position"]: (row["rate"], row["low"], row["high"]) for row in report["rates"] if row["group"] == group
        }
        for group in groups
    }
    save("6_click_rate", plots.rate_by_position(rates, "CTR"))
    curves = learned_curves([one.learned_bias for one in arms], report["objective"])
    save("7_learned_bias", plots.learned_bias_over_seeds(curves, report["objective"], truth))
    if logged is not None:
        columns = (logged.positions, logged.values, logged.low, logged.high)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        report["examination"]["interventions"] = {
            "items": logged.num_items,
            "rows": [
                {"group": None, "position": position, "value": value, "low": low, "high": high}
                for position, value, low, high in rows
            ],
        }
    save("examination", plots.examination(report["examination"], curves if len(groups) == 1 else None))
    save("calibration", plots.calibration_by_position(report["calibration"], report["objective"]))
    return {"report": report, "learned": curves}


def _save(folder: Path, name: str, what: str, figure: Figure) -> None:
    figure.savefig(folder / f"{name}_{what}.png", dpi=110)
    plt.close(figure)
