"""Findings on positions: whether they are there, vary, and can be told from what stands at them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmoe_ranker.config import Config
from pipelines.checking.finding import Finding, number, percent

MISSING = 0.05
"""Share of impressions without position: the tower takes them for served ones, where position is missing too."""
FEW_COMPARISONS, NO_COMPARISON = 0.2, 0.02
"""Share of impressions whose item stands at two positions or more within one group. Below the one, few items carry the
comparison; below the other, position and item are one and the same, and a bias tower learns the items."""
CONNECTED = 0.9
"""Share of impressions at positions that shared items tie together."""
CONFOUNDED = -0.2
"""Rank correlation of what items are clicked anyway with their mean position. Simulated rankers that follow relevance
alone give -.25 to -.35, one with an agenda of its own -.05 to .15."""
RANDOM = 0.002
"""Share of impressions in random order below which four numbers an objective are fitted to chance: of a million
impressions 2,000, a hundred requests of twenty."""


def position_findings(config: Config, figures: dict[str, Any]) -> Iterator[Finding]:
    """Of positions and of the selection bias that is modelled."""
    found = figures["identifiability"]
    bias = config.model.bias
    modelled = "position" in getattr(bias, "features", ())
    if not found["impressions"]:
        if bias.kind == "none" or not modelled:
            yield Finding(
                "note",
                "position_absent",
                "position",
                "The log has no positions: position bias can be neither seen nor modelled.",
                "Log `position` with each impression, from 1.",
            )
        return
    if found["positions"] == 1:
        yield Finding(
            "error" if modelled else "note",
            "position_single",
            "position",
            "Every impression stands at the same position.",
            "See that `position` is logged as the place in the list; else take it out of `model.bias`.",
        )
        return
    yield from _places(figures, modelled)
    if not modelled:
        if bias.kind == "none":
            yield Finding(
                "note",
                "bias_not_modelled",
                "position",
                f"The log has {found['positions']} positions, and `model.bias` is none.",
                "Consider `model.bias: {kind: shallow_tower, ...}`, if users look at the first places most.",
            )
        return
    yield from _comparisons(found)
    yield from _confounding(bias, found)


def _places(figures: dict[str, Any], modelled: bool) -> Iterator[Finding]:
    coverage = figures["features"].get("position", {}).get("coverage", {})
    share = 1 - (coverage.get("train") or 0.0)
    if modelled and coverage and share > MISSING:
        yield Finding(
            "warning",
            "position_missing",
            "position",
            f"{percent(share)} of the training impressions have no position.",
            "Log it always: the tower takes missing for what is served, and learns that of these impressions.",
        )
    rows = figures["positions"].get("position", [])
    places = sorted(int(row["position"]) for row in rows)
    gaps = sorted(set(range(1, max(places, default=0) + 1)) - set(places))
    if gaps and len(gaps) <= len(places):
        yield Finding(
            "note",
            "position_gaps",
            "position",
            f"{len(gaps)} positions up to {places[-1]} never occur, the first is {gaps[0]}.",
            "Nothing, if something else stands there, such as advertisements.",
        )


def _comparisons(found: dict[str, Any]) -> Iterator[Finding]:
    share = found["at_several_positions_within_group"]
    within = f" for the same {' and '.join(found['within'])}" if found["within"] else ""
    random_order = (found["random_order"] or {}).get("share", 0.0)
    if share < FEW_COMPARISONS:
        nothing = share < NO_COMPARISON and random_order < RANDOM
        yield Finding(
            "error" if nothing else "warning",
            "bias_not_identifiable",
            "position",
            f"{percent(share)} of the impressions are of items that stand at several positions{within}"
            f" ({percent(found['at_several_positions'])} over all): "
            + ("position cannot be told from relevance." if nothing else "few items tell position from relevance."),
            "Show a small share of requests in random order (`model.bias: {kind: anchored, ...}`), give a longer log, "
            "or say `model.bias: {kind: none}`.",
        )
    elif found["connected"] < CONNECTED:
        yield Finding(
            "warning",
            "positions_not_connected",
            "position",
            f"Only {percent(found['connected'])} of the impressions stand at positions that share items{within} with "
            "the most frequent one: the others' bias cannot be compared with it.",
            "Give a longer log, or show a small share of requests in random order.",
        )


def _confounding(bias: Any, found: dict[str, Any]) -> Iterator[Finding]:
    follows = found["follows_relevance"]
    if follows is not None and follows < CONFOUNDED and bias.kind != "anchored":
        yield Finding(
            "warning",
            "position_follows_relevance",
            "position",
            f"Items that are clicked more anyway stand higher ({follows:.2f} rank correlation with mean position): "
            "the bias tower may explain away what belongs to relevance.",
            "Compare with `model.bias: {kind: none}` on requests in random order; with some of these in the log, "
            "`kind: anchored` weighs both readings.",
        )
    random_order = found["random_order"]
    if bias.kind == "anchored" and random_order is None:
        yield Finding(
            "warning",
            "random_order_unflagged",
            "position",
            "`model.bias` is anchored but names no `random_order`: half of each reading is served, by convention.",
            "Show a small share of requests in random order and flag them in the log.",
        )
    elif random_order is not None and random_order["share"] < RANDOM:
        yield Finding(
            "warning" if random_order["impressions"] else "error",
            "random_order_rare",
            random_order["feature"],
            f"{number(random_order['impressions'])} impressions ({percent(random_order['share'])}) are flagged as "
            "shown in random order by the value `true`.",
            "See how the log writes the flag, show more requests in random order, or say `kind: shallow_tower`.",
        )
