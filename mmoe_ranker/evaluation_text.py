"""The report of `evaluation` as text, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmoe_ranker.text_table import number, table


def format_report(report: Mapping[str, Any]) -> str:
    """The report as text: a table of metrics by objective with their intervals, one of the gates, one a slice, notes.

    Args:
      report: of `evaluation_metrics.evaluate`, or as JSON gives it back.
    """
    lines = [f"{report['impressions']:,} impressions, {report['requests']:,} requests", ""]
    lines += _metrics(report)
    if "bootstrap" in report:
        drawn = report["bootstrap"]
        by = f"{drawn['replicates']} draws of {drawn['units']:,} values of {drawn['by']}"
        lines += [f"[low, high]: {100 * drawn['level']:g} % of {by}"]
    if "gates" in report:
        lines += ["", *_gates(report["gates"])]
    for name, values in report["slices"].items():
        lines += ["", f"by {name}", *_slice(name, values)]
    if report.get("notes"):
        lines += ["", *(f"note: {note}" for note in report["notes"])]
    return "\n".join(lines)


def _metrics(report: Mapping[str, Any]) -> list[str]:
    by_metric: dict[str, dict[str, str]] = {}
    intervals = report.get("intervals", {})
    for name, objective in report["objectives"].items():
        drawn = intervals.get("objectives", {}).get(name, {})
        flat: dict[str, tuple[Any, Any]] = {}  # value and interval
        for key, value in objective.items():
            if not isinstance(value, Mapping) or "value" in value:
                flat[key] = value, drawn.get(key)
            else:
                flat |= {f"{key} {one}": (metric, drawn.get(key, {}).get(one)) for one, metric in value.items()}
        for key, by_label in report["combined_score"].items():
            if name in by_label:
                interval = intervals.get("combined_score", {}).get(key, {}).get(name)
                flat[f"{key} of score"] = by_label[name], interval
        for key, (value, interval) in flat.items():
            cell = number(value["value"] if isinstance(value, Mapping) else value)
            if interval and None not in interval:
                cell += f" [{', '.join(map(number, interval))}]"
            if isinstance(value, Mapping) and value["value"] is not None:
                cell += f", {value['groups_counted']:,} groups"
            by_metric.setdefault(key, {"metric": key})[name] = cell
    return table(list(by_metric.values()))


def _gates(gates: Mapping[str, Any]) -> list[str]:
    own = gates["own_experts"]
    rows = [
        {"gate of": name}
        | {
            f"own {index}" if index < own else f"expert {index - own}": number(share)
            for index, share in enumerate(gate["utilisation"])
        }
        | {key: number(gate[key]) for key in ("entropy", "entropy_share", "polarised")}
        for name, gate in gates["objectives"].items()
    ]
    return [f"utilisation of experts, of which {gates['dead_experts']} dead", *table(rows)]


def _slice(name: str, values: Mapping[str, Any]) -> list[str]:
    rows = []
    for value, objectives in values.items():
        row = {name: value}
        for objective, metric in objectives.items():
            row["impressions"] = f"{metric['impressions']:,}"
            row[f"{objective} mean"] = number(metric["mean_label"])
            key = "auc" if "auc" in metric else "rmse"
            row[f"{objective} {key}"] = number(metric[key])
        rows.append(row)
    return table(rows)
