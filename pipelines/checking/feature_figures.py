"""What is known of each feature: coverage, values, drift between the splits, how well it alone tells each label."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from mmoe_ranker.config import Config, Feature
from pipelines.checking.measures import LABEL_UNIT, Measures, impressions_of, labels_of
from pipelines.checking.statistics import (
    BINS,
    DRIFT_BINS,
    TOP,
    bin_codes,
    drift,
    drift_by_chance,
    out_of_fold_auc,
    out_of_fold_explained,
    quantiles,
    shared_rows,
    skewness,
    weighted_auc,
)
from pipelines.checking.tallies import Tally, among, sum_by
from pipelines.splits import SPLITS

SHARES = {"min": 0.0, "p1": 0.01, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p99": 0.99, "max": 1.0}
MIN_JUDGED = 50
"""Labels of each class below which a feature is not said to tell them: of 20 positives an area is off by .1."""
_SHOWN_VALUES = 10
_TOTAL_UNITS = np.array([1.0, 1.0, 1.0 / LABEL_UNIT])


def feature_figures(config: Config, feature: Feature, measures: Measures) -> dict[str, Any]:
    """The figures of one feature, ready for JSON; None for a share of nothing."""
    whole = measures.tallies[feature.name, {"sequence": "length", "vector": "norm"}.get(feature.kind, "value")]
    present, missing = impressions_of(whole.counts).sum(axis=0), impressions_of(whole.missing)
    figures: dict[str, Any] = {
        "kind": feature.kind,
        "side": feature.side,
        "missing": int(missing.sum()),
        "coverage": _by_split(present, present + missing),
    }
    if feature.kind in ("categorical", "sequence"):
        aspect = "value" if feature.kind == "categorical" else "elements"
        figures |= _values(config, feature, measures.tallies[feature.name, aspect], measures)
    if feature.kind != "categorical":
        figures |= _numbers(feature, whole)
    if feature.kind == "vector":
        low, high = measures.extremes.get(feature.name, np.zeros((2, 0)))
        figures["constant_numbers"] = int((low == high).sum())
    figures["drift"] = _drift(feature, measures)
    figures["tells"] = {
        objective.name: _tells(config, feature, place, measures) for place, objective in enumerate(config.objectives)
    }
    return figures


def _values(config: Config, feature: Any, tally: Tally, measures: Measures) -> dict[str, Any]:
    counts = impressions_of(tally.counts)
    total = counts.sum(axis=1)
    assert tally.names is not None
    names = tally.names.tolist()
    # By count, then name: the order of hashes means nothing to a reader.
    order = sorted(np.argsort(-total, kind="stable")[: 4 * _SHOWN_VALUES], key=lambda i: (-total[i], names[i]))
    shown = [
        {"value": names[place], "count": int(total[place]), "share": _share(total[place], total.sum())}
        for place in order[:_SHOWN_VALUES]
    ]
    figures = {"distinct": tally.distinct, "distinct_error": tally.relative_error, "most_frequent": shown}
    table: Any = config.feature(feature.embedding) if getattr(feature, "embedding", None) else feature
    if table.vocabulary is not None:
        figures["unknown"] = _unknown(table, tally, measures)
    if feature is table and table.vocabulary == "auto":
        known = counts[:, 0] >= table.min_count
        figures["vocabulary"] = {
            "kept": int(known.sum()) << tally.level,
            "too_rare": int(((counts[:, 0] > 0) & ~known).sum()) << tally.level,
            "too_rare_share": _share(counts[~known, 0].sum(), counts[:, 0].sum()),
        }
    if feature is table and table.buckets is not None:
        figures["shared_rows"] = shared_rows(tally.distinct, table.buckets, table.hashes)
    if feature is table and table.size is not None:
        figures["at_limit"] = _share(total[tally.names == str(table.size)].sum(), total.sum())
    return figures


def _unknown(table: Any, tally: Tally, measures: Measures) -> dict[str, float | None]:
    """By split, the share of values that have no row of their own in the vocabulary."""
    level = tally.level
    if table.vocabulary == "auto":
        source = measures.tallies[table.name, "value" if table.kind == "categorical" else "elements"]
        keys = source.keys[impressions_of(source.counts)[:, 0] >= table.min_count]
        level = max(level, source.level)
    else:
        keys = pd.util.hash_array(np.array(table.vocabulary, dtype=object), categorize=False)
    # Both are samples of the values by the same hash: they can be compared where both are complete.
    stay = tally.keys >> np.uint64(64 - level) == 0 if level else np.ones(len(tally.keys), bool)
    counts = impressions_of(tally.counts)[stay]
    return _by_split(counts[~among(tally.keys[stay], keys)].sum(axis=0), counts.sum(axis=0))


def _numbers(feature: Any, tally: Tally) -> dict[str, Any]:
    counts = impressions_of(tally.counts).sum(axis=1)
    total, numbers = counts.sum(), tally.numbers
    if not total:
        return {}
    figures: dict[str, Any] = {
        "quantiles": dict(zip(SHARES, quantiles(numbers, counts, list(SHARES.values())), strict=True)),
        "zeros": _share(counts[np.abs(numbers) < np.finfo(np.float32).tiny].sum(), total),
    }
    if feature.kind == "numeric":
        figures["distinct"] = tally.distinct
        figures["skewness"] = skewness(numbers, counts)
        figures["skewness_log1p"] = skewness(np.log1p(numbers), counts) if numbers.min() > -1 else None
    if feature.kind == "sequence":
        figures["at_limit"] = _share(counts[numbers >= feature.max_length].sum(), total)
    return figures


def _drift(feature: Feature, measures: Measures) -> dict[str, Any]:
    aspect = {"sequence": "elements", "vector": "norm"}.get(feature.kind, "value")
    tally = measures.tallies[feature.name, aspect]
    counts = impressions_of(tally.counts)
    if tally.kind == "numbers":
        codes = bin_codes(counts[:, 0], DRIFT_BINS)
    else:
        codes = np.full(len(counts), TOP)
        codes[np.argsort(-counts[:, 0], kind="stable")[:TOP]] = np.arange(min(TOP, len(counts)))
    bins = np.concatenate([sum_by(codes, counts, codes.max(initial=0) + 1), impressions_of(tally.missing)[np.newaxis]])
    bins = bins[bins.sum(axis=1) > 0]
    found: dict[str, Any] = {}
    for place, split in enumerate(SPLITS[1:], start=1):
        rows = [measures.splits.get(one) for one in ("train", split)]
        if None in rows:
            found[split] = None
            continue
        # What a request says once is one draw, however many impressions it has.
        draws = [one.requests if feature.side == "context" else one.examples for one in rows]  # type: ignore[union-attr]
        index = drift(bins[:, 0], bins[:, place])
        found[split] = None if index is None else {"index": index, "by_chance": drift_by_chance(len(bins), *draws)}
    return found


def _tells(config: Config, feature: Feature, place: int, measures: Measures) -> dict[str, Any] | None:
    """How well the feature alone tells objective `place`: the best of what its aspects give; None: too few labels."""
    binary = config.objectives[place].kind == "binary"
    totals = measures.totals.sum(axis=0)[:, place]  # [2, 3]
    labelled, positives = totals[:, 0].sum(), totals[:, 1].sum()
    if min(positives, labelled - positives) < MIN_JUDGED if binary else labelled < MIN_JUDGED:
        return None
    found = []
    for aspect in ("value", "length", "norm", "item"):
        if (tally := measures.tallies.get((feature.name, aspect))) is None:
            continue
        counts = labels_of(tally.counts)[:, place]  # [K, 2, 2]
        missing = labels_of(tally.missing)[place][np.newaxis]
        by = aspect if tally.kind == "categories" else f"{aspect} in bins"
        if tally.kind == "numbers":
            if binary:
                area = weighted_auc(tally.numbers, *counts.sum(axis=1).T)
                found += [(max(area, 1 - area), f"order of {aspect}")] if area is not None else []
            codes = bin_codes(impressions_of(tally.counts).sum(axis=1), BINS)
            counts = np.stack([sum_by(codes, counts[..., one], BINS) for one in (0, 1)], axis=-1)
        counts = np.concatenate([counts, missing])
        if binary:
            share = out_of_fold_auc(counts[..., 0], counts[..., 1])
        else:
            # Of a sample of the values the totals would not be the sum.
            sampled = tally.kind == "categories" and tally.level > 0
            share = None if sampled else out_of_fold_explained(counts[..., 0], counts[..., 1], totals * _TOTAL_UNITS)
        found += [(share, by)] if share is not None else []
    if not found:
        return None
    best, by = max(found)
    return {"auc" if binary else "explained": best, "by": by}


def _by_split(part: np.ndarray, whole: np.ndarray) -> dict[str, float | None]:
    return {split: _share(a, b) for split, a, b in zip(SPLITS, part, whole, strict=True)}


def _share(part: Any, whole: Any) -> float | None:
    return float(part) / float(whole) if whole else None
