"""A SavedModel in TensorFlow's C++ session, through the C API in the tensorflow wheel, without importing tensorflow.

This is the loader and the session that TF Serving uses, so dtypes, shapes, kernels and error texts are those of
production; Python's session is kinder (it casts dtypes and checks shapes first). The wheel does not promise where its
libraries lie: `NativeSession` raises `NativeLibraryError` where they cannot be used, and `python_session` takes over.

Reference: tensorflow/c/c_api.h.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import pathlib
from collections.abc import Sequence
from typing import Any

import grpc
import numpy as np

from serving.protos import DT_STRING, RunOptions
from serving.status import StatusError
from serving.tensor_codec import NUMBERS, encode_as_field

# `RunOptions.inter_op_thread_pool`. A request has a thread of its own already, and a graph of small ops spends more on
# handing them to other threads than on the ops; large products still use all cores. What is run so sees its deadline
# only when it is done, so that graphs which may run on and on, those with loops, are left to TensorFlow's threads.
_CALLING_THREAD, _OTHER_THREADS = -1, 0
_LOOPS = (b"While", b"NextIteration")
_LIBRARY_NAMES = ("libtensorflow_cc.so.2", "libtensorflow_cc.2.dylib")


class NativeLibraryError(RuntimeError):
    """The C++ library is not where it is expected, or lacks a function of the C API."""


class _Buffer(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("length", ctypes.c_size_t),
        ("deallocator", ctypes.c_void_p),
    ]


class _Bytes(ctypes.Structure):
    """A `_Buffer` over bytes of Python's, which it keeps alive: quicker to make than a cast to a pointer."""

    _fields_ = [("data", ctypes.c_char_p), ("length", ctypes.c_size_t), ("deallocator", ctypes.c_void_p)]


class _Output(ctypes.Structure):
    _fields_ = [("operation", ctypes.c_void_p), ("index", ctypes.c_int)]


class _String(ctypes.Structure):
    # TF_TString is a 24-byte union; only the library looks inside.
    _fields_ = [("opaque", ctypes.c_uint64 * 3)]


_POINTER, _INT, _SIZE, _TEXT = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t, ctypes.c_char_p
_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "TF_Version": (_TEXT, []),
    "TF_GetAllOpList": (ctypes.POINTER(_Buffer), []),
    "TF_GetRegisteredKernelsForOp": (ctypes.POINTER(_Buffer), [_TEXT, _POINTER]),
    "TF_NewStatus": (_POINTER, []),
    "TF_DeleteStatus": (None, [_POINTER]),
    "TF_GetCode": (_INT, [_POINTER]),
    "TF_Message": (_TEXT, [_POINTER]),
    "TF_NewSessionOptions": (_POINTER, []),
    "TF_DeleteSessionOptions": (None, [_POINTER]),
    "TF_NewGraph": (_POINTER, []),
    "TF_DeleteGraph": (None, [_POINTER]),
    "TF_GraphOperationByName": (_POINTER, [_POINTER, _TEXT]),
    "TF_OperationNumOutputs": (_INT, [_POINTER]),
    "TF_NewBuffer": (ctypes.POINTER(_Buffer), []),
    "TF_DeleteBuffer": (None, [ctypes.POINTER(_Buffer)]),
    "TF_LoadSessionFromSavedModel": (
        _POINTER,
        [_POINTER, _POINTER, _TEXT, ctypes.POINTER(_TEXT), _INT, _POINTER, ctypes.POINTER(_Buffer), _POINTER],
    ),
    "TF_CloseSession": (None, [_POINTER, _POINTER]),
    "TF_DeleteSession": (None, [_POINTER, _POINTER]),
    "TF_SessionRun": (
        None,
        [
            *(_POINTER, ctypes.POINTER(_Bytes), ctypes.POINTER(_Output), ctypes.POINTER(_POINTER), _INT),
            *(ctypes.POINTER(_Output), ctypes.POINTER(_POINTER), _INT, _POINTER, _INT, _POINTER, _POINTER),
        ],
    ),
    "TF_AllocateTensor": (_POINTER, [_INT, ctypes.POINTER(ctypes.c_int64), _INT, _SIZE]),
    "TF_TensorFromProto": (None, [ctypes.POINTER(_Bytes), _POINTER, _POINTER]),
    "TF_DeleteTensor": (None, [_POINTER]),
    "TF_TensorType": (_INT, [_POINTER]),
    "TF_NumDims": (_INT, [_POINTER]),
    "TF_Dim": (ctypes.c_int64, [_POINTER, _INT]),
    "TF_TensorByteSize": (_SIZE, [_POINTER]),
    "TF_TensorData": (_POINTER, [_POINTER]),
    "TF_TensorElementCount": (ctypes.c_int64, [_POINTER]),
    "TF_StringGetDataPointer": (_POINTER, [_POINTER]),
    "TF_StringGetSize": (_SIZE, [_POINTER]),
}


@functools.cache
def _library() -> Any:
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or spec.origin is None:
        raise NativeLibraryError("the package tensorflow is not installed")
    folder = pathlib.Path(spec.origin).parent
    path = next((folder / name for name in _LIBRARY_NAMES if (folder / name).exists()), None)
    if path is None:
        raise NativeLibraryError(f"none of {', '.join(_LIBRARY_NAMES)} lies in {folder}")
    try:
        # RTLD_LOCAL, ctypes' default: with RTLD_GLOBAL a later `import tensorflow` crashes.
        library = ctypes.CDLL(str(path))
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise NativeLibraryError(f"{path} cannot be used: {error}") from error
    return library


class _Status:
    """A TF_Status for one call; leaving the block raises it as StatusError unless it is OK."""

    def __enter__(self) -> Any:
        self._pointer = _library().TF_NewStatus()
        return self._pointer

    def __exit__(self, *_: object) -> None:
        library = _library()
        code = library.TF_GetCode(self._pointer)
        message = library.TF_Message(self._pointer).decode(errors="replace") if code else ""
        library.TF_DeleteStatus(self._pointer)
        if code:
            raise StatusError(code, message)


def library_version() -> str:
    """The version of the C++ library.

    Raises:
        NativeLibraryError: it cannot be used.
    """
    return _library().TF_Version().decode()


def registered_ops() -> bytes:
    """The serialized OpList of all ops that the C++ library knows."""
    return _take(_library().TF_GetAllOpList())


def registered_kernels(op: str) -> bytes:
    """The serialized KernelList of what can compute `op`."""
    with _Status() as status:
        buffer = _library().TF_GetRegisteredKernelsForOp(op.encode(), status)
    return _take(buffer)


def _take(buffer: Any) -> bytes:
    content = ctypes.string_at(buffer.contents.data, buffer.contents.length)
    _library().TF_DeleteBuffer(buffer)
    return content


class NativeTensor:
    """Owner of one TF_Tensor, freed with the object."""

    __slots__ = ("_delete", "pointer")

    def __init__(self, pointer: int | None) -> None:
        self.pointer = pointer
        self._delete = _library().TF_DeleteTensor

    def __del__(self) -> None:
        self._delete(self.pointer)

    @classmethod
    def from_proto(cls, serialized: bytes) -> NativeTensor:
        """Parses a serialized TensorProto as `Tensor::FromProto` does.

        Raises:
            StatusError: INVALID_ARGUMENT, it holds no tensor.
        """
        library = _library()
        # The target's own type and content are replaced; a scalar of one byte is the smallest there is.
        tensor = cls(library.TF_AllocateTensor(4, None, 0, 1))
        with _Status() as status:
            library.TF_TensorFromProto(_Bytes(serialized, len(serialized), None), tensor.pointer, status)
        return tensor

    def to_proto(self) -> Any:
        """The tensor as a TensorProto with its typed field filled, TF Serving's default encoding of answers.

        Raises:
            StatusError: UNIMPLEMENTED, for an output of a dtype that is not a string or a number.
        """
        library = _library()
        dtype = library.TF_TensorType(self.pointer)
        shape = [library.TF_Dim(self.pointer, axis) for axis in range(library.TF_NumDims(self.pointer))]
        if dtype != DT_STRING and dtype not in NUMBERS:
            raise StatusError(grpc.StatusCode.UNIMPLEMENTED, f"An output of DataType {dtype} cannot be sent.")
        data = library.TF_TensorData(self.pointer)
        if dtype == DT_STRING:
            addresses = [data + i * ctypes.sizeof(_String) for i in range(library.TF_TensorElementCount(self.pointer))]
            return encode_as_field(dtype, shape, [_read_string(address) for address in addresses])
        content = ctypes.string_at(data, library.TF_TensorByteSize(self.pointer)) if data else b""
        return encode_as_field(dtype, shape, np.frombuffer(content, NUMBERS[dtype].dtype))


def _read_string(address: int) -> bytes:
    library = _library()
    return ctypes.string_at(library.TF_StringGetDataPointer(address), library.TF_StringGetSize(address))


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
        library = _library()
        self._graph = library.TF_NewGraph()
        self._outputs: dict[str, _Output] = {}
        options = library.TF_NewSessionOptions()
        meta_graph = library.TF_NewBuffer()
        tags = (_TEXT * 1)(b"serve")
        try:
            with _Status() as status:
                self._session = library.TF_LoadSessionFromSavedModel(
                    options, None, str(folder).encode(), tags, 1, self._graph, meta_graph, status
                )
            self.meta_graph: bytes = ctypes.string_at(meta_graph.contents.data, meta_graph.contents.length)
            self._threads = _OTHER_THREADS if any(op in self.meta_graph for op in _LOOPS) else _CALLING_THREAD
        except StatusError:
            library.TF_DeleteGraph(self._graph)
            raise
        finally:
            library.TF_DeleteSessionOptions(options)
            library.TF_DeleteBuffer(meta_graph)

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
        library = _library()
        inputs = (_Output * len(feeds))(*(self._output(name) for name, _ in feeds))
        values = (_POINTER * len(feeds))(*(tensor.pointer for _, tensor in feeds))
        outputs = (_Output * len(fetches))(*(self._output(name) for name in fetches))
        results = (_POINTER * len(fetches))()
        options = RunOptions(timeout_in_ms=timeout_ms, inter_op_thread_pool=self._threads).SerializeToString()
        with _Status() as status:
            library.TF_SessionRun(
                *(self._session, _Bytes(options, len(options), None), inputs, values, len(feeds)),
                *(outputs, results, len(fetches), None, 0, None, status),
            )
        return [tensor.to_proto() for tensor in [NativeTensor(pointer) for pointer in results]]

    def cancel(self) -> None:
        """Ends the runs that are under way with CANCELLED; none may follow."""
        with _Status() as status:
            _library().TF_CloseSession(self._session, status)

    def close(self) -> None:
        """Frees the session; no run may be under way or follow."""
        library = _library()
        self.cancel()
        with _Status() as status:
            library.TF_DeleteSession(self._session, status)
        library.TF_DeleteGraph(self._graph)

    def _output(self, name: str) -> _Output:
        output = self._outputs.get(name)
        if output is None:
            operation_name, _, index = name.rpartition(":")
            if not operation_name:
                operation_name, index = name, "0"
            operation = _library().TF_GraphOperationByName(self._graph, operation_name.encode())
            if not operation or not 0 <= int(index) < _library().TF_OperationNumOutputs(operation):
                raise StatusError(grpc.StatusCode.INVALID_ARGUMENT, f"Tensor {name} was not found in the Graph")
            output = self._outputs[name] = _Output(operation, int(index))
        return output
