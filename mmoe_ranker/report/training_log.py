"""What a training wrote for TensorBoard, read back without TensorFlow: its metrics every few steps.

Format: TFRecords (length, its checksum, an Event, its checksum) in files whose names tell when they were begun.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tensorboard.compat.proto.event_pb2 import Event

_PREFIX = "batch_"
_EVERY_STEPS = "*.tfevents.*"


def training_metrics(logs: Path) -> dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """By metric, the steps since training began and its values there, each a mean since the pass began.

    Args:
      logs: of a workdir, `logs/`; where it is absent or holds nothing, there is nothing.

    Returns:
      By name, such as `click_auc`, two arrays [S].
    """
    found: dict[str, list[tuple[int, float]]] = {}
    for file in sorted(logs.glob(f"train/{_EVERY_STEPS}"), key=lambda path: (len(path.name), path.name)):
        for event in _events(file):
            for value in event.summary.value:
                if value.tag.startswith(_PREFIX):
                    number = _scalar(value)
                    if number is not None:
                        found.setdefault(value.tag.removeprefix(_PREFIX), []).append((event.step, number))
    return {
        name: (_since_start(np.array([step for step, _ in points])), np.array([value for _, value in points]))
        for name, points in found.items()
    }


def _since_start(steps: NDArray[np.int64]) -> NDArray[np.int64]:
    """Steps are counted anew in each pass, and after a kill."""
    moved = np.diff(steps, prepend=0)
    return np.cumsum(np.where(moved > 0, moved, steps))


def _events(file: Path) -> Iterator[Event]:
    content = file.read_bytes()
    place = 0
    # A file whose writer was killed may end amid a record.
    while place + 12 <= len(content):
        (length,) = struct.unpack_from("<Q", content, place)
        place += 12
        if place + length + 4 > len(content):
            return
        yield Event.FromString(content[place : place + length])
        place += length + 4


def _scalar(value: object) -> float | None:
    tensor = value.tensor  # type: ignore[attr-defined]
    if len(tensor.float_val) == 1:
        return float(tensor.float_val[0])
    return struct.unpack("<f", tensor.tensor_content)[0] if len(tensor.tensor_content) == 4 else None
