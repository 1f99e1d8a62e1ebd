"""Small worlds for the as-of join: its steps without a runner, and a naive double in plain Python.

The steps are called as a runner would call them, with what is grouped in an order of chance.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from typing import Any

import apache_beam as beam
import pyarrow as pa

from mmoe_ranker.config import Config
from pipelines.asof_answers import EVENTS, AnswerAsOf
from pipelines.asof_questions import QUESTIONS, AskAsOf, AttachAnswers, asof_keys, questions_tag
from pipelines.batches import FEEDBACK_SCHEMA, ImpressionBatch, bucket_of, rows_by_key, table_to_bytes
from pipelines.joining import join
from pipelines.log_blocks import table_log
from pipelines.log_tables import batch_of_rows
from pipelines.own_histories import history_keys, own_events
from pipelines.record_checks import check_event, check_request, timestamp_micros
from pipelines.shuffle import Shuffle
from pipelines.table_reading import ALWAYS, table_features, table_schema

Record = dict[str, Any]
Features = dict[tuple[str, str], Record]


def joined_batches(config: Config, records: list[Record], events: list[Record], num_buckets: int = 2) -> list[Any]:
    """What the join gives, bucket by bucket."""
    rows = []
    for order, record in enumerate(records):
        checked = check_request(config, record)
        rows.append(({**checked.context, "_order": order}, checked.impressions))
    shown = batch_of_rows(config, rows)
    heard = pa.Table.from_pylist([check_event(config, event) for event in events], schema=FEEDBACK_SCHEMA)
    requests = shown.contexts["_request"].take(shown.impressions["_row"])
    own = bucket_of(heard["_request"], num_buckets)
    return [
        join(config, [shown.take(places)], [heard.filter(pa.array(own == bucket))])
        for bucket, places in rows_by_key(bucket_of(requests, num_buckets))
    ]


def table_of(config: Config, name: str, rows: list[Record]) -> pa.Table:
    """Rows of a table as its reader gives them."""
    table = next(table for table in config.tables if table.name == name)
    canonical = [
        {
            "_key": row[table.key],
            "_time": ALWAYS if table.timestamp is None else timestamp_micros(row[table.timestamp]),
            "_order": order,
            **{f.name: row.get(f.column or f.name) for f in table_features(config, name)},
        }
        for order, row in enumerate(rows)
    ]
    return pa.Table.from_pylist(canonical, schema=table_schema(config, name))


def joined_as_of(
    config: Config, joined: list[Any], tables: dict[str, pa.Table], seed: int = 0, num_buckets: int = 2
) -> tuple[list[ImpressionBatch], Counter]:
    """Batches with all features, and what was counted; `seed` decides the order of everything that is grouped."""
    chance = random.Random(seed)
    batches: dict[Any, Any] = {}
    by_key: dict[str, dict[int, list]] = {key: defaultdict(list) for key in asof_keys(config)}
    for one in joined:
        for key in history_keys(config):
            for bucket, events in own_events(config, key, one.batch, one.heard, num_buckets):
                by_key[key][bucket].append((EVENTS, events))
        for output in AskAsOf(config, num_buckets, Shuffle()).process(one.batch.to_bytes()):
            if isinstance(output, beam.pvalue.TaggedOutput):
                key = next(key for key in asof_keys(config) if output.tag == questions_tag(key))
                by_key[key][output.value[0]].append((QUESTIONS, output.value[1]))
            else:
                batches[output[0]] = output[1]
    for table in config.tables:
        rows = tables[table.name]
        for bucket, places in rows_by_key(bucket_of(rows["_key"], num_buckets)):
            for place in chance.sample(places.tolist(), len(places)):
                payload = table_to_bytes(rows.take(pa.array([place])))
                by_key[table.key][bucket].append((table_log(table.name), payload))
    counts: Counter = Counter()
    answers: dict[Any, list] = defaultdict(list)
    for key, buckets in by_key.items():
        for bucket, values in buckets.items():
            for output in AnswerAsOf(config, key, Shuffle()).process((bucket, chance.sample(values, len(values)))):
                if isinstance(output, beam.pvalue.TaggedOutput):
                    counts.update(output.value)
                else:
                    answers[output[0]].append(output[1])
    result = []
    for name, streams in batches.items():
        grouped = {"batches": [streams], "answers": chance.sample(answers[name], len(answers[name]))}
        for output in AttachAnswers(config, Shuffle()).process((name, grouped)):
            if isinstance(output, beam.pvalue.TaggedOutput):
                counts.update(output.value)
            else:
                result.append(ImpressionBatch.from_bytes(output))
    return result, counts


def features_of(config: Config, batches: list[ImpressionBatch]) -> Features:
    """The features that do not stand in the log, by request and item."""
    found = {}
    for batch in batches:
        contexts = batch.contexts.to_pylist()
        for row in batch.impressions.to_pylist():
            whole = {**contexts[row["_row"]], **row}
            features = {feature.name: whole[feature.name] for feature in config.features if not feature.is_logged}
            found[whole["_request"], whole["_item"]] = features
    return found


def naive_features(config: Config, records: list[Record], events: list[Record], tables: dict[str, list]) -> Features:
    """The same, impression by impression, from all that lies before it; each request has one record."""
    asked = {record["request_id"]: record["timestamp"] for record in records}
    users: dict[tuple[str, str], Record] = {
        (record["request_id"], impression["item"]["video_id"]): record["context"]
        for record in records
        for impression in record["impressions"]
    }
    distinct = {
        (event["request_id"], event["item_id"], event["event"], event.get("value"), event["timestamp"])
        for event in events
        if (event["request_id"], event["item_id"]) in users
    }
    found: Features = {}
    for record in records:
        for impression in record["impressions"]:
            item, time = impression["item"]["video_id"], record["timestamp"]
            logged = {**record["context"], **impression["item"]}
            features: Record = {}
            for feature in config.features:
                if feature.table is not None:
                    table = next(table for table in config.tables if table.name == feature.table)
                    row: Record = {}
                    newest = -1.0
                    for one in tables[table.name]:
                        since = 0.0 if table.timestamp is None else one[table.timestamp]
                        if one[table.key] == logged.get(table.key) and newest <= since <= time:
                            row, newest = one, since
                    features[feature.name] = row.get(feature.column or feature.name)
                elif feature.kind == "sequence" and feature.history is not None:
                    rule, user = feature.history, record["context"].get(feature.history.by)
                    earlier = []
                    for request, seen, name, _, happened in distinct:
                        known = max(happened, asked[request])
                        own = name == rule.event and users[request, seen].get(rule.by) == user
                        if own and known < time - rule.delay:
                            earlier.append((known, seen))
                    listed = [seen for _, seen in sorted(earlier)][-feature.max_length :]
                    features[feature.name] = listed if user else None
            found[record["request_id"], item] = features
    return found
