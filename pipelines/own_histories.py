"""Each user's own earlier events, from the feedback that joined.

An event takes part once, from the time on at which both it and its impression had happened: a clock that runs behind
must not put an event before the list that it answers, where it would show the impression its own label. Late events
take part too, since they did happen.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmoe_ranker.config import Config
from mmoe_ranker.config_features import SequenceFeature
from mmoe_ranker.examples import feature_field
from pipelines.attribution import Heard, event_names
from pipelines.batches import ImpressionBatch, bucket_of, ranks, rows_by_key, table_to_bytes
from pipelines.canonical_columns import arrow_type, lists_of
from pipelines.timelines import Timeline, positions_of

EVENTS_SCHEMA = pa.schema(
    [("_key", pa.string()), ("_event", pa.string()), ("_item", pa.string()), ("_time", pa.int64())]
)


def histories(config: Config, by: str) -> tuple[SequenceFeature, ...]:
    """The features that list what the users known by the context feature `by` did."""
    sequences = (feature for feature in config.features if feature.kind == "sequence")
    return tuple(one for one in sequences if one.history is not None and one.history.by == by)


def history_keys(config: Config) -> tuple[str, ...]:
    """The context features by which histories know their users, each once."""
    sequences = (feature for feature in config.features if feature.kind == "sequence")
    return tuple(dict.fromkeys(one.history.by for one in sequences if one.history is not None))


def own_events(
    config: Config, by: str, batch: ImpressionBatch, heard: Heard, num_buckets: int
) -> Iterator[tuple[int, bytes]]:
    """The events that histories list, as (bucket of the user, events in `EVENTS_SCHEMA` as bytes)."""
    names = event_names(config)
    wanted = sorted({names.index(one.history.event) for one in histories(config, by) if one.history is not None})
    listed = np.flatnonzero(np.isin(heard.name, wanted))
    row = pa.array(heard.row[listed])
    user = key_strings(batch.contexts[by].take(batch.impressions["_row"].take(row)))
    item = batch.impressions["_item"].take(row)
    event = pa.array(names, pa.string()).take(pa.array(heard.name[listed]))
    events = pa.Table.from_arrays([user, event, item, pa.array(heard.time[listed])], schema=EVENTS_SCHEMA)
    events = events.filter(pc.is_valid(user))
    for bucket, rows in rows_by_key(bucket_of(events["_key"], num_buckets)):
        yield bucket, table_to_bytes(events.take(pa.array(rows)))


def key_strings(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """A key as it is looked up: a string, null where it is missing or empty."""
    values = values.cast(pa.string())
    return pc.if_else(pc.equal(values, ""), pa.scalar(None, pa.string()), values)


class OwnHistory:
    """One history of the users of a bucket, to be asked as of any times."""

    def __init__(self, config: Config, feature: SequenceFeature, events: pa.Table):
        assert feature.history is not None
        events = events.filter(pc.equal(events["_event"], feature.history.event)).combine_chunks()
        self._max_length = feature.max_length
        self._delay = round(feature.history.delay * 1e6)
        # Events of one time in order of their items: any order will do that is always the same.
        self._timeline = Timeline.of(events["_key"], events["_time"].to_numpy(), ranks(events["_item"]))
        kind = arrow_type(feature_field(config, feature)).value_type
        self._items = events["_item"].combine_chunks().take(pa.array(self._timeline.order)).cast(kind)

    def __len__(self) -> int:
        return len(self._items)

    def as_of(self, keys: pa.Array, times: np.ndarray) -> pa.Array:
        """The lists [q] of items, oldest first, at most `max_length`; empty where the user did nothing before."""
        start, stop = self._timeline.spans(keys, times - self._delay, inclusive=False)
        start = np.maximum(start, stop - self._max_length)
        items = self._items.take(pa.array(positions_of(start, stop)))
        return lists_of(items, stop - start, pa.array(np.ones(len(start), bool)))
