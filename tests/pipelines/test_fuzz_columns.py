"""Every odd value in every field of both logs, alone among good ones and in all records of a chunk.

Arrow gives a column another type for each mixture; whatever the type, the readers must take and refuse the same values
as the naive double, which sees one value at a time.
"""

from __future__ import annotations

import copy
import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from apache_beam.pvalue import TaggedOutput

from mmoe_ranker.config_loading import parse_config
from pipelines.batches import ImpressionBatch, table_from_bytes
from pipelines.dead_letters import DEAD_LETTERS
from pipelines.log_blocks import list_blocks
from pipelines.log_reading import ReadFeedback, ReadImpressions
from pipelines.shuffle import Shuffle
from tests.pipelines.mutations import VALUES
from tests.pipelines.naive_reading import canonical, mutation_config, read_events, read_impressions
from tests.pipelines.test_fuzz_records import event, record

CONFIG = parse_config(mutation_config())


def paths_of(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place of a tree, but the root and the elements of lists of plain values."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        if isinstance(value, dict) or isinstance(one, dict):
            yield (*before, key)
        yield from paths_of(one, (*before, key))


def with_value(record: dict[str, Any], path: tuple[Any, ...], text: str) -> bytes:
    copied = copy.deepcopy(record)
    *outer, last = path
    place: Any = copied
    for key in outer:
        place = place[key]
    place[last] = "<<here>>"
    return json.dumps(copied).replace('"<<here>>"', text).encode("utf-8", "surrogatepass") + b"\n"


def read(folder: Path, log: str, data: bytes) -> tuple[Counter[str], Counter[str]]:
    """What the reader takes, row by row, and what it refuses."""
    (folder / "log.jsonl").write_bytes(data)
    taken: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    blocks, _ = list_blocks(log, str(folder / "log.jsonl"))  # type: ignore[arg-type]
    reader = (ReadImpressions if log == "impressions" else ReadFeedback)(CONFIG, 1, Shuffle())
    for output in (output for block in blocks for output in reader.process(block)):
        if not isinstance(output, TaggedOutput):
            rows = _impression_rows(output[1]) if log == "impressions" else table_from_bytes(output[1])
            taken.update(json.dumps(row, sort_keys=True) for row in rows.to_pylist())
        elif output.tag == DEAD_LETTERS:
            for line in output.value.lines.decode().split("\n")[:-1]:
                refused[canonical(json.loads(line)["record"])] += 1
    return taken, refused


def _impression_rows(stream: bytes) -> pa.Table:
    batch = ImpressionBatch.from_bytes(stream)
    contexts = batch.contexts.take(batch.impressions["_row"])
    rows = batch.impressions.drop_columns(["_row", "_position"])
    for name in contexts.column_names:
        rows = rows.append_column(name, contexts[name])
    return rows.drop_columns(["_order"])


NAMES = {"_request": "request_id", "_item": "item_id", "_time": "timestamp_micros", "_index": "index"}
EVENTS = {"_request": "request_id", "_item": "item_id", "_event": "event", "_value": "value", "_time": "micros"}


@pytest.mark.parametrize("log", ["impressions", "feedback"])
def test_odd_values_are_judged_alike_in_every_column_type(tmp_path: Path, log: str):
    good, read_naively, names = (
        (record("r", 3), read_impressions, NAMES) if log == "impressions" else (event("r", 1), read_events, EVENTS)
    )
    good["debug"] = {"of": [1]}
    plain = json.dumps(good).encode() + b"\n"
    wrong = []
    rng = random.Random(11)
    for path in paths_of(good):
        for text in (*rng.sample(VALUES, 8), "-0", "Inf"):
            odd = with_value(good, path, text)
            for data in (odd * 2, plain + odd + plain):
                reading = read_naively(data)
                rows = [
                    {ours: row[name] for ours, name in ((name, names.get(name, name)) for name in _columns(log))}
                    for row in reading.taken
                ]
                expected = Counter(json.dumps(row, sort_keys=True) for row in rows)
                if read(tmp_path, log, data) != (expected, reading.refused):
                    wrong.append((path, text[:30], data.count(odd)))
    assert not wrong


def _columns(log: str) -> list[str]:
    if log == "feedback":
        return list(EVENTS)
    return [*NAMES, *(feature.name for feature in CONFIG.features)]
