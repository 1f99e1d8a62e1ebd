"""Reads an examples folder back, with the decoder and TensorFlow's own TFRecord reader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmoe_ranker.config import Config
from mmoe_ranker.examples import decode_examples, example_layout


def read_split(config: Config, folder: Path, split: str) -> list[dict[str, Any]]:
    """The examples of a split in order, each as a dict."""
    # Not above: who reads bytes alone need not wait for TensorFlow, nor share its threads with a fork.
    import tensorflow as tf

    files = sorted(str(path) for path in (folder / split).glob("part-*.tfrecord.gz"))
    records = [record.numpy() for record in tf.data.TFRecordDataset(files, compression_type="GZIP")]
    columns = decode_examples(records, example_layout(config))
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def read_all(config: Config, folder: Path) -> list[dict[str, Any]]:
    """The examples of all splits in order."""
    return [example for split in ("train", "validation", "test") for example in read_split(config, folder, split)]


def letters_of(folder: Path, log: str) -> list[dict[str, Any]]:
    """The dead letters of a log in order."""
    files = sorted((folder / "dead_letters").glob(f"{log}-*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def content_of(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by its path in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
