"""Findings on features: coverage, values and their table, distribution, drift, leaks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmoe_ranker.config import Config
from pipelines.checking.finding import Finding, number, percent
from pipelines.splits import SPLITS

RARE = 0.01
"""Coverage below which a feature is all but absent: its embedding or weight sees one impression in a hundred."""
TOO_RARE = 0.3
"""Share of the training values that a vocabulary may leave out; beyond, many impressions share a few rows."""
UNKNOWN = 0.3
"""Likewise for values of later splits: beyond, what was learned of the values says little about tomorrow."""
SHARED_ROWS = 0.5
"""Share of values without a row of their own, from which on most embeddings are mixtures."""
LARGE_VOCABULARY = 5_000_000
"""A vocabulary is a constant in the exported graph; some millions of values are what that bears."""
AT_LIMIT = 0.05
"""Share of integers at `size`: where a log cuts what is larger down to it, that value stands for many."""
SKEW = 3.0
"""Skewness of a heavy tail (of an exponential distribution it is 2): after normalising, most values are near one."""
ZEROS = 0.2
"""Share of vectors that are all zeros, as where a content model had nothing to say."""
DRIFT, SOME_DRIFT = 0.25, 0.1
"""The customary thresholds of the population stability index: a major and a moderate shift."""
_LISTED = 8
LEAK, NEARLY_LEAK = 0.95, 0.9
"""AUC of one feature alone. Good rankers on all features together reach .75 to .9; what is alone beyond .95 knows."""
LEAK_EXPLAINED = 0.9
"""Likewise the share of the variance of a regression's label."""


def feature_findings(config: Config, figures: dict[str, Any]) -> Iterator[Finding]:
    """Of all features."""
    for feature in config.features:
        found = figures["features"][feature.name]
        coverage = found["coverage"]
        if not any(coverage.values()):
            yield Finding(
                "error",
                "feature_never_present",
                feature.name,
                f"`{feature.name}` is missing in all {number(found['missing'])} impressions.",
                _where_it_comes_from(feature),
            )
            continue
        yield from _coverage(feature, found)
        yield from _values(feature, found)
        if feature.name != config.split.by:
            yield from _unknown(feature, found)
        yield from _distribution(feature, found)
        yield from _leaks(feature, found)
    # The feature that the split goes by differs between the splits because it is told to.
    yield from _drift({name: found for name, found in figures["features"].items() if name != config.split.by})


def _where_it_comes_from(feature: Any) -> str:
    if feature.table is not None:
        return f"See that the table `{feature.table}` has this column, and keys and times that belong to the log."
    if getattr(feature, "history", None) is not None:
        return f"See that `{feature.history.by}` is logged, and events `{feature.history.event}`."
    where = {"context": "`context`", "candidate": "`impressions[].item`", "bias": "`impressions[]` or `context`"}
    return f"Log it in {where[feature.side]} under this very name, or take it out of the config."


def _coverage(feature: Any, found: dict[str, Any]) -> Iterator[Finding]:
    name, trained = feature.name, found["coverage"]["train"]
    if trained == 0:
        yield Finding(
            "error",
            "feature_not_in_training",
            name,
            f"`{name}` stands in later splits but in no impression of the training split.",
            "Begin the log where the feature begins, or move the split; nothing can be learned of it.",
        )
    elif trained is not None and trained < RARE:
        yield Finding(
            "warning",
            "feature_rarely_present",
            name,
            f"`{name}` stands in {percent(trained)} of the training impressions.",
            "See whether the log loses it; a feature that is rare by nature is hardly learned.",
        )
    constant = found.get("distinct") == 1 and trained == 1.0
    all_empty = feature.kind == "sequence" and found.get("quantiles", {}).get("max") == 0
    if constant and feature.kind in ("categorical", "numeric"):
        yield Finding(
            "warning",
            "feature_constant",
            name,
            f"`{name}` has the same value in every impression.",
            "Take it out of the config, or see why the log does not vary it.",
        )
    elif all_empty:
        yield Finding(
            "warning",
            "feature_constant",
            name,
            f"`{name}` is an empty list in every impression that has it.",
            "See why the log does not fill it, or take it out of the config.",
        )
    if feature.kind == "vector" and (found.get("zeros") or 0.0) > ZEROS:
        yield Finding(
            "warning",
            "vector_zeros",
            name,
            f"`{name}` is all zeros in {percent(found['zeros'])} of the impressions that have it.",
            "Log null where there is no vector: the model is told of a missing value, not of a zero.",
        )
    if feature.kind == "vector" and found["constant_numbers"]:
        yield Finding(
            "warning" if found["constant_numbers"] == feature.size else "note",
            "vector_constant_numbers",
            name,
            f"{found['constant_numbers']} of the {feature.size} numbers of `{name}` never vary.",
            "Leave them out where the vector is made.",
        )


def _values(feature: Any, found: dict[str, Any]) -> Iterator[Finding]:
    name = feature.name
    vocabulary = found.get("vocabulary")
    if vocabulary is not None and not vocabulary["kept"] and found["coverage"]["train"]:
        yield Finding(
            "error",
            "vocabulary_empty",
            name,
            f"`min_count: {feature.min_count}` leaves none of the {number(vocabulary['too_rare'])} values of `{name}`.",
            "Lower `min_count`, or use `buckets`.",
        )
    elif vocabulary is not None and (vocabulary["too_rare_share"] or 0.0) > TOO_RARE:
        yield Finding(
            "warning",
            "vocabulary_rare",
            name,
            f"`min_count: {feature.min_count}` leaves out {number(vocabulary['too_rare'])} values of `{name}`, "
            f"which are {percent(vocabulary['too_rare_share'])} of what training sees of it; "
            f"{number(vocabulary['kept'])} stay.",
            "Lower `min_count`, use `buckets` with `hashes: 2`, or train on a longer log.",
        )
    if vocabulary is not None and vocabulary["kept"] > LARGE_VOCABULARY:
        yield Finding(
            "warning",
            "vocabulary_large",
            name,
            f"The vocabulary of `{name}` would hold {number(vocabulary['kept'])} values, all in the exported graph.",
            "Raise `min_count`, or use `buckets`.",
        )
    if found.get("shared_rows", 0.0) > SHARED_ROWS:
        yield Finding(
            "warning",
            "hash_collisions",
            name,
            f"`buckets: {feature.buckets}` for {number(found['distinct'])} values of `{name}`: "
            f"{percent(found['shared_rows'])} of them are expected to share their row with another.",
            f"Use `buckets: {5 * found['distinct']}`, or `hashes: 2`.",
        )
    if feature.kind == "categorical" and feature.size is not None and (found["at_limit"] or 0.0) > AT_LIMIT:
        at_limit = found["at_limit"] * found["distinct"]
        # Of evenly spread values the last one has its share too.
        if at_limit > 2:
            yield Finding(
                "warning",
                "values_at_limit",
                name,
                f"{percent(found['at_limit'])} of the values of `{name}` are {feature.size}, its `size`.",
                "If the log cuts larger values down, log them as they are and raise `size`.",
            )
    if feature.kind == "categorical" and found["distinct"] and (feature.dim or 0) > found["distinct"]:
        yield Finding(
            "note",
            "dim_above_values",
            name,
            f"`dim: {feature.dim}` is more than the {number(found['distinct'])} values of `{name}`.",
            f"`dim: {found['distinct']}` holds as much.",
        )


def _unknown(feature: Any, found: dict[str, Any]) -> Iterator[Finding]:
    shares_table = getattr(feature, "embedding", None) is not None
    for split in SPLITS if shares_table or "vocabulary" not in found else SPLITS[1:]:
        share = found.get("unknown", {}).get(split)
        if share is not None and share > UNKNOWN:
            yield Finding(
                "warning",
                "values_unknown",
                feature.name,
                f"{percent(share)} of the {split} split's values of `{feature.name}` are not in its vocabulary.",
                "Rely on features that new values share, train their rows with `oov_dropout`, or train more often."
                if split != "train"
                else f"See that it writes ids as `{feature.embedding}` does."
                if shares_table
                else "Complete the list in the config, or say `vocabulary: auto`.",
            )
            break


def _distribution(feature: Any, found: dict[str, Any]) -> Iterator[Finding]:
    if feature.kind != "numeric" or feature.transform != "none" or not feature.normalize:
        return
    skew, after = found.get("skewness"), found.get("skewness_log1p")
    if skew is not None and after is not None and skew > SKEW and abs(after) < skew / 2:
        yield Finding(
            "warning" if feature.quantiles is None else "note",
            "heavy_tail",
            feature.name,
            f"`{feature.name}` has a heavy tail: skewness {skew:.1f}, and {after:.1f} after log1p; its median is "
            f"{number(found['quantiles']['p50'])}, its 99th percentile {number(found['quantiles']['p99'])}, its "
            f"largest value {number(found['quantiles']['max'])}.",
            "Say `transform: log1p`.",
        )


def _drift(features: dict[str, Any]) -> Iterator[Finding]:
    """One finding a severity: where a log changes, many features do at once."""
    by_severity: dict[str, list[tuple[float, str]]] = {"warning": [], "note": []}
    for name, found in features.items():
        # Twice what chance gives on average is no drift; most of the time it gives less.
        beyond = [one["index"] - 2 * one["by_chance"] for one in found["drift"].values() if one is not None]
        if found["coverage"]["train"] and max(beyond, default=0.0) > SOME_DRIFT:
            worst = max(one["index"] for one in found["drift"].values() if one is not None)
            by_severity["warning" if max(beyond) > DRIFT else "note"].append((worst, name))
    for severity, drifting in by_severity.items():
        listed = [f"`{name}` ({index:.2f})" for index, name in sorted(drifting, reverse=True)[:_LISTED]]
        more = len(drifting) - len(listed)
        if drifting:
            yield Finding(
                severity,  # type: ignore[arg-type]
                "drift",
                max(drifting)[1] if len(drifting) == 1 else "features",
                f"{len(drifting)} feature(s) drift {'much' if severity == 'warning' else 'somewhat'} between the "
                "training and a later split, by their population stability index: "
                + ", ".join(listed)
                + (f", and {more} more." if more else "."),
                "See whether their meaning or source changed. Counts that grow with the log drift by nature; the hour "
                "does where splits are not whole days.",
            )


def _leaks(feature: Any, found: dict[str, Any]) -> Iterator[Finding]:
    for objective, tells in found["tells"].items():
        if tells is None:
            continue
        limit = LEAK if "auc" in tells else LEAK_EXPLAINED
        what = (
            f"orders `{objective}` with AUC {tells['auc']:.3f}"
            if "auc" in tells
            else (f"explains {percent(tells['explained'])} of the variance of `{objective}`")
        )
        value = tells.get("auc", tells.get("explained"))
        served = feature.side != "bias"
        if value >= limit:
            yield Finding(
                "error" if served else "warning",
                "leak",
                feature.name,
                f"`{feature.name}` alone {what} (by {tells['by']}): it seems to know what happened.",
                "Compute it from what was known before the request, or take it out."
                if served
                else "It is not served; see whether labels are logged at some of its values only.",
            )
        elif "auc" in tells and value >= NEARLY_LEAK and served:
            yield Finding(
                "warning",
                "near_leak",
                feature.name,
                f"`{feature.name}` alone {what} (by {tells['by']}).",
                "See that it is computed from what was known before the request.",
            )
