"""Small logs for the pipeline's tests, in every form that is read, and a naive double of the join."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

Record = dict[str, Any]

NUM_REQUESTS = 40


def request(number: int, videos: list[str], **context: Any) -> Record:
    """A valid record: request `r<number>`, a minute after the one before."""
    known = {
        "user_id": f"u{number % 3}",
        "device": ("phone", "tv")[number % 2],
        "watch_history": ["v1", "v2"][: number % 3],
    }
    return {
        "request_id": f"r{number}",
        "timestamp": 1_651_017_600.5 + 60 * number,
        "context": {**known, **context},
        "impressions": [
            {
                "position": place,
                "item": {"video_id": video, "duration": 10.0 * place, "content": [float(place)] * 6},
            }
            for place, video in enumerate(videos, start=1)
        ],
    }


def event(number: int, video: str, name: str, value: Any = None, delay: float = 5.0) -> Record:
    """A valid feedback record of request `r<number>`."""
    record = {
        "request_id": f"r{number}",
        "item_id": video,
        "event": name,
        "timestamp": 1_651_017_600.5 + 60 * number + delay,
    }
    return record if value is None else {**record, "value": value}


def write_json(path: Path, records: list[Any]) -> str:
    """JSON lines; a string stands as it is."""
    text = "".join((record if isinstance(record, str) else json.dumps(record)) + "\n" for record in records)
    data = text.encode("utf-8")
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


def write_flat_impressions(path: Path, records: list[Record], row_group_size: int = 7) -> str:
    """The flat form: one row an impression, context and item beside each other."""
    rows = [
        {
            "request_id": record["request_id"],
            "timestamp": record["timestamp"],
            **record["context"],
            "position": impression.get("position"),
            **impression["item"],
        }
        for record in records
        for impression in record["impressions"]
    ]
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=row_group_size)
    return str(path)


def write_nested(path: Path, records: list[Record]) -> str:
    """Nested Parquet, and feedback Parquet."""
    pq.write_table(pa.Table.from_pylist(records), path)
    return str(path)


def naive_labels(records: list[Record], events: list[Record]) -> dict[tuple[str, str], dict[str, float | None]]:
    """Labels by (request, item) for the objectives of `small_config`, record by record."""
    labels: dict[tuple[str, str], dict[str, float | None]] = {}
    for record in records:
        for impression in record["impressions"]:
            key = record["request_id"], str(impression["item"]["video_id"])
            seen = {
                (one["event"], one.get("value"), one["timestamp"])
                for one in events
                if (one["request_id"], str(one["item_id"])) == key
            }
            names = [name for name, _, _ in seen]
            watched = [value for name, value, _ in seen if name == "watch"]
            clicked = "click" in names
            labels[key] = {
                "click": float(clicked),
                "watch_time": math.fsum(watched) if clicked and watched else None,
                "like": float("like" in names),
                "dismiss": float("dismiss" in names),
            }
    return labels


def random_logs(seed: int = 1) -> tuple[list, list]:
    """Requests with their events, of `NUM_REQUESTS` requests on few videos, in no order."""
    rng = np.random.default_rng(seed)
    records, events = [], []
    for number in range(NUM_REQUESTS):
        videos = [f"v{video}" for video in rng.choice(12, size=rng.integers(1, 6), replace=False)]
        records.append(request(number, videos))
        for video in videos:
            if rng.random() < 0.5:
                events.append(event(number, video, "click"))
                for watched in range(rng.integers(0, 3)):
                    events.append(event(number, video, "watch", float(rng.integers(1, 60)), delay=10.0 + watched))
            if rng.random() < 0.2:
                events.append(event(number, video, "like"))
            if rng.random() < 0.1:
                events.append(event(number, video, "watch", 3.0, delay=99.0))
    order = rng.permutation(len(events))
    return records, [events[place] for place in order]
