"""Warm-up: the requests kept beside a version are run through it before it is offered to anyone.

The file is `<version>/assets.extra/tf_serving_warmup_requests`, TFRecords of `tensorflow.serving.PredictionLog` with
the request filled in. It is optional, but a record that fails makes the version fail to load, so that a version whose
signature and recorded requests disagree never becomes available.

Reference: tensorflow_serving/servables/tensorflow/{saved_model_warmup,saved_model_warmup_util}.cc.
"""

from __future__ import annotations

import pathlib
import threading

import grpc
from google.protobuf.message import DecodeError

from serving.protos import PredictionLog
from serving.session import DEFAULT_SIGNATURE, SavedModel
from serving.status import StatusError
from serving.tfrecord import read_records

WARMUP_FILE = pathlib.PurePath("assets.extra", "tf_serving_warmup_requests")
_MAX_RECORDS = 1000


def warm_up(model: SavedModel, folder: pathlib.Path, stopping: threading.Event | None = None) -> int:
    """Runs the recorded requests of the version in `folder`.

    Args:
        model: The version, loaded.
        folder: Its folder.
        stopping: Ends it before the next record.

    Returns:
        How many records were run; 0 where there is no file.

    Raises:
        StatusError: the file or one of its requests is not right; CANCELLED, `stopping` is set.
    """
    path = folder / WARMUP_FILE
    if not path.exists():
        return 0
    count = 0
    try:
        for record in read_records(path):
            if stopping is not None and stopping.is_set():
                raise StatusError(grpc.StatusCode.CANCELLED, "The server is shutting down.")
            _run(model, record, path)
            count += 1
            if count > _MAX_RECORDS:
                raise StatusError(
                    grpc.StatusCode.INVALID_ARGUMENT,
                    f"Number of warmup records exceeds the maximum ({_MAX_RECORDS}) at {path}",
                )
    except StatusError as error:
        if error.code is grpc.StatusCode.DATA_LOSS:
            message = f"{error.message}. Please verify your warmup data is in TFRecord format."
            raise StatusError(error.code, message) from error
        raise
    return count


def _run(model: SavedModel, record: bytes, path: pathlib.Path) -> None:
    try:
        log = PredictionLog.FromString(record)
    except DecodeError as error:
        raise StatusError(
            grpc.StatusCode.INVALID_ARGUMENT,
            f"Failed to parse warmup record: {record.decode(errors='replace')} from {path}",
        ) from error
    kind = next((field.name for field, _ in log.ListFields()), None)
    if kind is None:
        return  # upstream passes over a record without a request
    if kind != "predict_log":
        raise StatusError(
            grpc.StatusCode.UNIMPLEMENTED,
            f"Unsupported log_type for warmup: {kind}; this server warms up with predict_log alone.",
        )
    request = log.predict_log.request
    model.run(
        request.model_spec.signature_name or DEFAULT_SIGNATURE,
        {alias: tensor.SerializeToString() for alias, tensor in request.inputs.items()},
        request.output_filter,
    )
