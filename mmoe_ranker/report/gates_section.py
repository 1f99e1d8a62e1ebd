"""What the gates do with the experts: utilisation and entropy, on the split and over the training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmoe_ranker import plots
from mmoe_ranker.config import Config
from mmoe_ranker.report.document import Block, Section, Table, number, percent
from mmoe_ranker.report.figures import page_figure

_TITLE = "Gates and experts"


def gates_section(report: Mapping[str, Any], experts: Mapping[str, Any] | None, config: Config) -> Section:
    """The section; a sentence where the model mixes no experts.

    Args:
      report: as `evaluation_metrics.evaluate` gives it.
      experts: section `experts` of `training.json`, or None.
      config: the config that trained.
    """
    gates = report.get("gates")
    if gates is None:
        kind = config.model.sharing.kind
        return Section(
            "gates", _TITLE, missing=[f"There are no gates: the model shares by {kind}, which mixes no experts."]
        )
    names = list(gates["objectives"])
    utilisation = [gates["objectives"][name]["utilisation"] for name in names]
    even = 1 / len(utilisation[0])
    figures = [
        page_figure(
            lambda: plots.gate_utilisation(utilisation, names),
            "utilisation",
            "Mean utilisation of each expert by each objective (the paper's figure 5)",
            f"A row sums to 1; {even:.2f} everywhere is an even gate. Rows that differ are objectives that use "
            "experts of their own; a column of zeros is an expert that nobody uses.",
        )
    ]
    missing = []
    if experts and experts["history"]:
        figures += [
            page_figure(
                lambda: plots.expert_history(experts),
                "expert-history",
                "Gates and experts over the training",
                "Above, 1 is an even gate, 0 one that has settled on a single expert: a fall to 0 is polarisation, "
                "against which gate dropout works. Below, a rise to 1 is experts that come to say the same.",
            ),
            page_figure(
                lambda: plots.expert_similarity(np.array(experts["similarity"], dtype=float)),
                "similarity",
                "Similarity of the experts' answers",
                "1 is two experts that say the same, at the price of two; 0 is nothing in common.",
            ),
        ]
    else:
        missing.append(
            "There is no history of the gates and no similarity of the experts: training.json holds none, as of "
            "trainings by an older version."
        )
    columns = ["objective", "entropy (nats)", "share of an even gate's", "polarised impressions"]
    rows = [
        [name, number(gate["entropy"], 3), percent(gate["entropy_share"]), percent(gate["polarised"])]
        for name, gate in gates["objectives"].items()
    ]
    sentence = (
        f"{gates['dead_experts']} of {len(utilisation[0])} experts are dead: no objective gives them a hundredth of an "
        "even share."
        if gates["dead_experts"]
        else f"All {len(utilisation[0])} experts are used."
    )
    table = Table("Polarised: an impression whose gate gives one expert more than 0.95", columns, rows)
    return Section("gates", _TITLE, [sentence], blocks=[Block(tables=[table], figures=figures)], missing=missing)
