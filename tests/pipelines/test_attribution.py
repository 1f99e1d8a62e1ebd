"""Windows of attribution from files to files: what joins, what is late or early, and what that does to labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mmoe_ranker.config import Config
from mmoe_ranker.config_loading import parse_config
from pipelines.impressions import run
from pipelines.log_tables import feedback
from pipelines.record_checks import BadRecord, check_event
from tests.configs import small_config
from tests.pipelines.logs import event, request, write_json
from tests.pipelines.reading import read_all


def config_with(objectives: dict[str, dict[str, Any]], **sections: Any) -> Config:
    raw = small_config() | sections
    for objective in raw["objectives"]:
        objective.update(objectives.get(objective["name"], {}))
    return parse_config(raw)


def built(config: Config, folder: Path, records: list, events: list) -> tuple[dict, dict[tuple[str, str], dict]]:
    """The summary, and the examples by request and item."""
    paths = write_json(folder / "i.jsonl", records), write_json(folder / "f.jsonl", events)
    summary = run(config, *paths, str(folder / "out"))
    assert summary["feedback"]["reconciled"]
    return summary, {(one["request_id"], one["item_id"]): one for one in read_all(config, folder / "out")}


def test_windows_reach_to_both_ends(tmp_path: Path):
    # Two objectives of one event: a like within the hour, and within half a minute.
    config = config_with(
        {"like": {"window": 3600}, "dismiss": {"event": "like", "window": 30}}, join={"clock_skew": 2.0}
    )
    delays = [-2.000001, -2, 0, 30, 30.000001, 3600, 3600.000001]
    records = [request(number, ["v1"]) for number in range(len(delays))]
    events = [event(number, "v1", "like", delay=delay) for number, delay in enumerate(delays)]
    events += [event(3, "v1", "like", delay=30), event(3, "v2", "like")]
    summary, examples = built(config, tmp_path, records, events)
    assert [examples[f"r{n}", "v1"]["like_label"] for n in range(7)] == [0, 1, 1, 1, 1, 1, 0]
    assert [examples[f"r{n}", "v1"]["dismiss_label"] for n in range(7)] == [0, 1, 1, 1, 0, 0, 0]
    counted = summary["feedback"]
    assert {key: counted[key] for key in ("read", "joined", "late", "early", "orphans", "duplicates", "ignored")} == {
        "read": 9,
        "joined": 5,
        "late": 1,
        "early": 1,
        "orphans": 1,
        "duplicates": 1,
        "ignored": 0,
    }
    for how in ("late", "early", "orphan", "duplicate"):
        assert counted["by_event"][how] == {"click": 0, "like": 1, "watch": 0}
    assert counted["outside_window"] == {"like": 1, "dismiss": 3}


def test_an_event_before_its_impression_is_early_by_default(config: Config, tmp_path: Path):
    records = [request(number, ["v1"]) for number in range(10)]
    events = [event(0, "v1", "click", delay=-0.000001), event(1, "v1", "click", delay=1e7)]
    summary, examples = built(config, tmp_path, records, events)
    assert (summary["feedback"]["early"], summary["feedback"]["joined"], summary["feedback"]["late"]) == (1, 1, 0)
    assert [examples[f"r{n}", "v1"]["click_label"] for n in range(2)] == [0, 1]
    assert summary["feedback"]["outside_window"] == {}


def test_a_request_that_comes_again_opens_no_new_window(tmp_path: Path):
    config = config_with({"click": {"window": 10}})
    again = request(0, ["v1", "v2"])
    again["timestamp"] += 86_400.0
    records = [again, *(request(number, ["v1"]) for number in range(10))]
    # v1 was shown on the first day; v2 only on the second.
    events = [
        event(0, "v1", "click", delay=86_405.0),
        event(0, "v2", "click", delay=86_405.0),
        event(0, "v2", "click", delay=5.0),
    ]
    summary, examples = built(config, tmp_path, records, events)
    assert summary["impressions"]["duplicates"] == 1
    assert [examples["r0", video]["click_label"] for video in ("v1", "v2")] == [0, 1]
    counted = summary["feedback"]
    assert (counted["joined"], counted["late"], counted["early"]) == (1, 1, 1)
    # The request itself stays at its first day, in one split.
    assert {examples["r0", video]["timestamp_micros"] for video in ("v1", "v2")} == {
        round(records[1]["timestamp"] * 1e6)
    }


def test_aggregates_side_by_side(tmp_path: Path):
    raw = small_config()
    shared = {"family": "engagement", "event": "watch", "window": 60}
    raw["objectives"] = [
        *({"name": how, "kind": "regression", "aggregate": how, **shared} for how in ("sum", "first", "last")),
        *(
            {"name": f"{how}_10", "kind": "binary", "aggregate": how, "at_least": 10.0, **shared}
            for how in ("any", "sum", "first", "last")
        ),
    ]
    raw["model"]["bias"]["objectives"] = ["any_10"]
    raw["combined_score"]["terms"] = {"sum": {"weight": 1.0}}
    records = [request(number, ["v1"]) for number in range(10)]
    heard = {
        # Two at the first moment, two at the last; one after the window, one before the impression.
        0: [(20.0, 5.0), (1.0, 3.0), (1.0, 2.0), (20.0, 1.0), (61.0, 100.0), (-1.0, 100.0)],
        1: [(1.0, 3.0), (2.0, 10.0)],
        2: [(1.0, 10.0), (2.0, 3.0)],
        3: [(1.0, 4.0), (2.0, 5.0)],
        4: [(61.0, 100.0)],
    }
    events = [
        event(number, "v1", "watch", value, delay=delay) for number, pairs in heard.items() for delay, value in pairs
    ]
    _, examples = built(parse_config(raw), tmp_path, records, events)
    names = [objective["name"] for objective in raw["objectives"]]
    assert [[examples[f"r{number}", "v1"][f"{name}_label"] for name in names] for number in range(6)] == [
        [11.0, 2.0, 5.0, 0, 1, 0, 0],
        [13.0, 3.0, 10.0, 1, 1, 0, 1],
        [13.0, 10.0, 3.0, 1, 1, 1, 0],
        [9.0, 4.0, 5.0, 0, 0, 0, 0],
        [None, None, None, 0, 0, 0, 0],
        [None, None, None, 0, 0, 0, 0],
    ]


def test_late_and_early_events_keep_no_negative(tmp_path: Path):
    sampling = {"negatives": 1e-9, "correction": "weights"}
    # A watch of a second is no like of ten, but an event that joined.
    config = config_with(
        {"like": {"window": 10}, "dismiss": {"event": "watch", "at_least": 10.0}},
        sampling=sampling,
        split={"validation": 0.0, "test": 0.0},
    )
    records = [request(number, ["v1"]) for number in range(6)]
    events = [
        event(0, "v1", "like", delay=9.0),
        event(1, "v1", "like", delay=11.0),
        event(2, "v1", "like", delay=-1.0),
        event(3, "v1", "watch", 1.0),
        event(4, "v9", "like"),
    ]
    summary, examples = built(config, tmp_path, records, events)
    assert set(examples) == {("r0", "v1"), ("r3", "v1")}
    assert summary["impressions"]["sampled_out"] == 4


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("like", 3.5, None),
        ("like", None, "value: missing for the event of an objective with at_least"),
        ("like", "many", "value: must be a number"),
        ("like", -2, None),
        ("click", None, None),
        ("watch", None, "value: missing for the event of a regression objective"),
        ("watch", -2, "value: must be at least 0, because of the objective's transform log1p"),
    ],
)
def test_values_are_asked_for_alike_on_both_paths(name: str, value: Any, reason: str | None):
    config = config_with({"like": {"at_least": 3.0}, "dismiss": {"event": "watch", "at_least": 1.0}})
    record = event(0, "v1", name, value)
    taken, suspect, ignored = feedback(config, pa.Table.from_pylist([record]))
    assert (taken.num_rows, suspect.tolist(), len(ignored)) == (reason is None, [reason is not None], 0)
    if reason is None:
        assert taken.to_pylist() == [check_event(config, record)]
    else:
        with pytest.raises(BadRecord, match=f"^{reason}$"):
            check_event(config, record)
