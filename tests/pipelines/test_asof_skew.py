"""One user behind almost every request, one item in all of them: no more time or memory than the same log, even."""

from __future__ import annotations

import time
from collections.abc import Iterator

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest

from mmoe_ranker.config_loading import parse_config
from pipelines.asof_answers import EVENTS, AnswerAsOf
from pipelines.asof_questions import QUESTIONS, AskAsOf, asof_keys, questions_tag
from pipelines.batches import ImpressionBatch, context_schema, impression_schema, table_from_bytes, table_to_bytes
from pipelines.log_blocks import table_log
from pipelines.own_histories import EVENTS_SCHEMA
from pipelines.shuffle import Shuffle
from pipelines.table_reading import table_schema
from tests.configs import asof_config

CONFIG = parse_config(asof_config())
REQUESTS, PER_REQUEST, EVENTS_IN_ALL = 40_000, 5, 100_000


@pytest.fixture
def memory() -> Iterator[pa.MemoryPool]:
    """What Arrow takes from here on."""
    before = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(before)
    pa.set_memory_pool(pool)
    yield pool
    pa.set_memory_pool(before)


def numbered(prefix: str, numbers: np.ndarray) -> pa.Array:
    return pa.array(np.char.add(prefix, numbers.astype(str)))


def batch_of(users: np.ndarray, items: np.ndarray, sizes: np.ndarray) -> ImpressionBatch:
    """One joined batch of R requests [R] of these users, with so many impressions [R], of these items [I]."""
    requests, impressions = len(users), len(items)
    given = {
        "_request": numbered("r", np.arange(requests)),
        "_time": pa.array(np.arange(requests) * 1_000_000),
        "_order": pa.array(np.arange(requests)),
        "user_id": numbered("u", users),
    }
    contexts = [given.get(name, pa.nulls(requests, kind)) for name, kind in _fields(context_schema(CONFIG))]
    shown = {"_row": pa.array(np.repeat(np.arange(requests), sizes)), "_item": numbered("v", items)}
    columns = [shown.get(name, pa.nulls(impressions, kind)) for name, kind in _fields(impression_schema(CONFIG))]
    return ImpressionBatch(
        pa.Table.from_arrays(contexts, schema=context_schema(CONFIG)),
        pa.Table.from_arrays(columns, schema=impression_schema(CONFIG)),
    )


def _fields(schema: pa.Schema) -> list[tuple[str, pa.DataType]]:
    return [(field.name, field.type) for field in schema]


def cost(users: np.ndarray, items: np.ndarray, sizes: np.ndarray, pool: pa.MemoryPool) -> tuple[float, int, int]:
    """Seconds, bytes at most beyond what was there before, and answers, of asking and answering in one bucket."""
    rng = np.random.default_rng(1)
    payload = batch_of(users, items, sizes).to_bytes()
    happened = pa.array(np.sort(rng.integers(0, len(users) * 1_000_000, EVENTS_IN_ALL)))
    events = [
        numbered("u", rng.choice(users, EVENTS_IN_ALL)),
        pa.array(["watch", "like"]).take(pa.array(np.arange(EVENTS_IN_ALL) % 2)),
        numbered("v", rng.choice(items, EVENTS_IN_ALL)),
        happened,
    ]
    moved = {"_key": numbered("u", users), "_time": pa.array(np.arange(len(users)) * 1_000_000 - 5)}
    schema = table_schema(CONFIG, "users")
    rows = [moved.get(name, pa.array(np.arange(len(users))).cast(kind)) for name, kind in _fields(schema)]
    sources = {
        "user_id": [
            (EVENTS, table_to_bytes(pa.Table.from_arrays(events, schema=EVENTS_SCHEMA))),
            (table_log("users"), table_to_bytes(pa.Table.from_arrays(rows, schema=schema))),
        ],
        "video_id": [],
    }
    del events, rows, happened, moved
    before, answered = pool.bytes_allocated(), 0
    started, highest = time.process_time(), 0
    asked = list(AskAsOf(CONFIG, 1, Shuffle()).process(payload))[1:]
    for key in asof_keys(CONFIG):
        questions = [(QUESTIONS, output.value[1]) for output in asked if output.tag == questions_tag(key)]
        for output in AnswerAsOf(CONFIG, key, Shuffle()).process((0, [*sources[key], *questions])):
            highest = max(highest, pool.bytes_allocated() - before)
            if not isinstance(output, beam.pvalue.TaggedOutput):
                answered += table_from_bytes(output[1][1]).num_rows
    return time.process_time() - started, highest, answered


def test_one_user_or_one_item_behind_everything(memory: pa.MemoryPool):
    rng = np.random.default_rng(2)
    sizes = np.full(REQUESTS, PER_REQUEST)
    users, items = rng.integers(0, 5_000, REQUESTS), rng.integers(0, 20_000, REQUESTS * PER_REQUEST)
    even = cost(users, items, sizes, memory)
    hot_user = np.where(rng.random(REQUESTS) < 0.95, 7, users)
    hot_item = np.where(np.arange(len(items)) % PER_REQUEST == 0, 7, items)
    # And a request of 10,000 impressions in place of as many small ones.
    large = sizes[: REQUESTS - 10_000 // PER_REQUEST + 1].copy()
    large[0] = 10_000
    shown = len(items) if large.sum() > len(items) else large.sum()
    large[-1] -= large.sum() - shown
    hot = cost(hot_user[: len(large)], hot_item[:shown], large, memory)
    assert even[2] == REQUESTS * (1 + PER_REQUEST)
    assert hot[2] == len(large) + shown
    assert hot[0] < 3 * even[0] + 0.5
    assert hot[1] < 2 * even[1]


def test_a_slice_bounds_what_is_answered_at_once(monkeypatch):
    monkeypatch.setattr("pipelines.asof_questions._SLICE_VALUES", 1000)
    users, items = np.zeros(2_000, np.int64), np.zeros(2_000, np.int64)
    asked = list(AskAsOf(CONFIG, 1, Shuffle()).process(batch_of(users, items, np.ones(2_000, np.int64)).to_bytes()))
    # Histories of 5 items: 200 questions at once; of videos only their length is asked.
    of_users = [output.value[1] for output in asked[1:] if output.tag == questions_tag("user_id")]
    assert [table_from_bytes(payload).num_rows for _, payload in of_users] == [200] * 10
    questions = [(QUESTIONS, one) for one in of_users]
    answers = list(AnswerAsOf(CONFIG, "user_id", Shuffle()).process((0, questions)))[1:]
    assert [table_from_bytes(payload).num_rows for _, (_, payload) in answers] == [200] * 10
