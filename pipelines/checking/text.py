"""The report of `check` as text, for a terminal: tables of all figures, then the findings."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from pipelines.checking.finding import SEVERITIES, Finding, duration, number, percent
from pipelines.splits import SPLITS

WIDTH = 110
_LATER = SPLITS[1:]


def format_check(figures: dict[str, Any], findings: Sequence[Finding]) -> str:
    """The report as text.

    Args:
      figures: of `figures.figures_of`, or as JSON gives them back.
      findings: the gravest first.
    """
    sections = [
        _read(figures),
        _splits(figures),
        _features(figures["features"]),
        _tells(figures["features"]),
        _values(figures["features"]),
        _numbers(figures["features"]),
        _objectives(figures),
        *(_places(name, rows) for name, rows in figures["positions"].items()),
        _identifiability(figures["identifiability"]),
        _time(figures["time"]),
        _findings(findings),
    ]
    return "\n\n".join("\n".join(lines) for lines in sections if lines)


def _read(figures: dict[str, Any]) -> list[str]:
    rows = []
    for log in ("impressions", "feedback"):
        counts = {name: value for name, value in figures[log].items() if isinstance(value, int)}
        rows.append({"log": log} | {name.replace("_", " "): number(value) for name, value in counts.items()})
        del rows[-1]["reconciled"]
    lines = [line for row in rows for line in (*_table([row]), "")]
    for log in ("impressions", "feedback"):
        for reason, many in figures[log]["dead_letters_by_reason"].items():
            lines.append(f"dead letters of {log}: {number(many)} x {reason}")
    events = figures["feedback"]["by_event"]
    names = sorted({name for by_name in events.values() for name in by_name})
    times = figures["feedback"]["times"]
    return lines + _table(
        [
            {"event": name}
            | {how: number(by_name.get(name, 0)) for how, by_name in events.items()}
            | dict(zip(("first", "last"), times.get(name, ()), strict=False))
            for name in names
        ]
    )


def _splits(figures: dict[str, Any]) -> list[str]:
    return _table(
        [
            {"split": split, "impressions": number(found["impressions"]), "requests": number(found["requests"])}
            | {"first": found["first_time"] or "-", "last": found["last_time"] or "-"}
            for split, found in figures["splits"].items()
        ]
    )


def _features(features: dict[str, Any]) -> list[str]:
    rows = []
    for name, found in features.items():
        row = {"feature": name, "kind": found["kind"], "missing": number(found["missing"])}
        row |= {f"present {split}": percent(found["coverage"][split]) for split in SPLITS}
        for split in _LATER:
            drift = found["drift"][split]
            row[f"drift {split}"] = "-" if drift is None else f"{drift['index']:.2f} ({drift['by_chance']:.2g})"
        rows.append(row)
    return [*_table(rows), "drift: population stability index against the training split (what chance gives)"]


def _tells(features: dict[str, Any]) -> list[str]:
    rows = []
    for name, found in features.items():
        row = {"feature": name}
        for objective, tells in found["tells"].items():
            value = None if tells is None else tells.get("auc", tells.get("explained"))
            row[objective] = "-" if value is None else f"{value:.3f}"
        rows.append(row)
    about = "what the feature alone tells: AUC of a binary label, share of the variance of another explained"
    return [*_table(rows), about]


def _values(features: dict[str, Any]) -> list[str]:
    rows = []
    for name, found in features.items():
        if "most_frequent" not in found:
            continue
        about = f" +-{percent(found['distinct_error'])}" if found["distinct_error"] else ""
        row = {"values of": name, "distinct": number(found["distinct"]) + about}
        for split in _LATER:
            row[f"unknown {split}"] = percent(found.get("unknown", {}).get(split))
        kept = found.get("vocabulary", {})
        row["kept"], row["too rare"] = (number(kept[key]) if kept else "-" for key in ("kept", "too_rare"))
        row["too rare share"] = percent(kept.get("too_rare_share"))
        row["shared rows"] = percent(found.get("shared_rows"))
        row["at limit"] = percent(found.get("at_limit"))
        shown = [f"{one['value']} {percent(one['share'])}" for one in found["most_frequent"]]
        row["most frequent"] = textwrap.shorten(", ".join(shown), 48, placeholder=" ...")
        rows.append(row)
    return _table(rows)


def _numbers(features: dict[str, Any]) -> list[str]:
    rows = []
    for name, found in features.items():
        if "quantiles" not in found:
            continue
        what = {"sequence": "length of ", "vector": "norm of "}.get(found["kind"], "")
        row = {"numbers": what + name} | {key: number(value) for key, value in found["quantiles"].items()}
        row["zeros"] = percent(found["zeros"])
        row["constant"] = number(found["constant_numbers"]) if "constant_numbers" in found else "-"
        for key in ("skewness", "skewness_log1p"):
            value = found.get(key)
            row[key.replace("_", " ")] = "-" if value is None else f"{value:.1f}"
        rows.append(row)
    return _table(rows)


def _objectives(figures: dict[str, Any]) -> list[str]:
    rows, quantiles = [], []
    for name, found in figures["objectives"].items():
        row = {"objective": name, "kind": found["kind"], "given": found["given"] or "-"}
        for split in SPLITS:
            part = found["splits"][split]
            mean = part["mean"] if found["kind"] == "regression" else part["rate"]
            row[f"{split} labelled"] = number(part["labelled"])
            row[f"{split} mean"] = "-" if mean is None else number(mean)
        end = figures["time"]["end"].get(name)
        row["end of log"] = "-" if end is None else f"{number(end['rate'])} (before: {number(end['rate_before'])})"
        rows.append(row)
        if "quantiles" in found:
            row = {"labels of": name} | {key: number(value) for key, value in found["quantiles"].items()}
            quantiles.append(row | {"top .1 % of variance": percent(found["tail_share"])})
    windows = [
        f"window of {name}: {duration(one['window'])}, not covered for {percent(one['uncovered'])} of the impressions"
        for name, one in figures["time"]["feedback"]["windows"].items()
    ]
    return [*_table(rows), *([""] if quantiles else []), *_table(quantiles), *windows]


def _places(name: str, places: list[dict[str, Any]]) -> list[str]:
    """Of one feature, a row a value; of a cross, a row a value of the first and a column a value of the others."""
    if not places:
        return []
    keys = name.split(" x ")
    if len(keys) == 1:
        return _table(
            [
                {name: row[name], "impressions": number(row["impressions"])}
                | {objective: "-" if rate is None else f"{rate:.4f}" for objective, rate in row["rates"].items()}
                for row in places
            ]
        )
    lines = []
    for objective in places[0]["rates"]:
        by_first: dict[str, dict[str, str]] = {}
        for row in places:
            other, rate = " x ".join(row[key] for key in keys[1:]), row["rates"][objective]
            text = f"{'-' if rate is None else f'{rate:.4f}'} of {number(row['impressions'])}"
            by_first.setdefault(row[keys[0]], {keys[0]: row[keys[0]]})[other] = text
        lines += [f"{objective} by {name}", *_table(list(by_first.values())), ""]
    return lines[:-1]


def _identifiability(found: dict[str, Any]) -> list[str]:
    if not found["impressions"]:
        return ["no positions"]
    within = f", within {' x '.join(found['within'])}" if found["within"] else ""
    lines = [
        f"{number(found['items'])} items{' (a sample)' if found['sampled'] else ''} over {found['positions']} "
        "positions; share of impressions",
        f"  of items at several positions: {percent(found['at_several_positions'])}; "
        f"{percent(found['at_several_positions_within_group'])}{within}",
        f"  at positions tied together by shared items: {percent(found['connected'])}",
    ]
    if found["random_order"] is not None:
        lines.append(f"  in random order: {percent(found['random_order']['share'])}")
    if found["follows_relevance"] is not None:
        lines.append(
            f"rank correlation of what items are clicked anyway with position: {found['follows_relevance']:.2f}"
        )
    told = ", ".join(f"{place}: {'-' if e is None else f'{e:.2f}'}" for place, e in found["examination"].items())
    return lines + textwrap.wrap(f"{found['objective']} by position on the same items, first is 1: {told}", WIDTH)


def _time(found: dict[str, Any]) -> list[str]:
    days = [
        {"day": row["day"], "impressions": number(row["impressions"])}
        | {name: "-" if rate is None else f"{rate:.4f}" for name, rate in row["rates"].items()}
        for row in found["days"]
    ]
    lines = [
        f"span {duration(found['span_seconds'])}, {found['days_without_requests']} days without requests, last "
        f"feedback {found['feedback']['last_time'] or '-'}"
    ]
    if found["usual_gap_seconds"] is not None:
        gaps = "; ".join(f"{duration(gap['seconds'])} after {gap['after']}" for gap in found["longest_gaps"])
        lines += textwrap.wrap(f"longest gaps (usually {duration(found['usual_gap_seconds'])}): {gaps}", WIDTH)
    return [*_table(days), *lines]


def _findings(findings: Sequence[Finding]) -> list[str]:
    lines = []
    for finding in findings:
        lines += [f"{finding.severity}: {finding.code} ({finding.about})"]
        lines += textwrap.wrap(finding.sentence, WIDTH, initial_indent="  ", subsequent_indent="  ")
        lines += textwrap.wrap(finding.suggestion, WIDTH, initial_indent="  -> ", subsequent_indent="     ")
    return [*lines, ", ".join(_counted(findings))]


def _counted(findings: Sequence[Finding]) -> Iterator[str]:
    for severity in SEVERITIES:
        many = sum(finding.severity == severity for finding in findings)
        yield f"{many} {severity}{'' if many == 1 else 's'}"


def _table(rows: list[dict[str, str]]) -> list[str]:
    """Rows under their columns' names: the first column and those of text to the left, numbers to the right."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [names, *([row.get(name, "") for name in names] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    left = {0, *(place for place, name in enumerate(names) if name in ("kind", "given", "most frequent"))}
    return [
        "  ".join(
            cell.ljust(width) if place in left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
        if names
    ]
