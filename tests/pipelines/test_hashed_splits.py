"""Splits by a hash of a feature: one split a user, shares, order of time inside, the same for any run."""

from __future__ import annotations

from functools import reduce
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmoe_ranker.config import Config
from mmoe_ranker.config_loading import parse_config
from mmoe_ranker.errors import InputError
from pipelines.batches import bucket_of
from pipelines.impressions import run
from pipelines.joining import join
from pipelines.log_tables import batch_of_rows
from pipelines.splits import SPLITS, TimeHistogram, draws, hashed_split, plan_parts
from tests.configs import small_config
from tests.pipelines.logs import random_logs, request, write_json
from tests.pipelines.reading import content_of, read_split

# Of the users u0, u1, ... with the shares .4, .3 and .3.
PINNED = [SPLITS[int(digit)] for digit in "000120102120"]


def by_user(**split: float) -> Config:
    return parse_config(small_config() | {"split": {"by": "user_id", **split}})


# UTC microseconds of the tests' first moment.
EPOCH = 1_651_017_600_000_000


def at(micros: int) -> str:
    return f"2022-04-27T00:00:00.{micros:06d}Z"


def split_of(value: str) -> str:
    """By the shares .4, .3 and .3, of one value alone."""
    return SPLITS[int(hashed_split(by_user(validation=0.3, test=0.3), contexts([value]))[0])]


def contexts(users: list, kind: pa.DataType | None = None) -> pa.Table:
    return pa.table({"_request": [f"r{place}" for place in range(len(users))], "user_id": pa.array(users, kind)})


def test_shares_are_of_users_within_chance():
    users = [f"user-{number}" for number in range(40_000)]
    counts = np.bincount(hashed_split(by_user(validation=0.2, test=0.05), contexts(users)), minlength=3)
    for count, share in zip(counts, (0.75, 0.2, 0.05), strict=True):
        # Five standard deviations.
        assert count == pytest.approx(40_000 * share, abs=5 * np.sqrt(40_000 * share * (1 - share)))


def test_the_draw_is_another_than_that_of_buckets():
    users = pa.chunked_array([[f"user-{number}" for number in range(20_000)]])
    splits = hashed_split(by_user(), contexts(users.to_pylist()))
    for bucket in range(4):
        mine = splits[bucket_of(users, 4) == bucket]
        assert (mine == 2).mean() == pytest.approx(0.1, abs=5 * 0.3 / np.sqrt(len(mine)))


def test_a_value_has_the_split_that_it_had_when_this_was_written():
    config = by_user(validation=0.3, test=0.3)
    splits = [SPLITS[place] for place in hashed_split(config, contexts([f"u{number}" for number in range(12)]))]
    assert splits == PINNED
    numbers = hashed_split(config, contexts([7, 8, 9, 10], pa.int64()))
    np.testing.assert_array_equal(numbers, hashed_split(config, contexts(["7", "8", "9", "10"])))


def test_a_record_without_the_feature_goes_by_its_request():
    config = by_user(validation=0.3, test=0.3)
    requests = [f"r{place}" for place in range(50)]
    np.testing.assert_array_equal(
        hashed_split(config, contexts([None] * 50, pa.string())), hashed_split(config, contexts(requests))
    )


USERS = st.integers(0, 2)
REQUESTS = st.lists(st.tuples(USERS, st.integers(0, 60), st.integers(1, 4)), min_size=1, max_size=60)


def histogram(requests: list[tuple[int, int, int]]) -> TimeHistogram:
    return TimeHistogram.of(*(np.array(column, np.int64) for column in zip(*requests, strict=True)))


@given(REQUESTS, st.integers(1, 12), st.data())
@settings(deadline=None)
def test_parts_lie_inside_their_split_in_order_of_time(requests, shards, data):
    cuts = sorted(data.draw(st.lists(st.integers(1, len(requests)), max_size=3)))
    pieces = [requests[low:high] for low, high in zip([0, *cuts], [*cuts, len(requests)], strict=True) if low < high]
    pieces = data.draw(st.permutations(pieces))
    merged = reduce(lambda one, other: TimeHistogram.merge([one, other]), map(histogram, pieces), TimeHistogram.empty())
    for name in ("splits", "times", "requests", "impressions"):
        np.testing.assert_array_equal(getattr(merged, name), getattr(histogram(requests), name))
    plan = plan_parts(by_user(), shards, merged)
    ordered = sorted(requests)
    splits, times = (np.array(column) for column in list(zip(*ordered, strict=True))[:2])
    places = plan.part_of(splits, times, np.zeros_like(times))
    assert [plan.parts[place].split for place in places] == [SPLITS[split] for split, _, _ in ordered]
    assert (np.diff(places) >= 0).all()
    assert set(places) == set(range(len(plan.parts)))
    for split, name in enumerate(SPLITS):
        mine = [part for part in plan.parts if part.split == name]
        assert [part.index for part in mine] == list(range(len(mine)))
        assert {part.count for part in mine} <= {len(mine)}
        assert bool(mine) == any(one == split for one, _, _ in requests)


RECORDS = st.lists(
    st.fixed_dictionaries(
        {
            "request": st.integers(0, 9),
            # A request may be logged in several records, of several users even.
            "user": st.none() | st.integers(0, 11).map(lambda number: f"u{number}"),
            "time": st.integers(0, 30),
            "items": st.lists(st.integers(0, 3).map(str), min_size=1, max_size=4, unique=True),
        }
    ),
    min_size=1,
    max_size=30,
)


@given(RECORDS, st.integers(1, 3), st.booleans())
@settings(deadline=None)
def test_joined_buckets_equal_the_naive_double(records, num_buckets, hashed):
    config = by_user(validation=0.3, test=0.3)
    if not hashed:
        starts = {"validation_start": at(10), "test_start": at(20)}
        config = parse_config(small_config() | {"split": starts})
    rows = [
        (
            {"_request": f"r{one['request']}", "user_id": one["user"], "_time": EPOCH + one["time"], "_order": order},
            [{"_item": item, "_index": index} for index, item in enumerate(one["items"])],
        )
        for order, one in enumerate(records)
    ]
    buckets: dict[int, list] = {}
    for one, row in zip(records, rows, strict=True):
        buckets.setdefault(one["request"] % num_buckets, []).append(row)
    joined = [join(config, [batch_of_rows(config, mine)], []) for mine in buckets.values()]
    merged = TimeHistogram.empty()
    for one in joined:
        merged = TimeHistogram.merge([merged, TimeHistogram.of_batch(config, one.batch)])
    plan = plan_parts(config, None, merged)
    found = {}
    for one in joined:
        of_context = one.batch.contexts.to_pylist()
        contexts = one.batch.contexts
        places = plan.part_of(hashed_split(config, contexts), contexts["_time"].to_numpy(), draws(contexts))
        for impression in one.batch.impressions.to_pylist():
            key = of_context[impression["_row"]]["_request"], impression["_item"]
            found[key] = plan.parts[places[impression["_row"]]].split

    first: dict[tuple[str, str], dict] = {}
    for context, impressions in sorted(rows, key=lambda row: (row[0]["_time"], row[0]["_order"])):
        for impression in impressions:
            first.setdefault((context["_request"], impression["_item"]), context)
    expected = {}
    for (request_id, item), context in first.items():
        asked = min(other["_time"] for (another, _), other in first.items() if another == request_id) - EPOCH
        by_time = SPLITS[(asked >= 10) + (asked >= 20)]
        expected[request_id, item] = split_of(context["user_id"] or request_id) if hashed else by_time
    assert found == expected
    counted = {(context["_request"], expected[key]) for key, context in first.items()}
    assert merged.requests.sum() == len(counted)
    assert merged.impressions.sum() == len(first)


def test_a_user_is_in_one_split_whatever_the_order_of_the_log(tmp_path: Path, monkeypatch):
    config = by_user(validation=0.3, test=0.3)
    records, events = random_logs()
    for number, record in enumerate(records):
        record["context"]["user_id"] = None if number in (3, 30) else f"u{number % 8}"
    expected = dict(zip([f"u{number}" for number in range(8)], PINNED[:8], strict=True))
    paths = write_json(tmp_path / "i.jsonl", records), write_json(tmp_path / "f.jsonl", events)
    summary = run(config, *paths, str(tmp_path / "out"), ["--num_shards", "9"])
    assert summary["split"] == {"by": "user_id", "validation": 0.3, "test": 0.3, "split_by_request": 2}
    assert summary["impressions"]["reconciled"]
    shuffled = [records[place] for place in np.random.default_rng(2).permutation(len(records))]
    paths = write_json(tmp_path / "s.jsonl", shuffled), paths[1]
    monkeypatch.setattr("pipelines.log_blocks.BLOCK_BYTES", 700)
    run(config, *paths, str(tmp_path / "again"), ["--num_shards", "9"])
    assert content_of(tmp_path / "again") == content_of(tmp_path / "out")
    seen: dict[str | None, set[str]] = {}
    for split in SPLITS:
        examples = read_split(config, tmp_path / "out", split)
        times = [example["timestamp_micros"] for example in examples]
        assert times == sorted(times)
        assert summary["splits"][split]["requests"] == len(set(times)) > 0
        for example in examples:
            seen.setdefault(example["user_id"], set()).add(split)
    unnamed = seen.pop(None)
    assert seen == {user: {split} for user, split in expected.items()}
    assert unnamed == {SPLITS[place] for place in hashed_split(config, contexts(["r3", "r30"]))}


def test_no_user_for_training_is_refused(tmp_path: Path):
    config = by_user(validation=0.3, test=0.3)
    user = f"u{PINNED.index('test')}"
    records = [request(number, ["v1"], user_id=user) for number in range(10)]
    paths = write_json(tmp_path / "i.jsonl", records), write_json(tmp_path / "f.jsonl", [])
    message = (
        r"^The `split` of the config must leave impressions for training\. Received: "
        r"\{'by': 'user_id', 'validation': 0\.3, 'test': 0\.3\}, all 10 impressions in validation or test\.$"
    )
    with pytest.raises(InputError, match=message):
        run(config, *paths, str(tmp_path / "out"))


def test_a_split_by_time_says_so(config: Config, tmp_path: Path):
    records = [request(number, ["v1"]) for number in range(10)]
    paths = write_json(tmp_path / "i.jsonl", records), write_json(tmp_path / "f.jsonl", [])
    summary = run(config, *paths, str(tmp_path / "out"))
    assert summary["split"] == {"by": "time", "validation": 0.1, "test": 0.1}
