"""The usual Beam job, as the pipeline's baseline: one JSON impression an element, one tf.train.Example an element.

It joins by CoGroupByKey and writes the same examples as `pipelines.impressions`, sensibly written but for that; it
checks nothing, counts nothing, and knows neither splits nor order nor statistics.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import tensorflow as tf

from mmoe_ranker.config import Config
from mmoe_ranker.examples import canonical_category, feature_field, label_name
from pipelines.running import parse_options, runner_for


def write_single_impressions(nested: Path, flat: Path) -> int:
    """From a line a request to a line an impression, with all its request's context; returns how many."""
    count = 0
    with nested.open(encoding="utf-8") as source, flat.open("w", encoding="utf-8") as target:
        for line in source:
            record = json.loads(line)
            for impression in record.pop("impressions"):
                target.write(json.dumps(record | impression) + "\n")
                count += 1
    return count


def run(config: Config, impressions: Path, feedback: Path, out: Path) -> None:
    """Builds `out-*.tfrecord.gz` from a log of single impressions and a feedback log, both JSON lines.

    Args:
      config: features and objectives.
      impressions: as `write_single_impressions` writes it.
      feedback: the feedback log.
      out: path and beginning of the files' names.
    """
    item_key = config.item_key
    options = parse_options([])
    with beam.Pipeline(runner=runner_for(options), options=options) as pipeline:
        shown = (
            pipeline
            | "ReadImpressions" >> beam.io.ReadFromText(str(impressions))
            | "ParseImpressions" >> beam.Map(json.loads)
            | "KeyImpressions"
            >> beam.Map(lambda record: ((record["request_id"], str(record["item"][item_key])), record))
        )
        events = (
            pipeline
            | "ReadFeedback" >> beam.io.ReadFromText(str(feedback))
            | "ParseFeedback" >> beam.Map(json.loads)
            | "KeyFeedback" >> beam.Map(lambda event: ((event["request_id"], str(event["item_id"])), event))
        )
        _ = (
            {"impressions": shown, "feedback": events}
            | "Join" >> beam.CoGroupByKey()
            | "Encode" >> beam.ParDo(_EncodeExample(config))
            | "Write" >> beam.ParDo(_WriteBundle(str(out)))
        )


class _WriteBundle(beam.DoFn):
    """Serialized examples -> a gzipped TFRecord file a bundle.

    TensorFlow's own writer: Beam's frames records in Python, and wants one more package for the checksums.
    """

    def __init__(self, out: str):
        self._out = out

    def start_bundle(self) -> None:
        self._writer = tf.io.TFRecordWriter(f"{self._out}-{uuid.uuid4().hex}.tfrecord.gz", options="GZIP")

    def process(self, example: bytes) -> None:
        self._writer.write(example)

    def finish_bundle(self) -> None:
        self._writer.close()


class _EncodeExample(beam.DoFn):
    """((request, item), its impressions and events) -> serialized examples."""

    def __init__(self, config: Config):
        self._item_key = config.item_key
        self._objectives = config.objectives
        self._features = [(feature, feature_field(config, feature)) for feature in config.features]

    def process(self, element: tuple[tuple[str, str], dict[str, Iterable[Any]]]) -> Iterator[bytes]:
        _, joined = element
        events = list(joined["feedback"])
        for record in joined["impressions"]:
            features = {
                "request_id": _bytes([record["request_id"]]),
                "item_id": _bytes([canonical_category(record["item"][self._item_key])]),
                "timestamp_micros": _integers([round(record["timestamp"] * 1e6)]),
            }
            for feature, field in self._features:
                value = self._value(record, feature)
                if value is None:
                    continue
                values = value if isinstance(value, list) else [value]
                if field.wire == "bytes":
                    recent = values[-feature.max_length :] if feature.kind == "sequence" else values
                    features[field.name] = _bytes([canonical_category(one) for one in recent])
                elif field.wire == "int64":
                    features[field.name] = _integers(values)
                else:
                    features[field.name] = _floats(values)
            for name, label in self._labels(events).items():
                if label is not None:
                    features[label_name(name)] = _floats([label])
            yield tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()

    def _value(self, record: dict[str, Any], feature: Any) -> Any:
        if feature.side == "candidate":
            return record["item"].get(feature.name)
        if feature.side == "bias" and feature.name in record:
            return record[feature.name]
        return record["context"].get(feature.name)

    def _labels(self, events: list[dict[str, Any]]) -> dict[str, float | None]:
        unmasked: dict[str, float | None] = {}
        for objective in self._objectives:
            mine = [event for event in events if event["event"] == objective.event]
            if objective.kind == "binary":
                unmasked[objective.name] = float(bool(mine))
            elif mine or objective.without_event == "zero":
                unmasked[objective.name] = float(sum(event["value"] or 0.0 for event in mine))
            else:
                unmasked[objective.name] = None
        labels = dict(unmasked)
        given = {objective.name: objective.given for objective in self._objectives}
        for name in labels:
            parent = given[name]
            while parent is not None:
                if unmasked[parent] != 1.0:
                    labels[name] = None
                parent = given[parent]
        return labels


def _bytes(values: list[str]) -> Any:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode() for value in values]))


def _integers(values: list[int]) -> Any:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def _floats(values: list[float]) -> Any:
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))
