"""The vectorised join against a naive double, on random buckets in random order."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from mmoe_ranker.config import Config
from mmoe_ranker.config_loading import parse_config
from pipelines.batches import FEEDBACK_SCHEMA, ImpressionBatch, bucket_of
from pipelines.joining import join
from pipelines.log_tables import batch_of_rows
from tests.configs import small_config


def config(**watch: Any) -> Config:
    raw = small_config()
    raw["objectives"][1].update(watch)
    raw["objectives"][2]["given"] = "dismiss"
    raw["objectives"][3]["given"] = "click"
    return parse_config(raw)


REQUESTS = st.integers(0, 3).map(lambda number: f"r{number}")
ITEMS = st.integers(0, 4).map(lambda number: f"v{number}")
IMPRESSION = st.fixed_dictionaries(
    {"request": REQUESTS, "item": ITEMS, "time": st.integers(0, 3), "position": st.none() | st.integers(1, 3)}
)
EVENT = st.fixed_dictionaries(
    {
        "_request": REQUESTS,
        "_item": ITEMS,
        "_event": st.sampled_from(["click", "watch", "like", "dismiss"]),
        "_value": st.integers(0, 3).map(float),
        "_time": st.integers(0, 2),
    }
)


def batch_of(config: Config, rows: list[dict[str, Any]]) -> ImpressionBatch:
    return batch_of_rows(
        config,
        [
            (
                {"_request": row["request"], "_time": row["time"], "_order": row["order"]},
                [{"_item": row["item"], "_position": row["position"], "_index": 0, "duration": float(row["order"])}],
            )
            for row in rows
        ],
    )


def naive(impressions: list[dict[str, Any]], events: list[dict[str, Any]], zero: bool) -> tuple[dict, Counter]:
    counts: Counter = Counter()
    first: dict[tuple[str, str], dict[str, Any]] = {}
    for row in sorted(impressions, key=lambda row: (row["time"], row["position"] or 1 << 60, row["order"])):
        first.setdefault((row["request"], row["item"]), row)
    counts["impressions", "duplicates"] = len(impressions) - len(first)
    earliest = {request: min(row["time"] for (r, _), row in first.items() if r == request) for request, _ in first}
    distinct = {tuple(event[name] for name in FEEDBACK_SCHEMA.names) for event in events}
    heard: dict[tuple[str, str], list] = defaultdict(list)
    for request, item, name, value, _ in distinct:
        hit = (request, item) in first
        counts["feedback", "joined" if hit else "orphan", name] += 1
        heard[request, item].append((name, value))
    for event in events:
        counts["feedback", "duplicate", event["_event"]] += 1
    for row in distinct:
        counts["feedback", "duplicate", row[2]] -= 1
    rows = {}
    for key, row in first.items():
        names = {name for name, _ in heard[key]}
        clicked, dismissed = float("click" in names), float("dismiss" in names)
        watched = [value for name, value in heard[key] if name == "watch"]
        rows[key] = {
            "order": row["order"],
            "time": earliest[key[0]],
            "click": clicked,
            "watch_time": (sum(watched) if watched or zero else None) if clicked else None,
            "dismiss": dismissed if clicked else None,
            # Given dismiss, which is given click.
            "like": float("like" in names) if clicked and dismissed else None,
        }
    return rows, counts


@given(st.lists(IMPRESSION, min_size=1, max_size=25), st.lists(EVENT, max_size=40), st.booleans(), st.randoms())
@settings(max_examples=200, deadline=None)
def test_equal_to_the_naive_double(impressions, events, zero, random):
    rules = config(without_event="zero" if zero else "missing")
    for order, row in enumerate(impressions):
        row["order"] = order
    shuffled = random.sample(impressions, len(impressions))
    cut = random.randint(0, len(shuffled))
    batches = [batch_of(rules, rows) for rows in (shuffled[:cut], shuffled[cut:]) if rows]
    tables = [pa.Table.from_pylist(part, schema=FEEDBACK_SCHEMA) for part in (events[:5], events[5:]) if part]
    joined = join(rules, batches, tables)
    expected, counts = naive(impressions, events, zero)
    rows = joined.batch.impressions.to_pylist()
    contexts = joined.batch.contexts.to_pylist()
    got = {
        (contexts[row["_row"]]["_request"], row["_item"]): {
            "order": int(row["duration"]),
            "time": contexts[row["_row"]]["_time"],
            **{name: row[f"{name}_label"] for name in rules.objective_names},
        }
        for row in rows
    }
    assert len(rows) == len(got)
    assert got == expected
    assert +joined.counts == +counts


@given(st.lists(EVENT, max_size=20))
@settings(deadline=None)
def test_feedback_without_any_impression_is_orphaned(events):
    joined = join(config(), [], [pa.Table.from_pylist(events, schema=FEEDBACK_SCHEMA)])
    _, counts = naive([], events, zero=False)
    assert joined.batch is None
    assert +joined.counts == +counts


def test_impressions_without_any_feedback():
    rules = config()
    joined = join(rules, [batch_of(rules, [{"request": "r", "item": "v", "time": 1, "position": 1, "order": 0}])], [])
    [row] = joined.batch.impressions.to_pylist()
    assert [row[f"{name}_label"] for name in rules.objective_names] == [0.0, None, None, None]


def test_a_request_has_one_bucket_and_buckets_are_used():
    names = [f"request-{number}" for number in range(1000)]
    buckets = bucket_of(pa.chunked_array([names, names[::-1]]), 8)
    np.testing.assert_array_equal(buckets[:1000], buckets[1000:][::-1])
    assert np.bincount(buckets, minlength=8).min() > 150
    for one, two in itertools.pairwise(range(0, 1000, 100)):
        np.testing.assert_array_equal(bucket_of(pa.chunked_array([names[one:two]]), 8), buckets[one:two])
