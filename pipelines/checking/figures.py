"""The figures of `check`, one document ready for JSON; `--json` writes it with the findings.

impressions, feedback  what was read and set aside, as in summary.json; first and last time by event
splits                 impressions, requests, first and last time
features               `coverage` and `drift` by split; `tells`, by objective: `auc` of a binary label, share of the
                       variance `explained` of another, and `by` what; then by kind
                         values   `distinct` (`distinct_error`: three standard deviations, relative),
                                  `most_frequent`, share `unknown` to the vocabulary by split, `vocabulary`, expected
                                  share of values with `shared_rows` of a hashed table, share `at_limit` of `size`
                         numbers  `quantiles` (of lengths, of norms), share of `zeros`, `skewness`; `at_limit`, the
                                  share of lists of `max_length`; `constant_numbers` of vectors
objectives             labels by split; `quantiles`, and `tail_share`, the part of the variance of one in a thousand
positions              impressions and rates by feature of the bias tower, and by cross
identifiability        see `overlap`
time                   `days`, gaps, rates at the `end` against the half before, windows that feedback does not cover
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np

from mmoe_ranker.config import Config
from mmoe_ranker.position_bias.overlap import click_objective, grouping_features, identifiability
from pipelines.checking.feature_figures import SHARES, feature_figures
from pipelines.checking.measures import Measures, impressions_of, labels_of
from pipelines.checking.measuring import SEPARATOR, cross_names
from pipelines.checking.statistics import quantiles, tail_share
from pipelines.checking.tallies import Tally
from pipelines.checking.time_figures import feedback_end, time_figures
from pipelines.splits import SPLITS
from pipelines.summary import feedback_counts, impression_counts, utc_time

FORMAT = 1
TAIL = 0.001
"""The share of a regression's labels whose part in the variance is looked at."""


def figures_of(
    config: Config, counts: Counter[tuple[str, ...]], measures: Measures, event_times: dict[str, tuple[int, int]]
) -> dict[str, Any]:
    """Everything that `check` reports but its findings.

    Args:
      config: what the logs are held against.
      counts: of the job.
      measures: of all joined impressions.
      event_times: by event, the first and last time in UTC microseconds.
    """
    rows = measures.splits.values()
    return {
        "format": FORMAT,
        "config": config.name,
        "impressions": impression_counts(counts, sum(one.requests for one in rows), sum(one.examples for one in rows)),
        "feedback": feedback_counts(config, counts)
        | {"times": {name: [utc_time(one) for one in times] for name, times in sorted(event_times.items())}},
        "splits": {split: _split(measures, split) for split in SPLITS},
        "features": {feature.name: feature_figures(config, feature, measures) for feature in config.features},
        "objectives": {one.name: _objective(config, place, measures) for place, one in enumerate(config.objectives)},
        "positions": _positions(config, measures),
        "identifiability": {
            "objective": click_objective(config),
            "within": list(grouping_features(config)),
            **identifiability(measures.overlap),
            "random_order": _random_order(config, measures),
        },
        "time": time_figures(config, measures.times, measures.days)
        | {"feedback": feedback_end(config, measures.times, event_times)},
    }


def _split(measures: Measures, split: str) -> dict[str, Any]:
    if split not in measures.splits:
        return {"impressions": 0, "requests": 0, "first_time": None, "last_time": None}
    rows = measures.splits[split]
    return {
        "impressions": rows.examples,
        "requests": rows.requests,
        "first_time": utc_time(rows.first_time),
        "last_time": utc_time(rows.last_time),
    }


def _objective(config: Config, place: int, measures: Measures) -> dict[str, Any]:
    objective = config.objectives[place]
    figures: dict[str, Any] = {"kind": objective.kind, "event": objective.event, "given": objective.given, "splits": {}}
    for split, totals in zip(SPLITS, measures.totals.sum(axis=1)[:, place], strict=True):
        labelled, positives, _ = (int(one) for one in totals)
        figures["splits"][split] = {"labelled": labelled}
        if objective.kind == "binary":
            figures["splits"][split] |= {"positives": positives, "rate": positives / labelled if labelled else None}
    if objective.kind == "regression":
        tally = measures.labels[objective.name]
        numbers, by_split = tally.numbers, impressions_of(tally.counts)
        for split, counts in zip(SPLITS, by_split.T, strict=True):
            mean = float(np.average(numbers, weights=counts)) if counts.sum() else None
            figures["splits"][split]["mean"] = mean
        counts = by_split.sum(axis=1)
        if counts.sum():
            found = quantiles(numbers, counts, list(SHARES.values()))
            figures["quantiles"] = dict(zip(SHARES, found, strict=True))
            learned = np.log1p(numbers) if objective.transform == "log1p" else numbers
            figures["tail_share"] = tail_share(learned, counts, TAIL)
    return figures


def _positions(config: Config, measures: Measures) -> dict[str, list[dict[str, Any]]]:
    """Impressions and rates of the binary objectives by what the bias tower sees, and by position in any case."""
    single = [name for name in getattr(config.model.bias, "features", ()) if (name, "value") in measures.tallies]
    if not single and ("position", "value") in measures.tallies:
        single = ["position"]
    tables = {name: _rates(config, (name,), measures.tallies[name, "value"]) for name in single}
    for names in cross_names(config):
        tables[" x ".join(names)] = _rates(config, names, measures.crosses[names])
    return tables


def _rates(config: Config, names: tuple[str, ...], tally: Tally) -> list[dict[str, Any]]:
    assert tally.names is not None
    rows = []
    values = [tuple(name.split(SEPARATOR)) for name in tally.names.tolist()]
    for place in sorted(range(len(values)), key=lambda place: [_natural(value) for value in values[place]]):
        row: dict[str, Any] = dict(zip(names, values[place], strict=True))
        row["impressions"] = int(impressions_of(tally.counts[place]).sum())
        row["rates"] = {}
        for objective, sums in zip(config.objectives, labels_of(tally.counts[place]).sum(axis=1), strict=True):
            if objective.kind == "binary":
                row["rates"][objective.name] = float(sums[1] / sums[0]) if sums[0] else None
        rows.append(row)
    return rows


def _natural(value: str) -> tuple[float, str]:
    """Sorts numbers as numbers, before other text."""
    return (float(value), value) if value.isdecimal() else (math.inf, value)


def _random_order(config: Config, measures: Measures) -> dict[str, Any] | None:
    """The impressions that the config's flag says were shown in random order; None where it names no flag."""
    name = getattr(config.model.bias, "random_order", None)
    if name is None:
        return None
    tally = measures.tallies[name, "value"]
    assert tally.names is not None
    flagged = int(impressions_of(tally.counts)[tally.names == "true"].sum())
    total = sum(one.examples for one in measures.splits.values())
    return {"feature": name, "impressions": flagged, "share": flagged / total}
