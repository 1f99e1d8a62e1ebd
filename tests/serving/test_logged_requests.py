"""Warm-up out of the ranked-list log: the sizes that came, the values that came, in the form that the client sends."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from mmoe_ranker.errors import InputError
from serving.logged_requests import add_warm_up
from serving.ranked_list_log import RankedListLog
from serving.session import SavedModel
from serving.tfrecord import append_record, read_records
from serving.warmup import WARMUP_FILE, warm_up
from tests.serving.ranker_requests import CANDIDATES, CONTEXT


@pytest.fixture
def version(exports: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(exports / "ranker", tmp_path / "version"))
    (folder / WARMUP_FILE).parent.mkdir()
    return folder


def logged_sizes(folder: Path, sizes: list[int], positions: int = 2) -> str:
    """A log of requests with so many candidates each, in this order, of which two are shown."""
    with RankedListLog(folder, positions=positions, max_waiting=len(sizes)) as log:
        for number, size in enumerate(sizes):
            context = CONTEXT | {"hour": number % 24}
            log.offer(context, (CANDIDATES * size)[:size], list(range(size)), 1, {}, f"r{number}")
    return str(folder / "*.jsonl")


def requests(version: Path) -> list[dict[str, Any]]:
    """The recorded requests as TensorFlow's own protos and decoder read them."""
    logs = [prediction_log_pb2.PredictionLog.FromString(record) for record in read_records(version / WARMUP_FILE)]
    assert {log.predict_log.request.model_spec.signature_name for log in logs} == {"rank"}
    return [{name: tf.make_ndarray(tensor) for name, tensor in log.predict_log.request.inputs.items()} for log in logs]


def test_a_request_of_each_size_is_added_as_the_client_sends_it(version, tmp_path):
    log = logged_sizes(tmp_path / "log", [3, 7, 3, 1])
    assert add_warm_up(version, log) == 3
    one, three, seven = requests(version)
    assert [len(request["video_id"]) for request in (one, three, seven)] == [1, 3, 7]
    assert three["hour"].tolist() == [2]  # the newest of that size
    assert three["device"].tolist() == [CONTEXT["device"].encode()]
    # Two were shown; they are repeated up to the number that there was.
    ids = [CANDIDATES[row % 2]["video_id"].encode() for row in range(7)]
    assert seven["video_id"].tolist() == ids
    expected = [np.nan if value is None else value for value in (CANDIDATES[row % 2]["duration"] for row in range(7))]
    np.testing.assert_allclose(seven["duration"], expected)
    model = SavedModel.load(version)
    try:
        assert warm_up(model, version) == 3
    finally:
        model.close()


def test_records_that_are_there_stay(version, tmp_path):
    log = logged_sizes(tmp_path / "log", [2])
    add_warm_up(version, log)
    before = list(read_records(version / WARMUP_FILE))
    add_warm_up(version, log)
    assert list(read_records(version / WARMUP_FILE)) == before * 2


def test_many_sizes_are_thinned_out_between_the_smallest_and_the_largest(version, tmp_path):
    assert add_warm_up(version, logged_sizes(tmp_path / "log", list(range(1, 101)))) == 32
    sizes = [len(request["video_id"]) for request in requests(version)]
    assert (sizes[0], sizes[-1], len(set(sizes))) == (1, 100, 32)
    assert max(np.diff(sizes)) <= 5


def test_a_feature_that_the_log_does_not_have_yet_is_missing(version, tmp_path):
    record = {"context": {"device": "tv"}, "impressions": [{"position": 1, "item": {"video_id": "v1", "old": 3}}]}
    (tmp_path / "log.jsonl").write_text("\n" + json.dumps(record) + "\n")
    assert add_warm_up(version, str(tmp_path / "log.jsonl")) == 1
    (request,) = requests(version)
    assert request["hour"].tolist() == [-1]
    assert np.isnan(request["duration"]).all()
    assert "old" not in request


def test_records_are_written_as_tensorflow_reads_them(tmp_path):
    records = [b"", b"a", bytes(range(256)) * 40]
    with (tmp_path / "records").open("wb") as file:
        for record in records:
            append_record(file, record)
    assert [record.numpy() for record in tf.data.TFRecordDataset(str(tmp_path / "records"))] == records


GOOD = {"context": {}, "impressions": [{"position": 1, "item": {}}]}


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ("{", "must be JSON lines with `context` and `impressions`"),
        ("[]", "TypeError). Received: []."),
        (json.dumps({"context": {}, "impressions": []}), "ValueError). Received: "),
        (json.dumps({"context": 1, "impressions": [{"item": {}}]}), "ValueError). Received: "),
        (json.dumps({"impressions": [{"item": {}}]}), "KeyError). Received: "),
        (json.dumps(GOOD | {"num_candidates": 0}), "at least the number of impressions (line 1 of "),
        (json.dumps(GOOD | {"num_candidates": "many"}), "Received: 'many'."),
        (json.dumps(GOOD | {"context": {"hour": "late"}}), "must fit the version that it is to warm up (line 1 of "),
    ],
)
def test_lines_that_are_no_records(version, tmp_path, record, words):
    (tmp_path / "log.jsonl").write_text(record + "\n")
    with pytest.raises(InputError) as caught:
        add_warm_up(version, str(tmp_path / "log.jsonl"))
    assert words in str(caught.value)
    assert "Received: " in str(caught.value)


def test_no_file(version, tmp_path):
    with pytest.raises(InputError) as caught:
        add_warm_up(version, str(tmp_path / "*.jsonl"))
    assert str(caught.value) == (
        f"`--warmup-log` must be a file, or a glob of files, that are there. Received: {str(tmp_path / '*.jsonl')!r}."
    )
