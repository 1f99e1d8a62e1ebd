"""summary.json: what went in, what came out, what was set aside, and rates to hold against one's own figures."""

from __future__ import annotations

import datetime
from collections import Counter
from typing import Any, NoReturn

from mmoe_ranker.config import Config
from mmoe_ranker.config_features import Feature
from mmoe_ranker.errors import InputError
from pipelines.example_reports import PartReport, Report
from pipelines.log_blocks import table_log
from pipelines.output_folder import FORMAT
from pipelines.own_histories import histories, history_keys
from pipelines.splits import SPLITS, Plan

Counts = Counter[tuple[str, ...]]


def check_usable(config: Config, impressions: str, counts: Counts, report: Report, plan: Plan) -> None:
    """Checks that there is something to learn from.

    Raises:
      InputError: no valid impression, an empty training split, also after sampling, or a feature that no record has.
    """
    examples = sum(one.examples for one in report.parts.values())
    left_out = counts["impressions", "sampled_out"]
    if not examples and not left_out:
        refuse_empty(impressions, counts)
    if left_out and all(part.split != "train" for part in report.parts):
        raise InputError(
            "The training split must hold an impression that has an event or is kept: raise `sampling.negatives`. "
            f"Received: {left_out} impressions, all left out."
        )
    for feature in config.features:
        if report.missing[feature.name] == examples:
            _refuse_missing_asof(feature, counts, examples)
            where = {"context": "context", "candidate": "impressions[].item", "bias": "impressions[] or context"}
            place = "impressions[]" if feature.name == "position" else where[feature.side]
            raise InputError(
                f"The feature `{feature.name}` must stand in at least one record of the impressions log, in {place}. "
                f"Received: {impressions!r}, where it is missing in all {examples} impressions."
            )
    if all(part.split != "train" for part in plan.parts):
        received = config.split.model_dump(mode="json", exclude_none=True)
        raise InputError(
            "The `split` of the config must leave impressions for training. "
            f"Received: {received}, all {examples} impressions in validation or test."
        )


def _refuse_missing_asof(feature: Feature, counts: Counts, examples: int) -> None:
    if feature.table is not None:
        log = table_log(feature.table)
        why = f"{counts[log, 'rows']} rows, of which one held for {counts[log, 'hits']} impressions"
        refused = _reasons(counts, log)
        raise InputError(
            f"The feature `{feature.name}` must have a value in column `{feature.column or feature.name}` of the table "
            f"`{feature.table}`, in at least one row that held when its key was shown. Received: {why}"
            + (f", refused: {refused}." if refused else ".")
        )
    if feature.kind == "sequence" and feature.history is not None:
        raise InputError(
            f"The feature `{feature.name}` must be the history of known users: `{feature.history.by}` must stand in at "
            "least one record of the impressions log, in context. "
            f"Received: none in {examples} impressions."
        )


def refuse_empty(impressions: str, counts: Counts) -> NoReturn:
    """Says why a log has no valid impression.

    Raises:
      InputError: always.
    """
    refused = _reasons(counts, "impressions")
    why = f"{counts['impressions', 'records']} records" + (f", refused: {refused}" if refused else "")
    raise InputError(f"The impressions log must hold at least one valid impression. Received: {impressions!r}, {why}.")


def summarise(
    config: Config, counts: Counts, report: Report, plan: Plan, vocabularies: dict[str, Any]
) -> dict[str, Any]:
    """The summary as written to summary.json."""
    # Sampling may leave nothing of a part.
    parts = [(part, report.parts[part]) for part in plan.parts if part in report.parts]
    everything = [one for _, one in parts]
    return {
        "format": FORMAT,
        "config": config.name,
        "sampling": config.sampling.model_dump(mode="json") if config.sampling is not None else None,
        "impressions": impression_counts(
            counts, sum(one.requests for one in everything), sum(one.examples for one in everything)
        ),
        "feedback": feedback_counts(config, counts),
        "tables": {table.name: _table_counts(counts, table_log(table.name)) for table in config.tables},
        "histories": {
            feature.name: {how: counts["histories", feature.name, how] for how in ("events", "empty")}
            for key in history_keys(config)
            for feature in histories(config, key)
        },
        "missing": {feature.name: report.missing[feature.name] for feature in config.features},
        "vocabularies": vocabularies,
        "split": _how_split(config, counts),
        "splits": {split: _split(config, [one for part, one in parts if part.split == split]) for split in SPLITS},
        "objectives": _rates(config, everything),
        "slices": {" x ".join(names): _slices(config, names, everything) for names in _names(everything)},
    }


def impression_counts(counts: Counts, requests: int, examples: int) -> dict[str, Any]:
    """The section on the impressions log, with whether it adds up."""
    dead = _reasons(counts, "impressions")
    duplicates, sampled_out = counts["impressions", "duplicates"], counts["impressions", "sampled_out"]
    read = counts["impressions", "rows"] + sum(dead.values())
    return {
        "records": counts["impressions", "records"],
        "requests": requests,
        # A record refused as a whole counts as one.
        "read": read,
        "examples": examples,
        "duplicates": duplicates,
        "sampled_out": sampled_out,
        "dead_letters": sum(dead.values()),
        "dead_letters_by_reason": dead,
        "reconciled": read == examples + duplicates + sampled_out + sum(dead.values()),
    }


def feedback_counts(config: Config, counts: Counts) -> dict[str, Any]:
    """The section on the feedback log, with whether it adds up."""
    dead = _reasons(counts, "feedback")
    windowed = [objective for objective in config.objectives if objective.window is not None]
    by_event = {
        how: {key[2]: number for key, number in sorted(counts.items()) if key[:2] == ("feedback", how)}
        for how in ("joined", "late", "early", "orphan", "duplicate", "ignored")
    }
    total = {how: sum(numbers.values()) for how, numbers in by_event.items()}
    read = counts["feedback", "records"]
    return {
        "read": read,
        "joined": total["joined"],
        "late": total["late"],
        "early": total["early"],
        "orphans": total["orphan"],
        "duplicates": total["duplicate"],
        "ignored": total["ignored"],
        "dead_letters": sum(dead.values()),
        "dead_letters_by_reason": dead,
        "by_event": by_event,
        # Events after the window of one objective may lie inside another's, and are late only for the one.
        "outside_window": {o.name: counts["feedback", "outside_window", o.name] for o in windowed},
        "reconciled": read == sum(total.values()) + sum(dead.values()),
    }


def _table_counts(counts: Counts, log: str) -> dict[str, Any]:
    dead = _reasons(counts, log)
    read, rows, duplicates = counts[log, "records"], counts[log, "rows"], counts[log, "duplicates"]
    return {
        "read": read,
        "rows": rows,
        # Of rows of one key and time the last one stays.
        "duplicates": duplicates,
        "dead_letters": sum(dead.values()),
        "dead_letters_by_reason": dead,
        # Impressions that a row held for, and others.
        "hits": counts[log, "hits"],
        "misses": counts[log, "misses"],
        "reconciled": read == rows + duplicates + sum(dead.values()),
    }


def _reasons(counts: Counts, log: str) -> dict[str, int]:
    return {key[2]: number for key, number in sorted(counts.items()) if key[:2] == (log, "dead_letters")}


def _how_split(config: Config, counts: Counts) -> dict[str, Any]:
    how = config.split.model_dump(mode="json", exclude_none=True)
    if config.split.by is None:
        return {"by": "time", **how}
    # Requests without the feature go by a hash of their own id.
    return {**how, "split_by_request": counts["split", "by_request"]}


def _split(config: Config, parts: list[PartReport]) -> dict[str, Any]:
    if not parts:
        return {"examples": 0, "requests": 0, "parts": 0, "objectives": _rates(config, [])}
    return {
        "examples": sum(one.examples for one in parts),
        "requests": sum(one.requests for one in parts),
        "parts": len(parts),
        "first_time": utc_time(parts[0].first_time),
        "last_time": utc_time(parts[-1].last_time),
        "objectives": _rates(config, parts),
    }


def _rates(config: Config, parts: list[PartReport]) -> dict[str, Any]:
    rates = {}
    for name in config.objective_names:
        labelled = sum(one.rates[name][0] for one in parts)
        rates[name] = _rate(labelled, sum(one.rates[name][1] for one in parts))
    return rates


def _rate(labelled: int, total: float) -> dict[str, Any]:
    # Of a binary objective the mean is the rate.
    return {"labelled": labelled, "mean": total / labelled if labelled else None}


def _names(parts: list[PartReport]) -> list[tuple[str, ...]]:
    return list(parts[0].slices) if parts else []


def _slices(config: Config, names: tuple[str, ...], parts: list[PartReport]) -> list[dict[str, Any]]:
    merged: dict[tuple[Any, ...], tuple[int, list[tuple[int, float]]]] = {}
    for one in parts:
        for values, (impressions, figures) in one.slices[names].items():
            before, sums = merged.get(values, (0, [(0, 0.0)] * len(figures)))
            added = [(n + m, a + b) for (n, a), (m, b) in zip(sums, figures, strict=True)]
            merged[values] = (before + impressions, added)
    rows = []
    for values in sorted(merged, key=lambda values: [(value is None, value) for value in values]):
        impressions, sums = merged[values]
        rates = {name: _rate(*figures) for name, figures in zip(config.objective_names, sums, strict=True)}
        rows.append({**dict(zip(names, values, strict=True)), "impressions": impressions, "objectives": rates})
    return rows


def utc_time(micros: int) -> str:
    """UTC microseconds as ISO 8601 text."""
    time = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc) + datetime.timedelta(microseconds=micros)
    return time.isoformat().replace("+00:00", "Z")
