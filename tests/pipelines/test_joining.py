"""The vectorised join against a naive double, on random buckets in random order."""

from __future__ import annotations

import itertools
import random
from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from mmoe_ranker.config import Config
from mmoe_ranker.config_loading import parse_config
from mmoe_ranker.config_training import Sampling
from pipelines.batches import FEEDBACK_SCHEMA, ImpressionBatch, bucket_of
from pipelines.joining import Joined, join
from pipelines.log_tables import batch_of_rows
from pipelines.sampling import HAS_EVENT
from tests.configs import small_config

Row = dict[str, Any]


def config(join: dict[str, Any] | None = None, **changes: dict[str, Any]) -> Config:
    raw = small_config() | {"join": join or {}}
    for objective in raw["objectives"]:
        objective.update(changes.get(objective["name"], {}))
    # A chain, and two objectives of one event.
    raw["objectives"][2]["given"] = "dismiss"
    raw["objectives"][3].update(given="click", event="watch")
    return parse_config(raw)


MICROSECONDS = st.integers(1, 5).map(lambda micros: micros * 1e-6)
WINDOW = st.none() | MICROSECONDS
BINARY = st.fixed_dictionaries(
    {
        "window": WINDOW,
        "aggregate": st.sampled_from(["any", "first", "last", "sum"]),
        "at_least": st.integers(-1, 4).map(float),
    }
) | st.fixed_dictionaries({"window": WINDOW})
CONFIG = st.builds(
    config,
    join=st.fixed_dictionaries({"clock_skew": st.just(0.0) | MICROSECONDS}),
    click=BINARY,
    like=BINARY,
    dismiss=BINARY,
    watch_time=st.fixed_dictionaries(
        {
            "window": WINDOW,
            "aggregate": st.sampled_from(["sum", "first", "last"]),
            "without_event": st.sampled_from(["missing", "zero"]),
        }
    ),
)


def random_logs(chance: random.Random, num_impressions: int, num_events: int) -> tuple[list[Row], list[Row]]:
    """Of few requests and items, so that impressions come again and have several events each."""

    def key() -> tuple[str, str]:
        return f"r{chance.randrange(3)}", f"v{chance.randrange(4)}"

    impressions, events = [], []
    for order in range(num_impressions):
        request, item = key()
        position = chance.choice([None, 1, 2, 3])
        impressions.append(
            {"request": request, "item": item, "time": chance.randrange(3, 7), "position": position, "order": order}
        )
    for _ in range(num_events):
        request, item = key()
        name, value, time = chance.choice(["click", "watch", "like"]), chance.randrange(4), chance.randrange(13)
        events.append({"_request": request, "_item": item, "_event": name, "_value": float(value), "_time": time})
    return impressions, events


def batch_of(config: Config, rows: list[Row]) -> ImpressionBatch:
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


def aggregated(how: str, heard: list[tuple[int, float]]) -> float:
    """Of (time, value) pairs; at one time the smallest is the first, the largest the last."""
    values = [value for _, value in sorted(heard)]
    return {"sum": sum(values), "any": max(values), "first": values[0], "last": values[-1]}[how]


def naive(config: Config, impressions: list[Row], events: list[Row]) -> tuple[dict[tuple[str, str], Row], Counter]:
    """Impressions that stay by request and item, and counts: record by record, in plain Python."""
    counts: Counter = Counter()
    first: dict[tuple[str, str], Row] = {}
    for row in sorted(impressions, key=lambda row: (row["time"], row["position"] or 1 << 60, row["order"])):
        first.setdefault((row["request"], row["item"]), row)
    counts["impressions", "duplicates"] = len(impressions) - len(first)
    skew = round(config.join.clock_skew * 1e6)
    counting: dict[tuple[tuple[str, str], str], list[tuple[int, float]]] = defaultdict(list)
    has_event = set()
    distinct: set[tuple] = set()
    for event in events:
        key, name, value, time = (event["_request"], event["_item"]), event["_event"], event["_value"], event["_time"]
        if (key, name, value, time) in distinct:
            counts["feedback", "duplicate", name] += 1
            continue
        distinct.add((key, name, value, time))
        if key not in first:
            counts["feedback", "orphan", name] += 1
            continue
        delay = time - first[key]["time"]
        if delay < -skew:
            counts["feedback", "early", name] += 1
            continue
        outcome = "late"
        for objective in config.objectives:
            if objective.event != name:
                continue
            if objective.window is not None and delay > round(objective.window * 1e6):
                counts["feedback", "outside_window", objective.name] += 1
                continue
            outcome = "joined"
            has_event.add(key)
            counting[key, objective.name].append((time, value))
        counts["feedback", outcome, name] += 1
    rows = {}
    for key, row in first.items():
        own: dict[str, float | None] = {}
        for objective in config.objectives:
            heard = counting[key, objective.name]
            if objective.kind == "regression":
                nothing = 0.0 if objective.without_event == "zero" else None
                own[objective.name] = aggregated(objective.aggregate, heard) if heard else nothing
            elif objective.at_least is None:
                own[objective.name] = float(bool(heard))
            else:
                enough = bool(heard) and aggregated(objective.aggregate, heard) >= objective.at_least
                own[objective.name] = float(enough)
        clicked, dismissed = own["click"] == 1, own["dismiss"] == 1
        rows[key] = {
            "order": row["order"],
            "time": min(other["time"] for (request, _), other in first.items() if request == key[0]),
            "has_event": key in has_event,
            "click": own["click"],
            "watch_time": own["watch_time"] if clicked else None,
            "dismiss": own["dismiss"] if clicked else None,
            # Given dismiss, which is given click.
            "like": own["like"] if clicked and dismissed else None,
        }
    return rows, counts


def joined_rows(config: Config, joined: Joined) -> dict[tuple[str, str], Row]:
    contexts = joined.batch.contexts.to_pylist()
    return {
        (contexts[row["_row"]]["_request"], row["_item"]): {
            "order": int(row["duration"]),
            "time": contexts[row["_row"]]["_time"],
            "has_event": row[HAS_EVENT],
            **{name: row[f"{name}_label"] for name in config.objective_names},
        }
        for row in joined.batch.impressions.to_pylist()
    }


@given(CONFIG, st.integers(1, 25), st.integers(0, 150), st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_equal_to_the_naive_double(rules, num_impressions, num_events, seed):
    rules = rules.model_copy(update={"sampling": Sampling(negatives=0.5, correction="weights")})
    chance = random.Random(seed)
    impressions, events = random_logs(chance, num_impressions, num_events)
    shuffled = chance.sample(impressions, len(impressions))
    cut = chance.randint(0, len(shuffled))
    batches = [batch_of(rules, rows) for rows in (shuffled[:cut], shuffled[cut:]) if rows]
    tables = [pa.Table.from_pylist(part, schema=FEEDBACK_SCHEMA) for part in (events[:5], events[5:]) if part]
    joined = join(rules, batches, tables)
    expected, counts = naive(rules, impressions, events)
    assert joined.batch.impressions.num_rows == len(expected)
    assert joined_rows(rules, joined) == expected
    assert +joined.counts == +counts
    # Nothing is lost, whatever the windows.
    assert sum(n for key, n in joined.counts.items() if key[0] == "feedback" and key[1] != "outside_window") == len(
        events
    )


def test_feedback_without_any_impression_is_orphaned():
    _, events = random_logs(random.Random(1), 0, 300)
    joined = join(config(), [], [pa.Table.from_pylist(events, schema=FEEDBACK_SCHEMA)])
    _, counts = naive(config(), [], events)
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
