"""The section with the weight explorer."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from mmoe_ranker.config import Config
from mmoe_ranker.errors import InputError
from mmoe_ranker.predictions import Predictions
from mmoe_ranker.report.document import Block, Finding, Section, Table, interval, listed, number, percent, signed
from mmoe_ranker.report.explorer import Explorer
from mmoe_ranker.weight_search import BALANCED, BETTER, CURRENT, WeightSearch

_PRESETS = {BALANCED: "Balanced", BETTER: "Better for all"}


def explorer_section(predictions: Predictions, config: Config, split: str) -> Section:
    """The section; a sentence where no request has a positive label.

    Args:
      predictions: of one split.
      config: the config that trained.
      split: its name.
    """
    try:
        explorer = Explorer.of(predictions, config)
        sentence = f"There is no weight explorer: no request of the {split} split has a positive label, and so no NDCG."
    except InputError as error:
        explorer, sentence = None, f"There is no weight explorer: {error}"
    if explorer is None:
        return Section("weights", "Weights", missing=[sentence])
    return Section(
        "weights",
        "Weights",
        paragraphs=[_formula(explorer.search), _sample_sentence(explorer, split)],
        findings=_findings(explorer.search),
        blocks=[Block("What each term does to the order", tables=[_effects(explorer.search)])],
        missing=explorer.search.notes,
        explorer=_controls(explorer, config),
    )


def _findings(search: WeightSearch) -> list[Finding]:
    tried = f"{number(len(search.weights) - 1)} other settings of the weights"
    if BETTER not in search.points:
        return [Finding(f"None of {tried} gains NDCG@{search.k} in every objective of the combined score.")]
    gains = search.points[BETTER].gains
    said = [
        f"{name} {signed(gains[name].value)} ({interval(gains[name].low, gains[name].high, 4)})"
        for name in search.signs
    ]
    return [
        Finding(
            f"Of {tried}, some gain NDCG@{search.k} in every objective, such as Better for all below: {listed(said)}. "
            "They were sought on these requests, which flatters them."
        )
    ]


def _formula(search: WeightSearch) -> str:
    form = (
        "the product of each prediction, raised to its weight"
        if search.score.form == "weighted_product"
        else "the sum of the predictions, each times its weight"
    )
    return f"Candidates are ordered by {form}. Move a weight, and the page orders them again."


def _sample_sentence(explorer: Explorer, split: str) -> str:
    requests, available = explorer.search.requests, explorer.available
    drawn = (
        f"all {number(requests)}" if requests == available else f"a random {number(requests)} of {number(available)}"
    )
    return (
        f"It computes on {drawn} requests of the {split} split that have a positive label, "
        f"{number(explorer.search.impressions)} impressions that this file holds; weights that look best on them "
        "should be confirmed on another split (mmoe-ranker score-weights does)."
    )


def _effects(search: WeightSearch) -> Table:
    rows = [
        [name, f"{weight:g}", number(effect.mean), number(effect.spread), percent(effect.share)]
        for (name, effect), weight in zip(search.effects.items(), search.score.weights, strict=True)
        if weight
    ]
    what = "log score" if search.score.form == "weighted_product" else "score"
    columns = ["term", "weight", f"mean in the {what}", "spread within requests", "share of the order"]
    return Table("The spread within requests moves the order, the mean does not", columns, rows)


def _controls(explorer: Explorer, config: Config) -> dict[str, Any]:
    objectives = [{"place": place} | control for place, control in enumerate(explorer.controls(config))]
    ranked = [objective["place"] for objective in objectives if objective["ranked"]]
    presets = [
        {"name": _preset(name), "weights": point.weights.tolist()}
        for name, point in explorer.search.points.items()
        if name != CURRENT
    ]
    return {
        "objectives": objectives,
        "k": explorer.search.k,
        "settings": len(explorer.search.weights),
        "presets": presets,
        "axes": {"x": ranked[0], "y": ranked[1]} if len(ranked) > 1 else None,
        "json": Markup(explorer.document(config)),
    }


def _preset(name: str) -> str:
    return _PRESETS.get(name) or f"Best for {name.removeprefix('best_')}"
