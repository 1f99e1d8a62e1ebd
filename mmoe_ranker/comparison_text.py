"""A comparison as text for a terminal, and as a document for JSON."""

from __future__ import annotations

from typing import Any

from mmoe_ranker.comparison import LEAST_LABELS, SAME, Comparison, SliceMove, Verdict
from mmoe_ranker.json_numbers import without_nan
from mmoe_ranker.metrics import PairedDifference
from mmoe_ranker.text_table import difference, number, table

_SLICES_SHOWN = 10


def format_comparison(comparison: Comparison) -> str:
    """The comparison as text: verdicts, all metrics, the combined score, the slices that moved most, notes.

    Args:
        comparison: To print; A is its first run, B its second.
    """
    pairing = comparison.pairing
    lines = [
        f"A  {comparison.first.workdir}",
        f"B  {comparison.second.workdir}",
        f"{comparison.first.split}: {len(pairing.first):,} impressions, {comparison.requests:,} requests in both. "
        f"Differences are B - A, with paired bootstrap intervals of {100 * comparison.level:g} % (* without 0).",
        "",
        *table([_verdict_row(name, verdict) for name, verdict in comparison.verdicts.items()]),
    ]
    for name, rows in _metric_rows(comparison).items():
        if rows:
            lines += ["", name, *table(rows)]
    lines += ["", *_slice_lines(comparison)]
    return "\n".join([*lines, *([""] if comparison.notes else []), *comparison.notes])


def comparison_document(comparison: Comparison) -> dict[str, Any]:
    """The comparison for JSON; a value that is not defined is None.

    Args:
        comparison: To write; A is its first run, B its second.
    """
    differences: dict[str, Any] = {}
    for path, found in comparison.differences.items():
        node = differences
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = _values(found)
    return {
        "a": str(comparison.first.workdir),
        "b": str(comparison.second.workdir),
        "split": comparison.first.split,
        "impressions": {
            "both": len(comparison.pairing.first),
            "a": comparison.pairing.first_total,
            "b": comparison.pairing.second_total,
        },
        "requests": comparison.requests,
        "level": comparison.level,
        "verdicts": {
            name: {"verdict": one.verdict, "metric": one.metric, **_values(one.difference), "reason": one.reason}
            for name, one in comparison.verdicts.items()
        },
        "differences": differences,
        "slices": [_slice_document(move) for move in comparison.slices],
        "notes": list(comparison.notes),
    }


def _verdict_row(name: str, verdict: Verdict) -> dict[str, str]:
    found = verdict.difference
    row = {"objective": name, "B is": verdict.verdict, "by": verdict.metric}
    return row | {"A": number(found.first), "B": number(found.second), "B - A": difference(found[2:]) + verdict.reason}


def _metric_rows(comparison: Comparison) -> dict[str, list[dict[str, str]]]:
    tables: dict[str, list[dict[str, str]]] = {name: [] for name in comparison.verdicts}
    tables["combined score, each run's own, against each label"] = scores = []
    score = comparison.first.config.combined_score
    for path, found in comparison.differences.items():
        row = {"A": number(found.first), "B": number(found.second), "B - A": difference(found[2:])}
        if path[0] == "objectives" and path[2] != "mean_label":
            tables[path[1]].append({"metric": ".".join(path[2:])} | row)
        elif path[0] == "combined_score":
            less = path[2] in score.terms and (score.terms[path[2]].complement or score.terms[path[2]].weight < 0)
            scores.append({"metric": f"{path[1]} {path[2]}" + " (less is better)" * less} | row)
    return tables


def _slice_lines(comparison: Comparison) -> list[str]:
    moves = comparison.slices
    if not moves:
        return [f"No value of a slice has {LEAST_LABELS} labels."]
    moved = sum(move.verdict != SAME for move in moves)
    lines = [
        f"{moved} of {len(moves)} values of slices with {LEAST_LABELS} labels or more moved, at "
        f"{100 - 100 * comparison.level:g} % over all of them by Holm's method; the surest "
        f"{min(_SLICES_SHOWN, len(moves))}:"
    ]
    rows = [
        {
            "slice": f"{move.feature} {move.value}",
            "objective": move.objective,
            "metric": move.metric,
            "A": number(move.difference.first),
            "B": number(move.difference.second),
            "B - A": difference(move.difference[2:]).rstrip("* "),
            "adjusted p": f"{move.adjusted:.2g}",
            "B is": move.verdict,
        }
        for move in moves[:_SLICES_SHOWN]
    ]
    return [*lines, *table(rows)]


def _slice_document(move: SliceMove) -> dict[str, Any]:
    names = {name: getattr(move, name) for name in ("feature", "value", "objective", "metric", "verdict")}
    return names | _values(move.difference) | {"p_value": move.p_value, "adjusted_p_value": move.adjusted}


def _values(found: PairedDifference) -> dict[str, float | None]:
    return without_nan(dict(zip(("a", "b", "difference", "low", "high"), found, strict=True)))
