"""The section with the weight explorer."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from mmoe_ranker.config import Config
from mmoe_ranker.errors import InputError
from mmoe_ranker.predictions import Predictions
from mmoe_ranker.report.document import Block, Finding, Section, Table, interval, listed, number, percent, signed
from mmoe_ranker.report.explorer import SETTINGS, Explorer
from mmoe_ranker.weight_search import BALANCED, BETTER, CURRENT, WeightSearch

_PRESETS = {BALANCED: "Balanced", BETTER: "Better for all"}


def explorer_section(predictions: Predictions, config: Config, split: str, why: str = "") -> Section:
    """The section; a sentence where no request has a positive label.

    On the test split no weights are sought, since that split is there to judge what was chosen on others.

    Args:
      predictions: of one split.
      config: the config that trained.
      split: its name.
      why: the sentence on why it is not the validation split, or "".
    """
    sought = split != "test"
    try:
        explorer = Explorer.of(predictions, config, SETTINGS if sought else 1)
        sentence = f"There is no weight explorer: no request of the {split} split has a positive label, and so no NDCG."
    except InputError as error:
        explorer, sentence = None, f"There is no weight explorer: {error}"
    if explorer is None:
        return Section("weights", "Weights", missing=[*filter(None, [why]), sentence])
    missing = [*filter(None, [why]), *explorer.search.notes]
    if not sought:
        missing.append(
            "No weights are sought and no trade is drawn: chosen on the test split, they could not be judged."
        )
    return Section(
        "weights",
        "Weights",
        paragraphs=[_formula(explorer.search), _sample_sentence(explorer, split)],
        findings=_findings(explorer.search) if sought else (),
        blocks=[Block("What each term does to the order", tables=[_effects(explorer.search)])],
        missing=missing,
        explorer=_controls(explorer, config, sought),
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
        f"{number(explorer.search.impressions)} impressions that this file holds. Weights that look best on them look "
        "better than they are; mmoe-ranker score-weights --check test seeks weights on the validation split and judges "
        "those it finds on the test split."
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


def _controls(explorer: Explorer, config: Config, sought: bool) -> dict[str, Any]:
    objectives = [{"place": place} | control for place, control in enumerate(explorer.controls(config))]
    ranked = [objective["place"] for objective in objectives if objective["ranked"]]
    presets = [
        {"name": _preset(name), "weights": point.weights.tolist()}
        for name, point in explorer.search.points.items()
        if sought and name != CURRENT
    ]
    return {
        "objectives": objectives,
        "k": explorer.search.k,
        "settings": len(explorer.search.weights),
        "presets": presets,
        "axes": {"x": ranked[0], "y": ranked[1]} if sought and len(ranked) > 1 else None,
        "json": Markup(explorer.document(config)),
    }


def _preset(name: str) -> str:
    return _PRESETS.get(name) or f"Best for {name.removeprefix('best_')}"
