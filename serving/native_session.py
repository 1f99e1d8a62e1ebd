"""A SavedModel in TensorFlow's C++ session, through the C API in the tensorflow wheel, without importing tensorflow.

This is the loader and the session that TF Serving uses, so dtypes, shapes, kernels and error texts are those of
production; Python's session is kinder (it casts dtypes and checks shapes first). Where the C++ library cannot be used
(`native_library`), `python_session` takes over.

Reference: tensorflow/c/c_api.h.
"""

from __future__ import annotations

import ctypes
import pathlib
import threading
from collections.abc import Sequence
from typing import Any

import grpc
import numpy as np

from serving.native_library import POINTER, TEXT, Bytes, Output, Status, String, library
from serving.protos import DT_STRING, RunOptions
from serving.status import StatusError
from serving.tensor_codec import NUMBERS, encode_as_field

# `RunOptions.inter_op_thread_pool`. To hand small ops to other threads costs more than it saves where requests come
# side by side and each has a thread already; a request that is alone is answered sooner. What is run in the calling
# thread sees its deadline only when it is done, so that graphs which may run on and on, those with loops, never are.
_CALLING_THREAD, _OTHER_THREADS = -1, 0
_LOOPS = (b"While", b"NextIteration")


class NativeTensor:
    """Owner of one TF_Tensor, freed with the object."""

    __slots__ = ("_delete", "pointer")

    def __init__(self, pointer: int | None) -> None:
        self.pointer = pointer
        self._delete = library().TF_DeleteTensor

    def __del__(self) -> None:
        self._delete(self.pointer)

    @classmethod
    def from_proto(cls, serialized: bytes) -> NativeTensor:
        """Parses a serialized TensorProto as `Tensor::FromProto` does.

        Raises:
            StatusError: INVALID_ARGUMENT, it holds no tensor.
        """
        api = library()
        # The target's own type and content are replaced; a scalar of one byte is the smallest there is.
        tensor = cls(api.TF_AllocateTensor(4, None, 0, 1))
        with Status() as status:
            api.TF_TensorFromProto(Bytes(serialized, len(serialized), None), tensor.pointer, status)
        return tensor

    def to_proto(self) -> Any:
        """The tensor as a TensorProto with its typed field filled, TF Serving's default encoding of answers.

        Raises:
            StatusError: UNIMPLEMENTED, for an output of a dtype that is not a string or a number.
        """
        api = library()
        dtype = api.TF_TensorType(self.pointer)
        shape = [api.TF_Dim(self.pointer, axis) for axis in range(api.TF_NumDims(self.pointer))]
        if dtype != DT_STRING and dtype not in NUMBERS:
            raise StatusError(grpc.StatusCode.UNIMPLEMENTED, f"An output of DataType {dtype} cannot be sent.")
        data = api.TF_TensorData(self.pointer)
        if dtype == DT_STRING:
            addresses = [data + i * ctypes.sizeof(String) for i in range(api.TF_TensorElementCount(self.pointer))]
            return encode_as_field(dtype, shape, [_read_string(address) for address in addresses])
        content = ctypes.string_at(data, api.TF_TensorByteSize(self.pointer)) if data else b""
        return encode_as_field(dtype, shape, np.frombuffer(content, NUMBERS[dtype].dtype))


def _read_string(address: int) -> bytes:
    api = library()
    return ctypes.string_at(api.TF_StringGetDataPointer(address), api.TF_StringGetSize(address))


class NativeSession:
    """One SavedModel, loaded by `LoadSavedModel` with the tag `serve`: variables restored, init op run.

    Attributes:
        meta_graph: The serialized MetaGraphDef of the loaded model.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        """Loads the SavedModel.

        Raises:
            NativeLibraryError: the C++ library cannot be used.
            StatusError: the SavedModel cannot be loaded.
        """
        api = library()
        self._graph = api.TF_NewGraph()
        self._outputs: dict[str, Output] = {}
        options = api.TF_NewSessionOptions()
        meta_graph = api.TF_NewBuffer()
        tags = (TEXT * 1)(b"serve")
        try:
            with Status() as status:
                self._session = api.TF_LoadSessionFromSavedModel(
                    options, None, str(folder).encode(), tags, 1, self._graph, meta_graph, status
                )
            self.meta_graph: bytes = ctypes.string_at(meta_graph.contents.data, meta_graph.contents.length)
            self._loops = any(op in self.meta_graph for op in _LOOPS)
            # Threads that run the session. A set, since a thread may be stopped between reading and writing a count.
            self._under_way: set[int] = set()
        except StatusError:
            api.TF_DeleteGraph(self._graph)
            raise
        finally:
            api.TF_DeleteSessionOptions(options)
            api.TF_DeleteBuffer(meta_graph)

    def parse(self, serialized: bytes) -> NativeTensor:
        """Parses a serialized TensorProto; raises StatusError where it holds no tensor."""
        return NativeTensor.from_proto(serialized)

    def run(
        self, feeds: Sequence[tuple[str, NativeTensor]], fetches: Sequence[str], timeout_ms: int | None = None
    ) -> list[Any]:
        """Runs the graph once.

        Args:
            feeds: Tensor name (`serving_default_x:0`) and value, each name once.
            fetches: Tensor names.
            timeout_ms: Limit for the run in milliseconds, at least 1; None for no limit.

        Returns:
            One TensorProto a fetch, typed fields filled.

        Raises:
            StatusError: the session's code and message.
        """
        api = library()
        inputs = (Output * len(feeds))(*(self._output(name) for name, _ in feeds))
        values = (POINTER * len(feeds))(*(tensor.pointer for _, tensor in feeds))
        outputs = (Output * len(fetches))(*(self._output(name) for name in fetches))
        results = (POINTER * len(fetches))()
        threads = _CALLING_THREAD if self._under_way and not self._loops else _OTHER_THREADS
        options = RunOptions(timeout_in_ms=timeout_ms, inter_op_thread_pool=threads).SerializeToString()
        thread = threading.get_ident()
        self._under_way.add(thread)
        try:
            with Status() as status:
                api.TF_SessionRun(
                    *(self._session, Bytes(options, len(options), None), inputs, values, len(feeds)),
                    *(outputs, results, len(fetches), None, 0, None, status),
                )
        finally:
            self._under_way.discard(thread)
        return [tensor.to_proto() for tensor in [NativeTensor(pointer) for pointer in results]]

    def cancel(self) -> None:
        """Ends the runs that are under way with CANCELLED; none may follow."""
        with Status() as status:
            library().TF_CloseSession(self._session, status)

    def close(self) -> None:
        """Frees the session; no run may be under way or follow."""
        api = library()
        self.cancel()
        with Status() as status:
            api.TF_DeleteSession(self._session, status)
        api.TF_DeleteGraph(self._graph)

    def _output(self, name: str) -> Output:
        output = self._outputs.get(name)
        if output is None:
            operation_name, _, index = name.rpartition(":")
            if not operation_name:
                operation_name, index = name, "0"
            operation = library().TF_GraphOperationByName(self._graph, operation_name.encode())
            if not operation or not 0 <= int(index) < library().TF_OperationNumOutputs(operation):
                raise StatusError(grpc.StatusCode.INVALID_ARGUMENT, f"Tensor {name} was not found in the Graph")
            output = self._outputs[name] = Output(operation, int(index))
        return output
