"""Findings on what was read: dead letters, duplicates, feedback that finds no impression, splits, time."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

from mmoe_ranker.config import Config
from pipelines.checking.finding import Finding, duration, number, percent

DEAD, MANY_DEAD = 0.001, 0.1
"""Share of refused records: some are usual; of a tenth, what is left may be a biased sample."""
DUPLICATES = 0.01
"""Share of repeated records: removed, but a logger that sends everything twice is worth knowing."""
ORPHANS, MANY_ORPHANS = 0.05, 0.5
"""Share of events without their impression: each is a label that is 0 and should be 1."""
LATE, EARLY = 0.2, 0.01
"""Share of events after every window that names them, and before their request, where clocks disagree."""
GAP = 4.0
"""How many times longer than usual a gap must be: quiet nights and weekends are not that far from the median."""
SHORT_SPAN = 86_400.0
"""Seconds: of less than a day, a chronological test split is another time of day."""
_REASONS = 3


def log_findings(config: Config, figures: dict[str, Any]) -> Iterator[Finding]:
    """Of both logs."""
    yield from _impressions(figures["impressions"])
    yield from _feedback(config, figures["feedback"])
    yield from _splits(config, figures["splits"])
    yield from _time(figures["time"])


def _impressions(counts: dict[str, Any]) -> Iterator[Finding]:
    yield from _dead("impressions", counts)
    share = counts["duplicates"] / max(counts["read"], 1)
    if share > DUPLICATES:
        yield Finding(
            "warning",
            "impressions_duplicated",
            "impressions",
            f"{number(counts['duplicates'])} impressions ({percent(share)}) repeat an item of their request.",
            "The first of each is kept; see whether request ids are used again, or records are sent twice.",
        )


def _dead(log: str, counts: dict[str, Any]) -> Iterator[Finding]:
    share = counts["dead_letters"] / max(counts["read"], 1)
    if share <= DEAD:
        return
    reasons = sorted(counts["dead_letters_by_reason"].items(), key=lambda item: (-item[1], item[0]))
    listed = "; ".join(f"{reason} ({number(many)})" for reason, many in reasons[:_REASONS])
    yield Finding(
        "error" if share > MANY_DEAD else "warning",
        "dead_letters",
        log,
        f"{number(counts['dead_letters'])} records of the {log} log ({percent(share)}) break a rule: {listed}.",
        "`examples` writes each with its reason to `dead_letters/`; put the logging right.",
    )


def _feedback(config: Config, counts: dict[str, Any]) -> Iterator[Finding]:
    yield from _dead("feedback", counts)
    share = counts["duplicates"] / max(counts["read"], 1)
    if share > DUPLICATES:
        yield Finding(
            "note",
            "feedback_duplicated",
            "feedback",
            f"{number(counts['duplicates'])} events ({percent(share)}) are repetitions of another.",
            "They count once; see whether events are sent twice.",
        )
    by_event = counts["by_event"]
    for event in sorted({objective.event for objective in config.objectives}):
        found = {how: by_event.get(how, {}).get(event, 0) for how in ("joined", "orphan", "late", "early")}
        total = sum(found.values())
        for how, limits, what, suggestion in _LOST:
            share = found[how] / total if total else 0.0
            if share > limits[0]:
                yield Finding(
                    "error" if share > limits[1] else "warning",
                    f"events_{how}",
                    event,
                    f"{number(found[how])} of {number(total)} events `{event}` ({percent(share)}) {what}.",
                    suggestion,
                )
    named = {objective.event for objective in config.objectives}
    for event, many in by_event.get("ignored", {}).items():
        close = difflib.get_close_matches(event, sorted(named), n=1, cutoff=0.8)
        yield Finding(
            "warning" if close else "note",
            "events_ignored",
            event,
            f"{number(many)} events `{event}` are ignored: no objective names them.",
            f"Is it another spelling of `{close[0]}`? Then log it as that, or its labels are 0."
            if close
            else "Nothing, unless an objective is to be learned from them.",
        )


_LOST: tuple[tuple[str, tuple[float, float], str, str], ...] = (
    (
        "orphan",
        (ORPHANS, MANY_ORPHANS),
        "have no impression in the log",
        "See that both logs cover the same time and write request and item ids alike; each is a label lost.",
    ),
    ("late", (LATE, 2.0), "come after the attribution window", "Set `window` longer, if these are to count."),
    (
        "early",
        (EARLY, MANY_ORPHANS),
        "come before their request",
        "See whether clocks disagree; `join.clock_skew` lets them count.",
    ),
)


def _splits(config: Config, splits: dict[str, Any]) -> Iterator[Finding]:
    if not splits["train"]["impressions"]:
        yield Finding(
            "error",
            "split_empty",
            "train",
            "The training split holds no impression.",
            "Give a longer log, or see `split` in the config: where `validation_start` is, or the shares.",
        )
    for split in ("validation", "test"):
        wanted = config.split.validation if split == "validation" else config.split.test
        by_time = config.split.validation_start is not None
        if not splits[split]["impressions"] and (by_time or wanted):
            same = by_time and config.split.validation_start == config.split.test_start and split == "validation"
            yield Finding(
                "note" if same else "warning",
                "split_empty",
                split,
                f"The {split} split holds no impression.",
                "Nothing, if this is meant: `validation_start` and `test_start` are the same."
                if same
                else f"See `split` in the config: nothing can be said of the {split} period.",
            )


def _time(found: dict[str, Any]) -> Iterator[Finding]:
    if found["span_seconds"] < SHORT_SPAN:
        yield Finding(
            "warning",
            "log_short",
            "impressions",
            f"The log spans {duration(found['span_seconds'])}.",
            "Give several days: the splits differ by time of day, and nothing tells day from chance.",
        )
    if found["days_without_requests"]:
        yield Finding(
            "warning",
            "days_missing",
            "impressions",
            f"{found['days_without_requests']} days between the first and the last have no request.",
            "See whether files are missing.",
        )
    usual = found["usual_gap_seconds"]
    unusual = [gap for gap in found["longest_gaps"] if usual and gap["seconds"] > GAP * usual]
    if unusual:
        yield Finding(
            "warning",
            "time_gap",
            "impressions",
            f"No request for {duration(unusual[0]['seconds'])} after {unusual[0]['after']}, where the longest gap of a "
            f"day (or tenth of the log) is usually {duration(usual)}"
            + (f"; {len(unusual) - 1} more such gaps." if len(unusual) > 1 else "."),
            "See whether a part of the log is missing.",
        )
