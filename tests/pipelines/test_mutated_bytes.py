"""Logs with bytes changed and cut at random: read or refused, and nothing is lost."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from apache_beam.pvalue import TaggedOutput
from hypothesis import given, settings
from hypothesis import strategies as st

from mmoe_ranker.config_loading import parse_config
from pipelines.batches import ImpressionBatch, table_from_bytes
from pipelines.log_blocks import list_blocks
from pipelines.log_reading import COUNTS, ReadFeedback, ReadImpressions
from pipelines.shuffle import Shuffle
from tests.configs import small_config
from tests.pipelines.bad_records import GOOD
from tests.pipelines.logs import event, write_json


def mutated(records: list[Any], flips: list[tuple[int, int]], cuts: list[int], path: Path) -> bytes:
    write_json(path, records)
    data = bytearray(path.read_bytes())
    for place, byte in flips:
        data[place % len(data)] = byte
    for place in cuts:
        del data[place % len(data)]
    path.write_bytes(data)
    return bytes(data)


FLIPS = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=30)
CUTS = st.lists(st.integers(0, 10**6), max_size=5)


@given(FLIPS, CUTS)
@settings(max_examples=150, deadline=None)
def test_mutated_records_are_read_or_refused(tmp_path_factory, flips, cuts):
    folder = tmp_path_factory.getbasetemp()
    config = parse_config(small_config())
    events = [event(number, f"v{1 + number % 3}", "watch", 4.0) for number in range(20)]
    for log, records, reader in (("impressions", GOOD, ReadImpressions), ("feedback", events, ReadFeedback)):
        data = mutated(records, flips, cuts, folder / f"{log}.jsonl")
        blocks, _ = list_blocks(log, str(folder / f"{log}.jsonl"))
        counts, letters, requests, rows = Counter(), 0, set(), 0
        for block in blocks:
            for output in reader(config, 3, Shuffle()).process(block):
                if not isinstance(output, TaggedOutput):
                    if log == "impressions":
                        batch = ImpressionBatch.from_bytes(output[1])
                        contexts, table = batch.contexts, batch.impressions
                    else:
                        contexts = table = table_from_bytes(output[1])
                    requests |= set(contexts["_request"].to_pylist())
                    rows += table.num_rows
                elif output.tag == COUNTS:
                    counts.update(output.value)
                else:
                    letters += output.value.lines.count(b"\n")
        refused = sum(number for key, number in counts.items() if key[1] == "dead_letters")
        assert letters == refused
        assert counts[log, "records"] == sum(bool(line.strip()) for line in data.split(b"\n"))
        if log == "impressions":
            assert rows == counts[log, "rows"]
        else:
            ignored = sum(many for key, many in counts.items() if key[:2] == (log, "ignored"))
            assert counts[log, "records"] == rows + refused + ignored
        lines = set(data.split(b"\n"))
        untouched = {record["request_id"] for record in records if json.dumps(record).encode() in lines}
        assert untouched <= requests
