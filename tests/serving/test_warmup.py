"""Warm-up records: run before a version is offered; one that fails keeps the version from being offered at all."""

from __future__ import annotations

import pathlib
import shutil
import threading

import grpc
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from serving.session import SavedModel
from serving.status import StatusError
from serving.tfrecord import masked_crc32c, read_records
from serving.versions import ModelVersions, State
from serving.warmup import WARMUP_FILE, warm_up
from tests.serving.conftest import predict_request


def predict_log(*args, **inputs) -> prediction_log_pb2.PredictionLog:
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.CopyFrom(predict_request(*args, **inputs))
    return log


@pytest.fixture
def version(exports: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(exports / "two", tmp_path / "models" / "1"))


@pytest.fixture
def model(version: pathlib.Path):
    loaded = SavedModel.load(version)
    yield loaded
    loaded.close()


def write(version: pathlib.Path, records: list[bytes]) -> pathlib.Path:
    path = version / WARMUP_FILE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    return path


def failure(model: SavedModel, version: pathlib.Path) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(StatusError) as caught:
        warm_up(model, version)
    return caught.value.code, caught.value.message


def test_no_file_and_an_empty_one(model, version):
    assert warm_up(model, version) == 0
    write(version, [])
    assert warm_up(model, version) == 0


def test_requests_are_run(model, version):
    # `count` counts its calls in a variable; the name in a record's model_spec is not looked at
    write(version, [predict_log("count", name="anything").SerializeToString()] * 3)
    assert warm_up(model, version) == 3
    assert model.run("count", {})["calls"].int64_val == [4]


def test_stop_ends_it_before_the_next_record(model, version, monkeypatch):
    write(version, [predict_log("count").SerializeToString()] * 3)
    stopping, run = threading.Event(), model.run
    monkeypatch.setattr(model, "run", lambda *arguments: (run(*arguments), stopping.set()))
    with pytest.raises(StatusError) as caught:
        warm_up(model, version, stopping)
    assert caught.value.code is grpc.StatusCode.CANCELLED
    assert run("count", {})["calls"].int64_val == [2]


def test_record_without_a_request_is_passed_over(model, version):
    write(version, [prediction_log_pb2.PredictionLog().SerializeToString()])
    assert warm_up(model, version) == 1


def test_no_tfrecord_file(model, version):
    write(version, []).write_bytes(b"this is no TFRecord file")
    assert failure(model, version) == (
        grpc.StatusCode.DATA_LOSS,
        "corrupted record at 0. Please verify your warmup data is in TFRecord format.",
    )


def test_cut_file(model, version):
    path = write(version, [predict_log("constant").SerializeToString()] * 2)
    content = path.read_bytes()
    path.write_bytes(content[:-3])
    assert failure(model, version) == (
        grpc.StatusCode.DATA_LOSS,
        f"truncated record at {len(content) // 2}. Please verify your warmup data is in TFRecord format.",
    )


def test_more_than_1000_records(model, version):
    record = predict_log("constant").SerializeToString()
    path = write(version, [record] * 1000)
    assert warm_up(model, version) == 1000
    write(version, [record] * 1001)
    assert failure(model, version) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        f"Number of warmup records exceeds the maximum (1000) at {path}",
    )


def test_unparsable_record(model, version):
    path = write(version, [b"\xff\xff"])
    code, message = failure(model, version)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert message.startswith("Failed to parse warmup record: ")
    assert message.endswith(f" from {path}")


@pytest.mark.parametrize("kind", ["classify_log", "regress_log", "multi_inference_log", "session_run_log"])
def test_other_kinds_of_records_are_refused(model, version, kind):
    log = prediction_log_pb2.PredictionLog()
    getattr(log, kind).SetInParent()
    write(version, [log.SerializeToString()])
    code, message = failure(model, version)
    assert code is grpc.StatusCode.UNIMPLEMENTED
    assert message.startswith(f"Unsupported log_type for warmup: {kind}")


def test_failing_record_fails_the_version(exports, version):
    write(version, [predict_log("nope").SerializeToString()])
    shutil.copytree(exports / "two", version.with_name("0"))
    versions = ModelVersions("m", version.parent, poll_seconds=0)
    with pytest.raises(ValueError, match='Serving signature key "nope" not found'):
        versions.start()
    (status,) = versions.statuses()
    assert (status.version, status.state) == (1, State.END)
    assert status.error is not None
    assert status.error.code is grpc.StatusCode.FAILED_PRECONDITION


def test_records_are_read_as_tensorflow_wrote_them(tmp_path):
    records = [b"", b"a", bytes(range(256)) * 40]
    path = tmp_path / "records"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    assert list(read_records(path)) == records


def test_crc32c_of_the_standard_check_value():
    # CRC-32C("123456789") = 0xe3069283, the check value of the polynomial; the mask is TensorFlow's
    crc = 0xE3069283
    assert masked_crc32c(b"123456789") == (((crc >> 15) | (crc << 17)) + 0xA282EAD8) % 2**32


def test_flipped_byte_is_noticed(tmp_path):
    path = tmp_path / "records"
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(b"0123456789")
    content = bytearray(path.read_bytes())
    content[15] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(StatusError, match="corrupted record at 0"):
        list(read_records(path))
