"""Do gates polarise without gate dropout, and does dropout stop it (sec. 5.2.4)?

8 experts with it and without, 8 seeds. Read on the test split (`trainings.gate_health`): the share of impressions on
which one expert has more than 0.95 of a gate, and the entropy of gates as a share of the largest there is. The runs
are those of table 1, so what that has trained already is not trained again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.evidence.comparison import against_control, by_arm, table
from tests.evidence.table1 import FULL, Size, trained_arms

SEEDS = (1, 2, 3, 4, 5, 6, 7, 8)
DATA = ("simulated", "kuairand")
_WITH, _WITHOUT = "mmoe_8", "mmoe_8_no_dropout"
# A seed counts as polarised where more than this share of its gates is.
_POLARISED_SEED = 0.05


def run(folder: Path, seeds: Sequence[int] = SEEDS, data: Sequence[str] = DATA, size: Size = FULL) -> dict[str, Any]:
    """Trains with and without gate dropout, and compares the gates.

    Args:
      folder: beside the folders of table 1.
      seeds: of model, and of the world where it is simulated.
      data: as in table 1.
      size: how much.

    Returns:
      By data: seeds that polarised in each arm, and each figure with the difference that dropout makes.
    """
    result: dict[str, Any] = {}
    for name in data:
        rows = trained_arms(folder.parent, name, [_WITHOUT, _WITH], seeds, size)
        flat = [{"arm": row["arm"], "seed": row["seed"], **row["gates"]} for row in rows]
        compared = against_control(flat, _WITHOUT, ["polarised", "entropy", "top", "dead"])
        shares = by_arm(flat, "polarised")
        seeds_polarised = {arm: int((np.array(values) > _POLARISED_SEED).sum()) for arm, values in shares.items()}
        result[name] = {"seeds_polarised": seeds_polarised, "polarised_by_seed": shares, "compared": compared}
        print(f"\n{name}: seeds polarised {seeds_polarised} of {len(seeds)}\n\n{table(compared, 4)}")
    return result
