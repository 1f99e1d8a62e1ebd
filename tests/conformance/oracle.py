"""What TF Serving answers to any request to the suite's model: its checks written down once more, as codes.

It takes requests as a server does, as bytes, and uses nothing of the server's.
"""

from __future__ import annotations

import math
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, predict_pb2

from tests.conformance.malformed import METADATA, PREDICT, STATUS
from tests.conformance.target import NAME, VERSION

OK = grpc.StatusCode.OK
INVALID = grpc.StatusCode.INVALID_ARGUMENT
FAILED = grpc.StatusCode.FAILED_PRECONDITION
NOT_FOUND = grpc.StatusCode.NOT_FOUND

MESSAGES: dict[str, Any] = {
    PREDICT: predict_pb2.PredictRequest,
    METADATA: get_model_metadata_pb2.GetModelMetadataRequest,
    STATUS: get_model_status_pb2.GetModelStatusRequest,
}
_FLOAT, _STRING = 1, 7
# Signature to its inputs' dtypes, its outputs, and the inputs that have a default.
_SIGNATURES: dict[str, tuple[dict[str, int], set[str], set[str]]] = {
    "serving_default": ({"x": _FLOAT}, {"y"}, set()),
    "two": ({"x": _FLOAT, "z": _FLOAT}, {"total", "product"}, set()),
    "scaled": ({"x": _FLOAT, "scale": _FLOAT}, {"y"}, {"scale"}),
    "positive": ({"x": _FLOAT}, {"root"}, set()),
    "spell": ({"text": _STRING}, {"upper", "length"}, set()),
}
_LARGEST = 10**6  # elements that a test may make a server fill
_IMPOSSIBLE = 2**42  # more than any machine has, so that every server refuses


class Unfit(Exception):
    """A request whose answer depends on the machine, such as one for a tensor of some gigabytes."""


def expected(method: str, message: bytes) -> tuple[grpc.StatusCode, Any]:
    """The code for a request, and where it is OK on `serving_default` the y of the answer, else None.

    Raises:
        Unfit: the answer cannot be known.
    """
    try:
        request = MESSAGES[method].FromString(message)
    except DecodeError:
        return grpc.StatusCode.INTERNAL, None  # what gRPC answers to a message that cannot be parsed
    if method == STATUS:
        return _status(request), None
    if method == METADATA:
        if not request.HasField("model_spec") or not request.metadata_field:
            return INVALID, None
        if set(request.metadata_field) != {"signature_def"}:
            return INVALID, None
        return _servable(request), None
    code = _servable(request)
    return _predict(request) if code is OK else (code, None)


def _status(request: Any) -> grpc.StatusCode:
    if not request.HasField("model_spec"):
        return INVALID
    spec = request.model_spec
    found = spec.name == NAME and (not spec.HasField("version") or spec.version.value == VERSION)
    return OK if found else NOT_FOUND


def _servable(request: Any) -> grpc.StatusCode:
    if not request.HasField("model_spec") or not request.model_spec.name:
        return INVALID
    spec = request.model_spec
    if spec.HasField("version_label"):
        return INVALID
    found = spec.name == NAME and (not spec.HasField("version") or spec.version.value == VERSION)
    return OK if found else NOT_FOUND


def _predict(request: Any) -> tuple[grpc.StatusCode, Any]:
    name = request.model_spec.signature_name or "serving_default"
    if name not in _SIGNATURES:
        return FAILED, None
    dtypes, outputs, optional = _SIGNATURES[name]
    sent = set(request.inputs)
    if sent - set(dtypes) or set(dtypes) - sent - optional:
        return INVALID, None
    arrays = {alias: _array(request.inputs[alias], dtypes[alias]) for alias in sent}
    filtered = list(request.output_filter)
    if set(filtered) - outputs or len(set(filtered)) < len(filtered):
        return INVALID, None
    if any(array is None for array in arrays.values()):
        return INVALID, None
    return _run(name, arrays)


def _array(tensor: Any, dtype: int) -> Any:
    """The tensor's values; None where it is of another dtype or cannot be parsed, which have the same code."""
    if tensor.dtype != dtype:
        _elements(tensor)
        return None
    count = _elements(tensor)
    if count is None:
        return None
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    if dtype == _STRING:
        if tensor.tensor_content:
            raise Unfit  # an encoding of its own, which has tests of its own
        values = [len(value) for value in tensor.string_val]
        if (count - len(values)) * (values[-1] if values else 0) > _LARGEST:
            raise Unfit
        return np.zeros(shape)
    if tensor.tensor_content and count:  # nothing is read into an empty tensor, so that nothing is compared
        if len(tensor.tensor_content) != 4 * count:
            return None
        return np.frombuffer(tensor.tensor_content, "<f4").reshape(shape)
    given = list(tensor.float_val)[:count]
    last = given[-1:] or [0.0]
    return np.array(given + last * (count - len(given)), np.float32).reshape(shape)


def _elements(tensor: Any) -> int | None:
    sizes = [dim.size for dim in tensor.tensor_shape.dim]
    if any(size < 0 for size in sizes) or len(sizes) > 254:
        return None
    count = math.prod(sizes)
    # Upstream multiplies as it goes, so that a later 0 does not save a product that is too large already.
    largest = max(math.prod(sizes[:end]) for end in range(len(sizes) + 1))
    if largest >= 2**63:
        return None
    if count >= _IMPOSSIBLE:
        return None
    if count > _LARGEST or math.prod(size for size in sizes if size) >= _IMPOSSIBLE:
        raise Unfit  # the second is an empty tensor of a shape that numpy cannot write down
    return count


def _run(name: str, arrays: dict[str, Any]) -> tuple[grpc.StatusCode, Any]:
    if name == "serving_default":
        with np.errstate(all="ignore"):
            return OK, np.float32(0.5) * arrays["x"] + np.float32(2.0)
    if name == "positive":
        x = arrays["x"]
        # The assertion in the graph was traced for one dimension, and fails on any other number of them; TensorFlow
        # takes numbers that are smaller than the smallest normal one for 0.
        return (OK if x.ndim == 1 and (x >= np.finfo(np.float32).tiny).all() else INVALID), None
    if name in ("two", "scaled"):
        shapes = [array.shape for array in arrays.values()]
        if max(map(len, shapes)) > 4:
            raise Unfit  # kernels end at some number of dimensions
        try:
            size = math.prod(np.broadcast_shapes(*shapes))
        except ValueError:
            return INVALID, None
        if size > _LARGEST:
            raise Unfit
    return OK, None
