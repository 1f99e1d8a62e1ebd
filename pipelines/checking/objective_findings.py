"""Findings on objectives: labels that are not there, do not vary, are too few, drift, or are not complete yet."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator
from typing import Any

from mmoe_ranker.config import Config
from pipelines.checking.finding import Finding, number, percent

FEW_LABELS = 1_000
"""Labelled impressions of the training split below which a tower learns little but its mean."""
FEW_POSITIVES = 200
"""Likewise positives; and their rate has an error of some 7 %."""
LOW_RATE = 1e-4
"""Rate of positives below which most batches hold none."""
RATE_CHANGE, RATE_ERRORS = 0.25, 6.0
"""Relative change of a rate between splits, and how many standard errors it must be: impressions of one request or user
are alike, so the error that counts them one by one is too small, by a factor of two or so."""
TAIL = 0.5
"""Share of the variance that one label in a thousand may have; beyond, squared error is about these."""
FADING, FADED = 0.75, 0.4
"""What is left of a rate at the end of the log, from which on feedback is taken to be incomplete; and to be absent."""
UNCOVERED = 0.01
"""Share of impressions whose attribution window may end after the feedback log does: a tenth of a usual test split."""


def objective_findings(config: Config, figures: dict[str, Any]) -> Iterator[Finding]:
    """Of all objectives."""
    for objective in config.objectives:
        found = figures["objectives"][objective.name]
        yield from (
            _binary(figures, objective, found) if objective.kind == "binary" else _regression(figures, objective, found)
        )
        window = figures["time"]["feedback"]["windows"].get(objective.name)
        if window is not None and window["uncovered"] > UNCOVERED:
            yield Finding(
                "warning",
                "window_not_covered",
                objective.name,
                f"The window of `{objective.name}` ends after the last event of the feedback log "
                f"({figures['time']['feedback']['last_time']}) for {percent(window['uncovered'])} of the impressions.",
                "Leave out the impressions that are younger than the window, or wait for their feedback.",
            )


def _binary(figures: dict[str, Any], objective: Any, found: dict[str, Any]) -> Iterator[Finding]:
    name, train = objective.name, found["splits"]["train"]
    if not train["labelled"]:
        yield _no_label(figures, objective)
        return
    if train["positives"] in (0, train["labelled"]):
        which = "positive" if train["positives"] else "negative"
        without = (
            "Have impressions without the event logged too." if train["positives"] else _see_event(figures, objective)
        )
        yield Finding(
            "error",
            "label_constant",
            name,
            f"All {number(train['labelled'])} training labels of `{name}` are {which}.",
            without,
        )
        return
    fewest = min(train["positives"], train["labelled"] - train["positives"])
    if train["labelled"] < FEW_LABELS or fewest < FEW_POSITIVES or train["rate"] < LOW_RATE:
        yield Finding(
            "warning",
            "label_rare",
            name,
            f"The training split has {number(train['positives'])} positives of `{name}` in {number(train['labelled'])} "
            f"labelled impressions, a rate of {percent(train['rate'])}.",
            "Train on a longer log, or leave the objective out; what it predicts will be hardly more than its mean.",
        )
    yield from _rate_drift(name, found)
    yield from _end(figures, name)


def _no_label(figures: dict[str, Any], objective: Any) -> Finding:
    condition = f" where `{objective.given}` is 1" if objective.given else ""
    return Finding(
        "error",
        "label_never",
        objective.name,
        f"No impression of the training split has a label of `{objective.name}`{condition}.",
        _see_event(figures, objective),
    )


def _see_event(figures: dict[str, Any], objective: Any) -> str:
    """What to do about an event that is not there: it may be spelled otherwise in the log."""
    by_event = figures["feedback"]["by_event"]
    ignored = by_event.get("ignored", {})
    folded = {_folded(name): name for name in ignored}
    close = difflib.get_close_matches(_folded(objective.event), folded, n=1, cutoff=0.6)
    if close:
        event = folded[close[0]]
        return (
            f"The log has {number(ignored[event])} events `{event}`, which no objective names: is it `event: {event}`?"
        )
    orphans = by_event.get("orphan", {}).get(objective.event, 0)
    if orphans:
        return (
            f"All {number(orphans)} events `{objective.event}` are without their impression: see request and item ids."
        )
    return f"See that the feedback log holds events `{objective.event}` that belong to the training period."


def _folded(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")


def _regression(figures: dict[str, Any], objective: Any, found: dict[str, Any]) -> Iterator[Finding]:
    name, train = objective.name, found["splits"]["train"]
    if not train["labelled"]:
        yield _no_label(figures, objective)
        return
    quantiles = found["quantiles"]
    if quantiles["min"] == quantiles["max"]:
        yield Finding(
            "error",
            "label_constant",
            name,
            f"All labels of `{name}` are {number(quantiles['min'])}.",
            f"See what the log writes as `value` of `{objective.event}`; a mark makes an objective of `kind: binary`.",
        )
        return
    if train["labelled"] < FEW_LABELS:
        yield Finding(
            "warning",
            "label_rare",
            name,
            f"The training split has {number(train['labelled'])} labels of `{name}`.",
            "Train on a longer log, or leave the objective out; what it predicts will be hardly more than its mean.",
        )
    if (found["tail_share"] or 0.0) > TAIL:
        yield Finding(
            "warning",
            "label_outliers",
            name,
            f"One label of `{name}` in a thousand makes {percent(found['tail_share'])} of their variance"
            f"{' after log1p' if objective.transform == 'log1p' else ''}; the largest is {number(quantiles['max'])}, "
            f"the 99th percentile {number(quantiles['p99'])}.",
            "Cap the value where it is logged, or say `loss: huber`"
            + ("." if objective.transform == "log1p" else " or `transform: log1p`."),
        )


def _rate_drift(name: str, found: dict[str, Any]) -> Iterator[Finding]:
    train = found["splits"]["train"]
    for split in ("test", "validation"):
        other = found["splits"][split]
        if not other["labelled"]:
            continue
        pooled = (train["positives"] + other["positives"]) / (train["labelled"] + other["labelled"])
        error = math.sqrt(pooled * (1 - pooled) * (1 / train["labelled"] + 1 / other["labelled"]))
        change = other["rate"] / train["rate"] - 1
        if error and abs(change) > RATE_CHANGE and abs(other["rate"] - train["rate"]) > RATE_ERRORS * error:
            yield Finding(
                "warning",
                "label_drift",
                name,
                f"The rate of `{name}` is {percent(train['rate'])} in the training split and {percent(other['rate'])} "
                f"in the {split} split ({change:+.0%}).",
                "See what changed between them: the product, the logging, or who is in the log.",
            )
            return


def _end(figures: dict[str, Any], name: str) -> Iterator[Finding]:
    end = figures["time"]["end"].get(name)
    if end is None or end["standard_errors"] > -RATE_ERRORS or end["rate"] > FADING * end["rate_before"]:
        return
    yield Finding(
        "error" if end["rate"] < FADED * end["rate_before"] else "warning",
        "labels_fade",
        name,
        f"The rate of `{name}` falls from {percent(end['rate_before'])} to {percent(end['rate'])} in the last "
        f"{percent(end['tail'])} of the impressions: feedback seems not to be complete yet.",
        "Leave the last impressions out until their feedback has come: a label of 0 is taken for a no.",
    )
