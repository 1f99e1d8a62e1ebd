"""The data behind the run: what the pipeline read, joined, set aside and split, from the examples' `summary.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmoe_ranker.report.document import NOTHING, Block, Finding, Section, Table, number, percent

_MANY_DEAD_LETTERS = 0.01
_MANY_ORPHANS = 0.05
_OFTEN_MISSING = 0.2


def data_section(summary: Mapping[str, Any] | None, where: str) -> Section:
    """The section, or one sentence where there is no summary.

    Args:
      summary: of the examples, or None.
      where: the sentence on why there is none.
    """
    title = "Data"
    if summary is None:
        return Section("data", title, missing=[where])
    impressions = summary["impressions"]
    blocks = [Block("Splits", tables=[_splits(summary)]), Block("Logs", tables=_logs(summary))]
    missing = {name: count / max(1, impressions["examples"]) for name, count in summary.get("missing", {}).items()}
    features = _features(summary, missing)
    blocks += [Block("Features", tables=[features])] if features.rows else []
    blocks += [Block("Tables", tables=[_tables(summary["tables"])])] if summary.get("tables") else []
    sentence = (
        f"{number(impressions['read'])} impressions of {number(impressions['requests'])} requests were read, "
        f"and {number(impressions['examples'])} became examples."
    )
    return Section("data", title, paragraphs=[sentence], findings=data_findings(summary), blocks=blocks)


def data_findings(summary: Mapping[str, Any]) -> list[Finding]:
    """Sentences on the logs that somebody should read; none where they are in order."""
    found = []
    impressions, feedback = summary["impressions"], summary["feedback"]
    for what, part in (("impressions", impressions), ("feedback events", feedback)):
        if part["read"] and part["dead_letters"] / part["read"] > _MANY_DEAD_LETTERS:
            share = percent(part["dead_letters"] / part["read"])
            found.append(Finding(f"{share} of the {what} became dead letters: see the reasons below.", True))
    if feedback["read"] and feedback["orphans"] / feedback["read"] > _MANY_ORPHANS:
        share = percent(feedback["orphans"] / feedback["read"])
        found.append(Finding(f"{share} of the feedback events found no impression.", True))
    for name, count in summary.get("missing", {}).items():
        if impressions["examples"] and count / impressions["examples"] > _OFTEN_MISSING:
            share = percent(count / impressions["examples"])
            found.append(Finding(f"The feature {name} is missing in {share} of the examples.", True))
    return found


def _splits(summary: Mapping[str, Any]) -> Table:
    names = list(dict.fromkeys(name for split in summary["splits"].values() for name in split["objectives"]))
    rows = []
    for name, split in summary["splits"].items():
        times = [utc(split.get(key)) for key in ("first_time", "last_time")]
        means = [number(split["objectives"].get(objective, {}).get("mean")) for objective in names]
        rows.append([name, number(split["requests"]), number(split["examples"]), *times, *means])
    columns = ["split", "requests", "impressions", "from", "to", *names]
    groups = [("", 3), ("time (UTC)", 2), ("mean label", len(names))]
    return Table("In order of time, or by a hash where the config says so", columns, rows, groups=groups)


def _logs(summary: Mapping[str, Any]) -> list[Table]:
    by_event = summary["feedback"].get("by_event", {})
    events = list(dict.fromkeys(event for counts in by_event.values() for event in counts))
    kinds = [kind for kind in by_event if any(by_event[kind].values())]
    rows = [[event, *(number(by_event[kind].get(event, 0)) for kind in kinds)] for event in events]
    tables = []
    if rows and kinds:
        columns = ["event", *(kind.replace("_", " ") for kind in kinds)]
        tables.append(Table("Feedback events, each counted once", columns, rows))
    reasons = [
        [reason, log, number(count)]
        for log in ("impressions", "feedback")
        for reason, count in summary[log].get("dead_letters_by_reason", {}).items()
    ]
    if reasons:
        columns = ["reason", "log", "records"]
        tables.append(Table("Dead letters, records that break a rule", columns, reasons, frozenset({"log"})))
    return tables


def _features(summary: Mapping[str, Any], missing: Mapping[str, float]) -> Table:
    vocabularies = summary.get("vocabularies", {})
    rows = [
        [
            name,
            percent(share),
            number(vocabularies.get(name, {}).get("values")),
            number(vocabularies.get(name, {}).get("too_rare")),
        ]
        for name, share in missing.items()
    ]
    return Table("Features over all examples", ["feature", "missing", "values known", "values too rare"], rows)


def _tables(tables: Mapping[str, Mapping[str, Any]]) -> Table:
    columns = list(dict.fromkeys(key for table in tables.values() for key, value in table.items() if _counts(value)))
    rows = [[name, *(number(table.get(column)) for column in columns)] for name, table in tables.items()]
    return Table(
        "Tables, looked up as of each request", ["table", *(column.replace("_", " ") for column in columns)], rows
    )


def _counts(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def utc(time: str | None) -> str:
    """An ISO time of the summary to the minute.

    Example:
      >>> utc("2022-04-27T00:11:31.891000Z")
      '2022-04-27 00:11'
    """
    return time[:16].replace("T", " ") if time else NOTHING
