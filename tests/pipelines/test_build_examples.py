"""The composite transform by itself: blocks in, collections out, as Beam's own tests look at them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import apache_beam as beam
from apache_beam.runners.portability.fn_api_runner import fn_runner
from apache_beam.testing.util import assert_that, equal_to

from mmoe_ranker.config import Config
from mmoe_ranker.examples import decode_examples, example_layout
from pipelines.impressions import BuildExamples, EncodedPart
from pipelines.log_blocks import list_blocks
from pipelines.splits import Plan
from tests.pipelines.logs import event, request, write_json


def records_of(encoded: EncodedPart) -> list[bytes]:
    """TFRecord framing read by hand: length, its checksum, data, its checksum."""
    data, records, place = gzip.decompress(encoded.content), [], 0
    while place < len(data):
        length = int.from_bytes(data[place : place + 8], "little")
        records.append(data[place + 12 : place + 12 + length])
        place += 16 + length
    return records


def build(pipeline: beam.Pipeline, config: Config, folder: Path, records: list, events: list) -> dict:
    blocks = {
        "impressions": list_blocks("impressions", write_json(folder / "i.jsonl", records))[0],
        "feedback": list_blocks("feedback", write_json(folder / "f.jsonl", events))[0],
    }
    created = {log: pipeline | f"Create{log}" >> beam.Create(listed) for log, listed in blocks.items()}
    return created | "Build" >> BuildExamples(config, num_buckets=3)


def test_literal_rows(config: Config, tmp_path: Path):
    records = [request(number, ["v1", "v2"] if number == 0 else ["v3"]) for number in range(10)]
    events = [
        event(0, "v2", "click"),
        event(0, "v2", "watch", 30.0),
        event(0, "v2", "watch", 12.0),
        event(9, "v3", "like"),
    ]
    layout = example_layout(config)

    def rows(encoded: EncodedPart) -> list[tuple]:
        columns = decode_examples(records_of(encoded), layout)
        names = ("request_id", "item_id", "position", "click_label", "watch_time_label", "like_label")
        return [(encoded.part.split, *row) for row in zip(*(columns[name] for name in names), strict=True)]

    with beam.Pipeline(runner=fn_runner.FnApiRunner()) as pipeline:
        built = build(pipeline, config, tmp_path, records, events)
        splits = ["train"] * 8 + ["validation", "test"]
        expected = [("train", "r0", "v1", 1, 0.0, None, 0.0), ("train", "r0", "v2", 2, 1.0, 42.0, 0.0)]
        expected += [(splits[n], f"r{n}", "v3", 1, 0.0, None, float(n == 9)) for n in range(1, 10)]
        assert_that(built["parts"] | beam.FlatMap(rows), equal_to(expected), label="Examples")
        assert_that(built["dead_letters"], equal_to([]), label="NoDeadLetters")
        assert_that(built["plan"] | beam.Map(splits_of), equal_to([["train", "validation", "test"]]), label="Plan")
        assert_that(
            built["counts"] | beam.Map(lambda counts: {key: n for key, n in counts.items() if n}),
            equal_to(
                [
                    {
                        ("impressions", "records"): 10,
                        ("impressions", "rows"): 11,
                        ("feedback", "records"): 4,
                        ("feedback", "joined", "click"): 1,
                        ("feedback", "joined", "watch"): 2,
                        ("feedback", "joined", "like"): 1,
                    }
                ]
            ),
            label="Counts",
        )


def splits_of(plan: Plan) -> list[str]:
    return [part.split for part in plan.parts]


def test_dead_letters_of_a_block(config: Config, tmp_path: Path):
    records = [request(0, ["v1"]), "{broken", {**request(1, ["v1"]), "timestamp": None}]
    with beam.Pipeline(runner=fn_runner.FnApiRunner()) as pipeline:
        built = build(pipeline, config, tmp_path, records, [])
        letters = built["dead_letters"] | beam.FlatMap(
            lambda one: [(one.log, one.block, json.loads(line)["reason"]) for line in one.lines.splitlines()]
        )
        assert_that(
            letters,
            equal_to([("impressions", 0, "record: must be valid JSON"), ("impressions", 0, "timestamp: missing")]),
        )
