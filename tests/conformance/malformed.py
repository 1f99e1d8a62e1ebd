"""Malformed requests, made from a seed: messages that lie about themselves, and bytes that are no message.

Request number i of a seed is always the same one, so that what fails can be looked at again.
"""

from __future__ import annotations

import random
import struct
from typing import Any

from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_pb2, predict_pb2

from tests.conformance.target import NAME, VERSION

PREDICT = "/tensorflow.serving.PredictionService/Predict"
METADATA = "/tensorflow.serving.PredictionService/GetModelMetadata"
STATUS = "/tensorflow.serving.ModelService/GetModelStatus"

_SIGNATURES = ("", "", "", "serving_default", "two", "scaled", "positive", "spell", "nope", "\u00e9" * 600, "__proto__")
_ALIASES = ("x", "x", "x", "x", "z", "scale", "text", "X", "", "x" * 5000, "\u2028")
_OUTPUTS = ("y", "y", "total", "product", "nothing", "")
_FLOATS = (0.0, -0.0, 1.0, -1.5, 3e38, -3e38, 1e-45, float("nan"), float("inf"), float("-inf"))
_SIZES = (0, 1, 1, 2, 3, 7)
_HUGE = (2**42, 2**62, 2**63 - 1, -1, -(2**63))


def build(seed: int, number: int) -> tuple[str, bytes]:
    """Makes one request.

    Returns:
        The method's path, and the bytes to send.
    """
    # A string, because a tuple's hash is not the same in every process.
    draw = random.Random(f"{seed} {number}")
    method, make = draw.choices(
        [(PREDICT, _predict), (METADATA, _metadata), (STATUS, _status)], weights=[10, 1, 1], k=1
    )[0]
    message: bytes = make(draw).SerializeToString(deterministic=True)  # otherwise a map's order is the process's
    if draw.random() < 0.4:
        message = draw.choice(_DAMAGES)(draw, message)
    return method, message


def _predict(draw: random.Random) -> Any:
    request = predict_pb2.PredictRequest()
    _fill_spec(draw, request)
    aliases = {"x": 1} | ({"z": 1} if request.model_spec.signature_name == "two" else {})
    if request.model_spec.signature_name == "spell":
        aliases = {"text": 7}
    if draw.random() < 0.3:
        aliases = {draw.choice(_ALIASES): 1 for _ in range(draw.choice((0, 1, 2, 3, 40)))}
    for alias, dtype in aliases.items():
        request.inputs[alias].CopyFrom(_tensor(draw, dtype))
    if draw.random() < 0.2:
        request.output_filter.extend(draw.choices(_OUTPUTS, k=draw.choice((1, 1, 2, 30))))
    return request


def _metadata(draw: random.Random) -> Any:
    request = get_model_metadata_pb2.GetModelMetadataRequest()
    _fill_spec(draw, request)
    fields = ("signature_def", "signature_def", "signature_def", "cost", "")
    request.metadata_field.extend(draw.choices(fields, k=draw.choice((0, 1, 2))))
    return request


def _status(draw: random.Random) -> Any:
    request = get_model_status_pb2.GetModelStatusRequest()
    _fill_spec(draw, request)
    return request


def _fill_spec(draw: random.Random, request: Any) -> None:
    if draw.random() < 0.03:
        return
    spec: model_pb2.ModelSpec = request.model_spec
    spec.SetInParent()
    spec.name = NAME if draw.random() < 0.9 else draw.choice(("", "other", NAME.upper(), "\u0000", "n" * 20000))
    if draw.random() < 0.15:
        spec.version.value = draw.choice((VERSION, VERSION, 0, -1, 2**63 - 1, -(2**63)))
    elif draw.random() < 0.05:
        spec.version_label = draw.choice(("", "stable", "l" * 3000))
    spec.signature_name = draw.choice(_SIGNATURES)


def _tensor(draw: random.Random, dtype: int) -> Any:
    tensor = tensor_pb2.TensorProto(dtype=dtype)
    if draw.random() < 0.2:
        tensor.dtype = draw.choice((*range(0, 35), *range(101, 130), 2**31 - 1, -1))
    for _ in range(draw.choice((0, 1, 1, 1, 2, 3, 255) if draw.random() < 0.2 else (1, 1, 2))):
        tensor.tensor_shape.dim.add(size=draw.choice(_HUGE) if draw.random() < 0.08 else draw.choice(_SIZES))
    tensor.tensor_shape.unknown_rank = draw.random() < 0.05
    count = draw.choice((0, 1, 2, 3, 49))
    if draw.random() < 0.3:
        content = b"".join(struct.pack("<f", draw.choice(_FLOATS)) for _ in range(count))
        tensor.tensor_content = content[: draw.choice((len(content), len(content), 3))]
    else:
        tensor.float_val.extend(draw.choices(_FLOATS, k=count))
        tensor.string_val.extend(draw.randbytes(draw.choice((0, 3, 30))) for _ in range(count))
    if draw.random() < 0.05:
        tensor.variant_val.add(type_name=draw.choice(("", "tensorflow::TensorList", "no such type")), metadata=b"\xff")
        tensor.resource_handle_val.add(device="/cpu:0", name="r", hash_code=1)
    return tensor


def _cut(draw: random.Random, message: bytes) -> bytes:
    return message[: draw.randrange(len(message) + 1)]


def _flip(draw: random.Random, message: bytes) -> bytes:
    damaged = bytearray(message)
    for _ in range(min(len(damaged), draw.choice((1, 1, 2, 8)))):
        damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
    return bytes(damaged)


def _insert(draw: random.Random, message: bytes) -> bytes:
    place = draw.randrange(len(message) + 1)
    return message[:place] + draw.randbytes(draw.choice((1, 2, 10, 200))) + message[place:]


def _repeat(draw: random.Random, message: bytes) -> bytes:
    start = draw.randrange(len(message) + 1)
    end = draw.randrange(start, len(message) + 1)
    return message[:end] + message[start:end] * draw.choice((1, 3)) + message[end:]


def _noise(draw: random.Random, message: bytes) -> bytes:
    return draw.randbytes(draw.choice((0, 1, 5, 100, 5000)))


_DAMAGES = (_cut, _flip, _insert, _repeat, _noise)
