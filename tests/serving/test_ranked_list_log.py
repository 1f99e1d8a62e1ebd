"""The client's ranked-list log: what it writes, which requests, and into which files."""

from __future__ import annotations

import json
import math
import threading
import time
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmoe_ranker.errors import InputError
from serving.ranked_list_log import LogCounts, RankedListLog, _json
from tests.serving.offered_lists import CANDIDATES, CONTEXT, WEIGHTS, offer, records


def test_record_holds_the_list_as_shown(tmp_path):
    before = time.time()
    with RankedListLog(tmp_path, positions=3) as log:
        assert offer(log, "r1") == "r1"
    (record,) = records(tmp_path)
    assert before - 1e-3 <= record.pop("timestamp") <= time.time()
    assert record == {
        "request_id": "r1",
        "context": CONTEXT,
        "impressions": [
            {"position": 1, "item": CANDIDATES[2]},
            {"position": 2, "item": CANDIDATES[0]},
            {"position": 3, "item": CANDIDATES[3]},
        ],
        "num_candidates": 4,
        "model_version": 7,
        "score_weights": WEIGHTS,
        "sampling_rate": 1.0,
    }
    assert log.counts == LogCounts(offered=1, written=1)


def test_columns_are_logged_as_rows_are(tmp_path):
    columns = {name: [candidate[name] for candidate in CANDIDATES] for name in CANDIDATES[0]}
    arrays = {
        "video_id": np.array(columns["video_id"]),
        "duration": np.array(columns["duration"], np.float32),
        "content": np.array(columns["content"], np.float32),
    }
    with RankedListLog(tmp_path) as log:
        for candidates in (CANDIDATES, columns, arrays, dict(pd.DataFrame(columns).items())):
            offer(log, candidates=candidates, order=np.array([2, 0, 3, 1]))
    shown = [record["impressions"] for record in records(tmp_path)]
    assert len(shown) == 4
    assert all(one == shown[0] for one in shown)


def test_ids_are_made_up_where_none_is_given(tmp_path):
    with RankedListLog(tmp_path) as log:
        ids = [offer(log) for _ in range(20)]
        assert log.offer(CONTEXT, CANDIDATES, [0], 7, WEIGHTS, 8) == "8"  # as feedback will have it, and no error
    assert len(set(ids)) == 20
    assert [record["request_id"] for record in records(tmp_path)] == [*ids, "8"]


def test_later_changes_by_the_caller_are_not_logged(tmp_path):
    context, candidates = dict(CONTEXT), [dict(candidate) for candidate in CANDIDATES]
    duration = np.array([1.0, 2.0])
    with RankedListLog(tmp_path) as log, log._changed:  # nothing is written meanwhile
        offer(log, context=context, candidates=candidates)
        offer(log, candidates={"video_id": ["a", "b"], "duration": duration}, order=[1, 0])
        context["device"] = candidates[2]["video_id"] = "changed"
        duration[:] = 0.0
    rows, columns = records(tmp_path)
    assert rows["context"] == CONTEXT
    assert rows["impressions"][0]["item"] == CANDIDATES[2]
    assert [impression["item"]["duration"] for impression in columns["impressions"]] == [2.0, 1.0]


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value


SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_infinity=False) | st.text()


@settings(max_examples=50)
@given(st.dictionaries(st.text(), SCALARS | st.lists(SCALARS)))
def test_missing_numbers_are_null_and_the_rest_is_kept(values):
    assert json.loads(_json(values)) == _without_nan(values)


def test_missing_numbers_of_numpy_are_null():
    values = {
        "a": np.float32("nan"),
        "b": np.array([1.0, np.nan]),
        "c": np.int64(3),
        "d": np.bool_(True),
        "e": "é",
        "f": pd.NA,
    }
    assert json.loads(_json(values)) == {"a": None, "b": [1.0, None], "c": 3, "d": True, "e": "é", "f": None}
    assert json.loads(_json({"f": pd.NA})) == {"f": None}


def test_a_hash_of_the_id_samples(tmp_path):
    ids = [f"request {number}" for number in range(4000)]
    with (
        RankedListLog(tmp_path / "a", sampling_rate=0.2, max_waiting=4000) as log,
        RankedListLog(tmp_path / "b", sampling_rate=0.5) as wider,
    ):
        chosen = {request_id for request_id in ids if log.samples(request_id)}
        assert chosen < {request_id for request_id in ids if wider.samples(request_id)}
        for request_id in ids:
            offer(log, request_id, candidates=CANDIDATES[:1], order=[0])
    assert abs(len(chosen) / len(ids) - 0.2) < 4 * math.sqrt(0.2 * 0.8 / len(ids))
    logged = records(tmp_path / "a")
    assert {record["request_id"] for record in logged} == chosen
    assert {record["sampling_rate"] for record in logged} == {0.2}
    assert log.counts == LogCounts(offered=4000, not_sampled=4000 - len(chosen), written=len(chosen))


def test_files_appear_complete_when_they_are_large_enough(tmp_path):
    with RankedListLog(tmp_path, max_file_bytes=2000) as log:
        for _ in range(40):
            offer(log)
    sizes = [file.stat().st_size for file in sorted(tmp_path.iterdir(), key=lambda file: file.stat().st_mtime_ns)]
    assert len(sizes) > 5
    assert all(2000 <= size < 3000 for size in sizes[:-1])
    assert len(records(tmp_path)) == 40


def test_files_appear_when_they_are_old_enough(tmp_path):
    with RankedListLog(tmp_path, max_file_seconds=0.2) as log:
        offer(log)
        deadline = time.monotonic() + 20
        while not records(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(records(tmp_path)) == log.counts.written == 1


def test_many_threads(tmp_path):
    with RankedListLog(tmp_path, max_waiting=10_000, max_file_bytes=20_000) as log:

        def work(thread: int) -> None:
            for number in range(100):
                offer(log, f"{thread}-{number}")

        threads = [threading.Thread(target=work, args=(thread,)) for thread in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert log.counts == LogCounts(offered=800, written=800)
    assert {record["request_id"] for record in records(tmp_path)} == {f"{t}-{n}" for t in range(8) for n in range(100)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sampling_rate": 0.0}, "`sampling_rate` must be above 0 and at most 1. Received: 0.0."),
        ({"sampling_rate": math.nan}, "`sampling_rate` must be above 0 and at most 1. Received: nan."),
        ({"positions": 0}, "`positions` must be at least 1. Received: 0."),
        ({"max_waiting": 0}, "`max_waiting` must be at least 1. Received: 0."),
        ({"max_file_bytes": 0}, "`max_file_bytes` must be at least 1. Received: 0."),
    ],
)
def test_arguments_out_of_range(tmp_path, arguments, message):
    with pytest.raises(InputError) as caught:
        RankedListLog(tmp_path, **arguments)
    assert str(caught.value) == message


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"must be one that can be made \(.*\)\. Received: '.*file/logs'\."):
        RankedListLog(tmp_path / "file" / "logs")
