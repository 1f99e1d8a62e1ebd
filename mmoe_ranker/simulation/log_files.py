"""The logs as files: nested JSON lines, the same records as flat Parquet, and the truth in a folder apart.

  impressions.jsonl    one ranked list a line        impressions.parquet  one impression a row
  feedback.jsonl       one event a line              feedback.parquet     one event a row
  truth/truth.parquet  one impression a row          truth/examination.json, truth/world.json

Both forms are written from the same columns, and floats are doubles in both, so that neither knows more than the other.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmoe_ranker.errors import InputError
from mmoe_ranker.simulation.behaviour import EVENT_NAMES
from mmoe_ranker.simulation.logs import Histories, SimulatedLogs
from mmoe_ranker.simulation.population import SECONDS_A_DAY, Floats, Ints, Videos
from mmoe_ranker.simulation.requests import hour_of
from mmoe_ranker.simulation.world import World
from mmoe_ranker.simulation.world_config import COUNTRIES, DEVICES, START_TIMESTAMP, TOPICS
from mmoe_ranker.whole_files import writing_whole

if TYPE_CHECKING:
    import pyarrow as pa

LOG_NAMES = ("impressions.jsonl", "feedback.jsonl", "impressions.parquet", "feedback.parquet", "truth")

# Requests a block: bounds memory, and is a row group of the impressions' Parquet file.
_BLOCK = 5000


def write_logs(logs: SimulatedLogs, folder: str | os.PathLike[str]) -> None:
    """Writes logs and truth; the folder appears complete or not at all.

    The same logs give byte-identical files. An existing folder is replaced where it holds nothing but simulated logs.

    Args:
      logs: from `simulate`.
      folder: the folder to write.

    Raises:
      InputError: `folder` is something else already, or pyarrow, which writes Parquet, is not installed.
      OSError: the disk is full or not writable; nothing is left behind.
    """
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise InputError(
            "Simulated logs need pyarrow to write Parquet; allowed: an environment with `pip install"
            " 'mmoe_ranker[pipelines]'`. Received: no pyarrow."
        ) from None
    target = Path(folder)
    _check_replaceable(target)
    with writing_whole(target) as beside:
        _write_impressions_json(logs, beside / "impressions.jsonl")
        _write_feedback_json(logs, beside / "feedback.jsonl")
        _write_impressions_parquet(logs, beside / "impressions.parquet")
        _write_feedback_parquet(logs, beside / "feedback.parquet")
        (beside / "truth").mkdir()
        _write_truth(logs, beside / "truth")


def _check_replaceable(target: Path) -> None:
    if not target.exists():
        return
    found = sorted(entry.name for entry in target.iterdir()) if target.is_dir() else [target.name]
    foreign = [name for name in found if not target.is_dir() or name not in LOG_NAMES]
    if foreign:
        raise InputError(
            "The folder for simulated logs must be new, empty, or hold nothing but simulated logs."
            f" Received: {str(target)!r} with {foreign[0]!r} in it."
        )


def item_columns(videos: Videos) -> dict[str, list[Any]]:
    """What the logs say of each video: by field, [V]."""
    return {
        "video_id": [f"v{index}" for index in range(len(videos.topic))],
        "topic": [TOPICS[index] for index in videos.topic],
        "uploader_id": [f"c{index}" for index in videos.uploader],
        "duration": videos.duration.tolist(),
        "content": videos.content.tolist(),
    }


def context_columns(
    world: World, timestamp: Floats, user: Ints, device: Ints, histories: Histories
) -> dict[str, list[Any]]:
    """What the logs say of each request before its list is ordered: by field, [B].

    Args:
      world: who asks.
      timestamp: [B] UTC seconds.
      user: [B] user indices.
      device: [B] indices into DEVICES.
      histories: of these requests.
    """
    tenure = world.users.tenure_days[user] + np.floor((timestamp - START_TIMESTAMP) / SECONDS_A_DAY)
    names = [f"v{index}" for index in range(world.config.num_videos)]
    slices = zip(histories.begin.tolist(), histories.end.tolist(), strict=True)
    return {
        "user_id": [f"u{index}" for index in user],
        "country": [COUNTRIES[index] for index in world.users.country[user]],
        "tenure_days": tenure.tolist(),
        "device": [DEVICES[index] for index in device],
        "hour": hour_of(timestamp).tolist(),
        "watch_history": [[names[index] for index in histories.videos[begin:end].tolist()] for begin, end in slices],
    }


def _context_block(logs: SimulatedLogs, block: slice) -> dict[str, list[Any]]:
    histories = Histories(logs.histories.videos, logs.histories.begin[block], logs.histories.end[block])
    columns = context_columns(logs.world, logs.timestamp[block], logs.user[block], logs.device[block], histories)
    return columns | {"random_order": logs.random_order[block].tolist()}


def _blocks(logs: SimulatedLogs) -> list[slice]:
    return [slice(begin, begin + _BLOCK) for begin in range(0, len(logs.user), _BLOCK)]


def _write_impressions_json(logs: SimulatedLogs, path: Path) -> None:
    # A video's fields never change: each is put into JSON once, not once an impression.
    items = item_columns(logs.world.videos)
    item_json = [_json(dict(zip(items, values, strict=True))) for values in zip(*items.values(), strict=True)]
    heads = [f'{{"position":{position + 1},"item":' for position in range(logs.shown.shape[1])]
    ids = logs.request_ids
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for block in _blocks(logs):
            contexts = _context_block(logs, block)
            rows = zip(
                ids[block],
                logs.timestamp[block].tolist(),
                zip(*contexts.values(), strict=True),
                logs.shown[block].tolist(),
                strict=True,
            )
            lines = []
            for request_id, timestamp, context, shown in rows:
                impressions = "},".join([head + item_json[video] for head, video in zip(heads, shown, strict=True)])
                context_json = _json(dict(zip(contexts, context, strict=True)))
                lines.append(
                    f'{{"request_id":"{request_id}","timestamp":{timestamp!r},"context":{context_json},'
                    f'"impressions":[{impressions}}}]}}\n'
                )
            file.writelines(lines)


def _write_feedback_json(logs: SimulatedLogs, path: Path) -> None:
    ids, events = logs.request_ids, logs.events
    rows = zip(
        events.request.tolist(),
        logs.shown[events.request, events.slot].tolist(),
        events.kind.tolist(),
        events.value.tolist(),
        events.timestamp.tolist(),
        strict=True,
    )
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(
            f'{{"request_id":"{ids[request]}","item_id":"v{video}","event":"{EVENT_NAMES[kind]}",'
            f'"value":{value!r},"timestamp":{timestamp!r}}}\n'
            for request, video, kind, value, timestamp in rows
        )


def _write_impressions_parquet(logs: SimulatedLogs, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    positions = logs.shown.shape[1]
    items = {name: pa.array(values) for name, values in item_columns(logs.world.videos).items()}
    ids = logs.request_ids
    writer = None
    try:
        for block in _blocks(logs):
            shown = logs.shown[block]
            of_request = np.repeat(np.arange(len(shown)), positions)
            contexts = _context_block(logs, block)
            contexts = {"request_id": ids[block], "timestamp": logs.timestamp[block].tolist(), **contexts}
            columns = {name: _column(name, values).take(pa.array(of_request)) for name, values in contexts.items()}
            columns["position"] = pa.array(np.tile(np.arange(1, positions + 1), len(shown)))
            columns |= {name: values.take(pa.array(shown.ravel())) for name, values in items.items()}
            order = ["request_id", "timestamp", "position"]
            table = pa.table({name: columns[name] for name in order + [n for n in columns if n not in order]})
            if writer is None:
                writer = pq.ParquetWriter(path, table.schema, compression="zstd")
            writer.write_table(table, row_group_size=len(table))
    finally:
        if writer is not None:
            writer.close()


def _column(name: str, values: list[Any]) -> pa.Array:
    import pyarrow as pa

    # The type of a block whose histories are all empty cannot be seen in its values.
    return pa.array(values, type=pa.list_(pa.string()) if name == "watch_history" else None)


def _write_feedback_parquet(logs: SimulatedLogs, path: Path) -> None:
    import pyarrow as pa

    events = logs.events
    columns = {
        "request_id": pa.array(logs.request_ids).take(pa.array(events.request)),
        "item_id": _video_ids(logs, logs.shown[events.request, events.slot]),
        "event": pa.array(EVENT_NAMES).take(pa.array(events.kind)),
        "value": pa.array(events.value),
        "timestamp": pa.array(events.timestamp),
    }
    _write_table(columns, path)


def _write_truth(logs: SimulatedLogs, folder: Path) -> None:
    import pyarrow as pa

    world, truth = logs.world, logs.preferences
    columns = {
        "request_id": pa.array(logs.request_ids).take(
            pa.array(np.repeat(np.arange(len(logs.user)), logs.shown.shape[1]))
        ),
        "video_id": _video_ids(logs, logs.shown.ravel()),
        "relevance": pa.array(truth.relevance.ravel()),
        "examination": pa.array(logs.examination.ravel()),
        "expected_watch": pa.array(truth.expected_watch.ravel()),
        "like_probability": pa.array(truth.like_probability.ravel()),
        "dismiss_probability": pa.array(truth.dismiss_probability.ravel()),
    }
    _write_table(columns, folder / "truth.parquet")
    positions = np.arange(1, world.config.positions + 1)
    curves = {device: world.examination(index, positions).tolist() for index, device in enumerate(DEVICES)}
    (folder / "examination.json").write_text(json.dumps(curves, indent=1) + "\n", encoding="utf-8")
    # Enough to draw the same world again and let it answer for other rankings.
    made_of = {"seed": world.seed, "num_requests": len(logs.user), "world": dataclasses.asdict(world.config)}
    (folder / "world.json").write_text(json.dumps(made_of, indent=1) + "\n", encoding="utf-8")


def _video_ids(logs: SimulatedLogs, video_idx: np.ndarray) -> pa.Array:
    import pyarrow as pa

    return pa.array([f"v{index}" for index in range(logs.world.config.num_videos)]).take(pa.array(video_idx))


def _write_table(columns: dict[str, pa.Array], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table(columns), path, compression="zstd")


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"))
