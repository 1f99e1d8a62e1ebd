"""Everything about position bias that the predictions of one split can say, as one document for JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmoe_ranker.config import Config
from mmoe_ranker.json_numbers import without_nan
from mmoe_ranker.position_bias.calibration import PositionCalibration, calibration_by_position
from mmoe_ranker.position_bias.confounding import order_agreement
from mmoe_ranker.position_bias.em import examination_by_prediction
from mmoe_ranker.position_bias.interventions import Examination
from mmoe_ranker.position_bias.learned import learned_curves
from mmoe_ranker.position_bias.overlap import click_objective, identifiability
from mmoe_ranker.position_bias.positioned_rows import POSITION, PositionedRows
from mmoe_ranker.position_bias.propensity import CLIP, inverse_propensity_ndcg
from mmoe_ranker.position_bias.rates import PositionRates, rates_by_position
from mmoe_ranker.predictions import Predictions

COMPARABLE = 0.9
"""Share of the clicks at positions that natural interventions reach, from which on they are the propensities."""
MOST_GROUPS = 8
"""The largest groups that get a curve of their own."""


def position_bias_report(
    predictions: Predictions, config: Config, learned_bias: Sequence[Mapping[str, Any]] | None = None
) -> dict[str, Any]:
    """Measures position bias in a split, and what a ranker made of it.

    Args:
      predictions: of one split, with the bias features missing, and where the model has any, with them seen.
      config: that trained.
      learned_bias: rows of `evaluation.learned_bias`, or None.

    Returns:
      A dict that `json.dumps` takes; whatever cannot be computed is None, and `notes` says why.

        notes         sentences: what could not be computed, and why; empty where everything could
        objective     the one that is looked at: the first binary one of the bias tower's, else the first binary one
        groups        the features whose values are `group` below, such as ["device"]; [] where there is none
        positions     the positions of the split, ascending
        rates         rows `group`, `position`, `impressions`, `rate`, `low`, `high` (fig. 6); group None is all of them
        learned       rows as `learned_curves` has them (fig. 7): `group`, `position`, `odds`, ...; or None
        examination   None, or chance of being examined relative to the first position:
          interventions   `items` that count, and `rows`: `group` (None is all, compared within groups), `position`,
                          `value`, `low`, `high`, `items`, `clicks`; AllPairs, items within group, bootstrap over
                          items; `high` is None where the first position may have no click
          by_item         rows `position`, `value`: one relevance an item and group (`overlap.examination`)
          em_by_prediction   rows `position`, `value`: EM with the ranker's prediction, position missing
          predicted_seen, predicted_missing   rows `position`, `value`, `low`, `high`: AllPairs on the ranker's
                          predictions in place of clicks, with positions seen (what the ranker says a position does;
                          None without) and missing (1 where relevance does not move with position)
        overlap       as `identifiability` has it, its `examination` left out: `items`, `impressions`,
                      `at_several_positions`, `at_several_positions_within_group`, `connected`, `follows_relevance`
        confounding   `value`, `low`, `high`, `requests`: rank correlation of the order shown with that of the
                      predictions, position missing; 1 is the same order
        ndcg          `k`, `clip`, `propensities` ("interventions", of the impression's group where
                      that reaches enough, or "em_by_prediction"), `logged` (clicks as they are:
                      `value`, `low`, `high`, ...) and `inverse_propensity` (`value`, `low`, `high`, `clicks`,
                      `clicks_without_propensity`, `clipped`, `effective_clicks`, `requests`), of the order by the
                      objective's prediction, position missing
        calibration   `missing` and `seen` (None without): rows `position`, `impressions`, `rate`, `predicted`,
                      `ratio`, `low`, `high`
    """
    objective = click_objective(config)
    report: dict[str, Any] = {"notes": [], "objective": objective, "groups": [], "positions": []}
    report |= dict.fromkeys(("rates", "learned", "examination", "overlap", "confounding", "ndcg", "calibration"))
    notes: list[str] = report["notes"]
    if objective is None:
        notes.append("Position bias was not measured: the config has no binary objective without `given`.")
        return report
    if learned_bias:
        report["learned"] = _learned(learned_bias, objective, notes)
    elif config.model.bias.kind in ("shallow_tower", "anchored"):
        notes.append(
            "There is no learned bias: the shallow tower was not read, as where its features have more than 10,000 "
            "combinations of values."
        )
    else:
        notes.append("There is no learned bias: the model has no shallow tower.")
    rows = PositionedRows.of(predictions, config, objective, notes)
    if rows is None:
        return report
    report["groups"] = list(rows.features)
    report["positions"] = np.unique(rows.positions).tolist()
    if report["learned"] is not None:
        report["learned"] = [row for row in report["learned"] if row["position"] in report["positions"]]
    report["rates"] = _rates(rows)
    report["confounding"] = without_nan(order_agreement(rows.missing, rows.positions, rows.requests)._asdict())
    if rows.seen is None:
        notes.append("There are no predictions with the position seen: the model knows no bias feature.")
    report["calibration"] = {
        "missing": _calibration(calibration_by_position(rows.labels, rows.missing, rows.positions, rows.requests)),
        "seen": None
        if rows.seen is None
        else _calibration(calibration_by_position(rows.labels, rows.seen, rows.positions, rows.requests)),
    }
    overlap = identifiability(rows.overlap())
    by_item = [{"position": int(place), "value": value} for place, value in overlap.pop("examination").items()]
    report["overlap"] = overlap
    if len(report["positions"]) < 2:
        notes.append("Examination was not estimated: every impression stands at the same position.")
        return report
    if rows.labels.min() == rows.labels.max():
        notes.append(f"Examination and NDCG were not estimated: every label of `{objective}` is {rows.labels.min():g}.")
        return report
    report["examination"], propensities, source = _examination(rows, by_item, notes)
    report["ndcg"] = _ndcg(rows, propensities, source, config.evaluation.ndcg_k)
    return report


def _rates(rows: PositionedRows) -> list[dict[str, Any]]:
    tables: list[tuple[PositionRates, bool]] = [(rates_by_position(rows.labels, rows.positions, rows.requests), False)]
    if rows.features:
        tables.append((rates_by_position(rows.labels, rows.positions, rows.requests, rows.groups), True))
    names = ("group", "position", "impressions", "rate", "low", "high")
    return [
        dict(zip(names, (str(group) if grouped else None, *(value.item() for value in values)), strict=True))
        for table, grouped in tables
        for group, *values in zip(*table, strict=True)
    ]


def _learned(
    learned_bias: Sequence[Mapping[str, Any]], objective: str, notes: list[str]
) -> list[dict[str, Any]] | None:
    if POSITION not in learned_bias[0] or objective not in learned_bias[0]:
        notes.append(f"There is no learned bias of `{objective}` by position: the shallow tower does not have it.")
        return None
    return learned_curves([learned_bias], objective)


def _examination(
    rows: PositionedRows, by_item: list[dict[str, Any]], notes: list[str]
) -> tuple[dict[str, Any], NDArray[np.float64], str]:
    """The curves, the propensity of each impression [M], and what that is from."""
    together = rows.intervene(rows.labels)
    names, counts = np.unique(rows.groups, return_counts=True)
    of_groups = {str(name): rows.of_group(name) for name in names[np.argsort(-counts)][:MOST_GROUPS]}
    curves = {name: part.intervene(part.labels) for name, part in sorted(of_groups.items())} if rows.features else {}
    predicted = examination_by_prediction(rows.missing, rows.positions, rows.labels)
    propensities, source = together.at(rows.positions), "interventions"
    for name, curve in curves.items():
        of_group = rows.groups == name
        own = curve.on_scale_of(together, rows.positions[of_group])
        if curve.suffices and _reached(own, rows.labels[of_group]) >= COMPARABLE:
            propensities[of_group] = own
    if not (together.suffices and _reached(together.at(rows.positions), rows.labels) >= COMPARABLE):
        notes.append(
            f"Natural interventions are too few ({together.num_items} items count, "
            f"{together.outcomes.sum():.0f} clicks of theirs): NDCG is weighed by EM with the ranker's predictions."
        )
        place = np.searchsorted(predicted[0], rows.positions)
        propensities, source = predicted[1][place], "em_by_prediction"
    document = {
        "interventions": {
            "items": together.num_items,
            "rows": [
                {"group": name, **row} for name, curve in ((None, together), *curves.items()) for row in _curve(curve)
            ],
        },
        "by_item": by_item,
        "em_by_prediction": _table(dict(zip(("position", "value"), predicted, strict=True))),
        "predicted_seen": None if rows.seen is None else _curve(rows.intervene(rows.seen)),
        "predicted_missing": _curve(rows.intervene(rows.missing)),
    }
    return document, np.where(propensities > 0, propensities, np.nan), source


def _reached(propensities: NDArray[np.float64], labels: NDArray[np.float64]) -> float:
    """Share of the clicks at positions that have a propensity."""
    return float(np.mean(propensities[labels == 1] > 0))


def _curve(examination: Examination) -> list[dict[str, Any]]:
    return _table(
        {
            "position": examination.positions,
            "value": examination.values,
            "low": examination.low,
            "high": examination.high,
            "items": examination.items,
            "clicks": examination.outcomes,
        }
    )


def _ndcg(rows: PositionedRows, propensities: NDArray[np.float64], source: str, k: int) -> dict[str, Any]:
    logged = inverse_propensity_ndcg(rows.labels, rows.missing, rows.requests, np.ones(len(rows.labels)), k, clip=1.0)
    weighed = inverse_propensity_ndcg(rows.labels, rows.missing, rows.requests, propensities, k)
    return {
        "k": k,
        "clip": CLIP,
        "propensities": source,
        "logged": without_nan(logged._asdict()),
        "inverse_propensity": without_nan(weighed._asdict()),
    }


def _calibration(calibration: PositionCalibration) -> list[dict[str, Any]]:
    columns = {
        "position": calibration.rates.positions,
        "impressions": calibration.rates.impressions,
        "rate": calibration.rates.rates,
        "predicted": calibration.predicted,
        "ratio": calibration.ratio,
        "low": calibration.low,
        "high": calibration.high,
    }
    return _table(columns)


def _table(columns: Mapping[str, NDArray[Any]]) -> list[dict[str, Any]]:
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [without_nan(dict(zip(columns, row, strict=True))) for row in rows]
