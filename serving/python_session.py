"""The same small session as `native_session` on `tf.compat.v1`, for wheels whose C++ library cannot be reached.

Python's session casts dtypes, so they are checked here first, with the C++ session's sentence. It also compares shapes
with the placeholders' and refuses what the C++ session would try to run; that difference remains.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import grpc
import numpy as np

from serving.protos import DT_STRING, TensorProto
from serving.status import StatusError
from serving.tensor_codec import NUMBERS, Array, TensorFormatError, decode, encode_as_field


class PythonTensor:
    """A fed value with the DataType it came with, which numpy objects alone would not tell."""

    def __init__(self, dtype: int, array: Array) -> None:
        self.dtype = dtype
        self.array = array


class PythonSession:
    """One SavedModel in a `tf.compat.v1.Session`; see `native_session.NativeSession` for the methods' contract."""

    def __init__(self, folder: pathlib.Path) -> None:
        import tensorflow as tf  # seconds and hundreds of megabytes, for the fallback alone

        self._tf = tf
        self._graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=self._graph)
        try:
            with self._graph.as_default():
                self.meta_graph: bytes = tf.compat.v1.saved_model.load(
                    self._session, ["serve"], str(folder)
                ).SerializeToString()
        except tf.errors.OpError as error:
            raise StatusError(error.error_code, error.message) from error
        except (OSError, RuntimeError) as error:
            # The Python loader reports a missing or unreadable file, or tag, with these instead of a status.
            raise StatusError(grpc.StatusCode.NOT_FOUND, str(error)) from error

    def parse(self, serialized: bytes) -> PythonTensor:
        """Parses a serialized TensorProto; raises StatusError where it holds no tensor."""
        proto = TensorProto.FromString(serialized)
        try:
            return PythonTensor(proto.dtype, decode(proto))
        except TensorFormatError as error:
            raise StatusError(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error

    def run(
        self, feeds: Sequence[tuple[str, PythonTensor]], fetches: Sequence[str], timeout_ms: int | None = None
    ) -> list[Any]:
        """Runs the graph once, as `NativeSession.run` does."""
        tf = self._tf
        # The C++ session numbers its arguments in the order of the feeds' names.
        for index, (name, tensor) in enumerate(sorted(feeds, key=lambda feed: feed[0])):
            expected = self._tensor(name).dtype
            if expected.as_datatype_enum != tensor.dtype:
                received = tf.dtypes.as_dtype(tensor.dtype)
                raise StatusError(
                    grpc.StatusCode.INVALID_ARGUMENT,
                    f"Expects arg[{index}] to be {_name(expected)} but {_name(received)} is provided",
                )
        options = tf.compat.v1.RunOptions(timeout_in_ms=timeout_ms) if timeout_ms else None
        try:
            arrays = self._session.run(
                [self._tensor(name) for name in fetches],
                {self._tensor(name): tensor.array for name, tensor in feeds},
                options=options,
            )
        except tf.errors.OpError as error:
            raise StatusError(error.error_code, error.message) from error
        except (TypeError, ValueError) as error:
            raise StatusError(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error
        return [self._encode(name, array) for name, array in zip(fetches, arrays, strict=True)]

    def cancel(self) -> None:
        """Ends the runs that are under way with CANCELLED; none may follow."""
        self._session.close()

    def close(self) -> None:
        """Frees the session; no run may be under way or follow."""
        self._session.close()

    def _tensor(self, name: str) -> Any:
        try:
            return self._graph.get_tensor_by_name(name if ":" in name else f"{name}:0")
        except (KeyError, ValueError) as error:
            raise StatusError(grpc.StatusCode.INVALID_ARGUMENT, f"Tensor {name} was not found in the Graph") from error

    def _encode(self, name: str, value: Any) -> Any:
        dtype = self._tensor(name).dtype.as_datatype_enum
        if dtype != DT_STRING and dtype not in NUMBERS:
            raise StatusError(grpc.StatusCode.UNIMPLEMENTED, f"An output of DataType {dtype} cannot be sent.")
        array = np.asarray(value, dtype=object if dtype == DT_STRING else NUMBERS[dtype].dtype)
        elements = array.reshape(-1).tolist() if dtype == DT_STRING else np.ascontiguousarray(array)
        return encode_as_field(dtype, array.shape, elements)


def _name(dtype: Any) -> str:
    # C++ (DataTypeString) says "float" and "double" where Python says "float32" and "float64".
    number = NUMBERS.get(dtype.as_datatype_enum)
    return number.name if number else str(dtype.name)
