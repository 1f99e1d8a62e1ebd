"""Bytes that stay on disk while Beam moves their places: the same come back, in any process, also after a failure."""

from __future__ import annotations

import errno
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pipelines.impressions as job
from mmoe_ranker.config import Config
from pipelines.batches import ImpressionBatch
from pipelines.impressions import run
from pipelines.running import run_and_wait
from pipelines.shuffle import Shuffle
from tests.pipelines.logs import event, request, write_json
from tests.pipelines.reading import content_of


@given(st.lists(st.binary(max_size=200), max_size=8))
def test_bytes_come_back(tmp_path_factory, contents: list[bytes]):
    one = Shuffle(str(tmp_path_factory.mktemp("shared")))
    # As a worker gets it; two that write at once do not meet.
    other = pickle.loads(pickle.dumps(one))
    places = [(one.put(content), other.put(content[::-1])) for content in contents]
    for content, (first, second) in zip(contents, places, strict=True):
        assert other.get(first) == content
        assert one.get(second) == content[::-1]
    assert len({name for name, _, _ in (place for pair in places for place in pair)}) == (2 if contents else 0)


def test_without_a_folder_the_bytes_travel():
    assert Shuffle().put(b"x") == b"x"
    assert Shuffle().get(b"x") == b"x"


def test_what_a_failed_attempt_wrote_is_passed_over(tmp_path: Path):
    shuffle = Shuffle(str(tmp_path))
    shuffle.put(b"first")
    [file] = tmp_path.iterdir()
    with file.open("ab") as half:
        half.write(b"half a pay")
    assert shuffle.get(shuffle.put(b"second")) == b"second"


def test_a_batch_as_bytes():
    contexts = pa.table({"_request": ["r1", "r2"], "_time": pa.array([5, 6], pa.int64())})
    impressions = pa.table({"_row": np.array([0, 0, 1]), "_item": ["a", None, "c"]})
    batch = ImpressionBatch.from_bytes(ImpressionBatch(contexts, impressions).to_bytes())
    assert batch.contexts.equals(contexts)
    assert batch.impressions.equals(impressions)


@pytest.fixture(name="logs")
def small_logs(tmp_path: Path) -> tuple[str, str]:
    records = [request(number, ["v1", "v2"]) for number in range(40)]
    events = [event(number, "v1", "click") for number in range(0, 40, 3)]
    return write_json(tmp_path / "i.jsonl", records), write_json(tmp_path / "f.jsonl", events)


def test_the_same_examples_with_and_without_a_folder(config: Config, logs, tmp_path: Path, monkeypatch):
    seen: list[str] = []

    def look(*arguments: Any) -> None:
        run_and_wait(*arguments)
        seen.extend(path.parent.name for path in tmp_path.glob(".out.*/.shuffle/*"))

    monkeypatch.setattr(job, "run_and_wait", look)
    run(config, *logs, str(tmp_path / "out"))
    assert seen
    on_disk = content_of(tmp_path / "out")
    seen.clear()
    monkeypatch.setattr("pipelines.shuffle.shares_disk", lambda _: False)
    run(config, *logs, str(tmp_path / "out"))
    assert not seen
    assert content_of(tmp_path / "out") == on_disk
    assert {path.name for path in tmp_path.iterdir()} == {"i.jsonl", "f.jsonl", "out"}


def test_the_disk_is_full_while_shuffling(config: Config, logs, tmp_path: Path, monkeypatch):
    class Full:
        hex = "/dev/full"  # To write there is refused with ENOSPC.

    monkeypatch.setattr("pipelines.shuffle.uuid", SimpleNamespace(uuid4=Full))
    with pytest.raises(OSError, match="No space left on device") as error:
        run(config, *logs, str(tmp_path / "out"))
    assert error.value.errno == errno.ENOSPC
    assert {path.name for path in tmp_path.iterdir()} == {"i.jsonl", "f.jsonl"}
