"""Tables and histories as of the impression: against a naive double, and a search for leaks from later times."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmoe_ranker.config_loading import parse_config
from tests.configs import asof_config
from tests.pipelines.asof_worlds import features_of, joined_as_of, joined_batches, naive_features, table_of

START = 1_651_017_600.0


def config_of(delay: float = 2.0):
    raw = asof_config()
    for feature in raw["features"]:
        if "history" in feature:
            feature["max_length"] = 2
    raw["features"][-1]["history"]["delay"] = delay
    raw["tables"].append({"name": "makers", "key": "maker", "timestamp": "since"})
    raw["features"] += [
        {"name": "maker", "side": "candidate", "kind": "categorical", "buckets": 9, "dim": 2},
        {"name": "topics", "side": "candidate", "kind": "sequence", "buckets": 9, "dim": 2, "table": "makers"},
        {"name": "fame", "side": "candidate", "kind": "numeric", "table": "makers"},
    ]
    # Clocks that run behind: an event may bear a time before its request's.
    raw["join"] = {"clock_skew": 3.0}
    return parse_config(raw)


CONFIG = config_of()
USERS = st.sampled_from(["u0", "u1", "u2", "", None])
ITEMS = st.integers(0, 4).map(lambda number: f"v{number}")
MAKERS = st.sampled_from(["m0", "m1"])
# Half seconds on a short line, so that times coincide.
TIMES = st.integers(0, 24).map(lambda half: START + half / 2)
SHOWN = st.lists(st.tuples(ITEMS, MAKERS | st.none()), min_size=1, max_size=3, unique_by=lambda one: one[0])
REQUESTS = st.lists(st.tuples(USERS, TIMES, SHOWN), min_size=1, max_size=8)
EVENTS = st.lists(
    st.tuples(
        st.integers(0, 7), ITEMS, st.sampled_from(["watch", "like", "click"]), st.sampled_from([1.0, 2.0]),
        st.integers(-6, 20),
    ),
    max_size=25,
)  # fmt: skip
TABLES = st.fixed_dictionaries(
    {
        "users": st.lists(
            st.fixed_dictionaries(
                {"user_id": st.sampled_from(["u0", "u1"]), "updated_at": TIMES, "country": st.sampled_from("abc")}
            ),
            max_size=8,
        ),
        "videos": st.lists(
            st.fixed_dictionaries({"video_id": ITEMS, "seconds": st.none() | st.integers(0, 9).map(float)}), max_size=6
        ),
        "makers": st.lists(
            st.fixed_dictionaries(
                {
                    "maker": MAKERS,
                    "since": TIMES,
                    "fame": st.none() | st.integers(0, 3).map(float),
                    "topics": st.none() | st.lists(st.sampled_from("xyz"), max_size=3),
                }
            ),
            max_size=8,
        ),
    }
)


def records_of(requests: list[tuple]) -> list[dict[str, Any]]:
    return [
        {
            "request_id": f"r{number}",
            "timestamp": time,
            # A country in the log is not looked at.
            "context": {"country": "from the log"} if user is None else {"user_id": user, "country": "from the log"},
            "impressions": [{"item": {"video_id": item, "maker": maker}} for item, maker in shown],
        }
        for number, (user, time, shown) in enumerate(requests)
    ]


def events_of(records: list[dict[str, Any]], events: list[tuple]) -> list[dict[str, Any]]:
    """Events of these requests, some of items that were not shown."""
    return [
        {
            "request_id": records[number]["request_id"],
            "item_id": item,
            "event": name,
            "value": value,
            "timestamp": records[number]["timestamp"] + half / 2,
        }
        for number, item, name, value, half in events
        if number < len(records)
    ]


def features(records: list, events: list, tables: dict[str, list], seed: int = 0) -> dict:
    rows = {name: table_of(CONFIG, name, tables[name]) for name in tables}
    batches, _ = joined_as_of(CONFIG, joined_batches(CONFIG, records, events), rows, seed)
    return features_of(CONFIG, batches)


@given(REQUESTS, EVENTS, TABLES, st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_equal_to_the_naive_double(requests, events, tables, seed):
    records = records_of(requests)
    heard = events_of(records, events)
    assert features(records, heard, tables, seed) == naive_features(CONFIG, records, heard, tables)


@given(REQUESTS, EVENTS, EVENTS, TABLES, TABLES, TIMES)
@settings(max_examples=60, deadline=None)
def test_nothing_later_is_seen(requests, events, more_events, tables, more_rows, now):
    """Events at or after a time, and rows after it, change nothing for impressions at or before it."""
    records = records_of(requests)
    heard = events_of(records, events)
    later = [event for event in events_of(records, more_events) if event["timestamp"] >= now]
    times = {"users": "updated_at", "makers": "since"}
    rows = {
        name: tables[name] + [row for row in more_rows[name] if name in times and row[times[name]] > now]
        for name in tables
    }
    before = {record["request_id"] for record in records if record["timestamp"] <= now}
    once, again = features(records, heard, tables), features(records, heard + later, rows)
    assert {key: once[key] for key in once if key[0] in before} == {
        key: again[key] for key in again if key[0] in before
    }


def test_an_event_before_its_own_request_is_not_in_its_own_history():
    # The clock of whoever wrote the event runs two seconds behind: its list must not know that it will be watched.
    records = records_of([("u0", START + 5, [("v1", None)]), ("u0", START + 6, [("v2", None)])])
    event = {"request_id": "r0", "item_id": "v1", "event": "watch", "value": 1.0, "timestamp": START + 3}
    found = features(records, [event], {"users": [], "videos": [], "makers": []})
    assert found["r0", "v1"]["watch_history"] == []
    assert found["r1", "v2"]["watch_history"] == ["v1"]


def test_a_late_event_is_history_though_it_is_no_label():
    raw = asof_config()
    raw["objectives"][1]["window"] = 60.0
    config = parse_config(raw)
    records = records_of([("u0", START, [("v1", None)]), ("u0", START + 500, [("v2", None)])])
    event = {"request_id": "r0", "item_id": "v1", "event": "watch", "value": 1.0, "timestamp": START + 100}
    tables = {name: table_of(config, name, []) for name in ("users", "videos")}
    batches, counts = joined_as_of(config, joined_batches(config, records, [event]), tables)
    assert features_of(config, batches)["r1", "v2"]["watch_history"] == ["v1"]
    assert counts["histories", "watch_history", "events"] == 1


@pytest.mark.parametrize("kept", ["first", "last"])
def test_of_rows_of_one_key_and_time_the_last_holds(kept: str):
    rows = [{"user_id": "u0", "updated_at": START, "country": country} for country in ("a", "b")]
    if kept == "first":
        rows.reverse()
    records = records_of([("u0", START, [("v1", None)]), ("u1", START, [("v1", None)])])
    tables = {"users": rows, "videos": [{"video_id": "v1", "seconds": 1.0}] * 3, "makers": []}
    tables = {name: table_of(CONFIG, name, listed) for name, listed in tables.items()}
    batches, counts = joined_as_of(CONFIG, joined_batches(CONFIG, records, []), tables)
    assert features_of(CONFIG, batches)["r0", "v1"]["country"] == rows[-1]["country"]
    log = {how: counts["table-users", how] for how in ("rows", "duplicates", "hits", "misses")}
    assert log == {"rows": 1, "duplicates": 1, "hits": 1, "misses": 1}
    assert (counts["table-videos", "rows"], counts["table-videos", "duplicates"]) == (1, 2)
