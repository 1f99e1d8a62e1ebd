"""TensorFlow's C API, in the library of the tensorflow wheel, by ctypes and without importing tensorflow.

The wheel does not promise where its libraries lie: `library` raises `NativeLibraryError` where they cannot be used.

Reference: tensorflow/c/c_api.h.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import pathlib
from typing import Any

from serving.status import StatusError

_LIBRARY_NAMES = ("libtensorflow_cc.so.2", "libtensorflow_cc.2.dylib")


class NativeLibraryError(RuntimeError):
    """The C++ library is not where it is expected, or lacks a function of the C API."""


class Buffer(ctypes.Structure):
    """A TF_Buffer, for what the library gives."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("length", ctypes.c_size_t),
        ("deallocator", ctypes.c_void_p),
    ]


class Bytes(ctypes.Structure):
    """A `Buffer` over Python's bytes, which it keeps alive: quicker to make than a cast to a pointer."""

    _fields_ = [("data", ctypes.c_char_p), ("length", ctypes.c_size_t), ("deallocator", ctypes.c_void_p)]


class Output(ctypes.Structure):
    """A TF_Output: a tensor of the graph."""

    _fields_ = [("operation", ctypes.c_void_p), ("index", ctypes.c_int)]


class String(ctypes.Structure):
    """A TF_TString: a union of 24 bytes, into which only the library looks."""

    _fields_ = [("opaque", ctypes.c_uint64 * 3)]


POINTER, INT, SIZE, TEXT = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t, ctypes.c_char_p
_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "TF_Version": (TEXT, []),
    "TF_GetAllOpList": (ctypes.POINTER(Buffer), []),
    "TF_GetRegisteredKernelsForOp": (ctypes.POINTER(Buffer), [TEXT, POINTER]),
    "TF_NewStatus": (POINTER, []),
    "TF_DeleteStatus": (None, [POINTER]),
    "TF_GetCode": (INT, [POINTER]),
    "TF_Message": (TEXT, [POINTER]),
    "TF_NewSessionOptions": (POINTER, []),
    "TF_DeleteSessionOptions": (None, [POINTER]),
    "TF_NewGraph": (POINTER, []),
    "TF_DeleteGraph": (None, [POINTER]),
    "TF_GraphOperationByName": (POINTER, [POINTER, TEXT]),
    "TF_OperationNumOutputs": (INT, [POINTER]),
    "TF_NewBuffer": (ctypes.POINTER(Buffer), []),
    "TF_DeleteBuffer": (None, [ctypes.POINTER(Buffer)]),
    "TF_LoadSessionFromSavedModel": (
        POINTER,
        [POINTER, POINTER, TEXT, ctypes.POINTER(TEXT), INT, POINTER, ctypes.POINTER(Buffer), POINTER],
    ),
    "TF_CloseSession": (None, [POINTER, POINTER]),
    "TF_DeleteSession": (None, [POINTER, POINTER]),
    "TF_SessionRun": (
        None,
        [
            *(POINTER, ctypes.POINTER(Bytes), ctypes.POINTER(Output), ctypes.POINTER(POINTER), INT),
            *(ctypes.POINTER(Output), ctypes.POINTER(POINTER), INT, POINTER, INT, POINTER, POINTER),
        ],
    ),
    "TF_AllocateTensor": (POINTER, [INT, ctypes.POINTER(ctypes.c_int64), INT, SIZE]),
    "TF_TensorFromProto": (None, [ctypes.POINTER(Bytes), POINTER, POINTER]),
    "TF_DeleteTensor": (None, [POINTER]),
    "TF_TensorType": (INT, [POINTER]),
    "TF_NumDims": (INT, [POINTER]),
    "TF_Dim": (ctypes.c_int64, [POINTER, INT]),
    "TF_TensorByteSize": (SIZE, [POINTER]),
    "TF_TensorData": (POINTER, [POINTER]),
    "TF_TensorElementCount": (ctypes.c_int64, [POINTER]),
    "TF_StringGetDataPointer": (POINTER, [POINTER]),
    "TF_StringGetSize": (SIZE, [POINTER]),
}
# What may take long, so that other threads have to go on meanwhile.
_LONG = ("TF_LoadSessionFromSavedModel", "TF_CloseSession", "TF_DeleteSession", "TF_DeleteGraph", "TF_SessionRun")


@functools.cache
def library() -> Any:
    """The library with the functions of `_FUNCTIONS`, loaded once.

    Raises:
        NativeLibraryError: it cannot be used.
    """
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or spec.origin is None:
        raise NativeLibraryError("the package tensorflow is not installed")
    folder = pathlib.Path(spec.origin).parent
    path = next((folder / name for name in _LIBRARY_NAMES if (folder / name).exists()), None)
    if path is None:
        raise NativeLibraryError(f"none of {', '.join(_LIBRARY_NAMES)} lies in {folder}")
    try:
        # RTLD_LOCAL, ctypes' default: with RTLD_GLOBAL a later `import tensorflow` crashes.
        # PyDLL keeps the interpreter's lock during a call. A request makes some 200 calls of about a microsecond; to
        # give the lock away in each means to queue for it as often, behind all other requests.
        keeping, releasing = ctypes.PyDLL(str(path)), ctypes.CDLL(str(path))
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(releasing if name in _LONG else keeping, name)
            function.restype, function.argtypes = result, arguments
            setattr(keeping, name, function)
    except (OSError, AttributeError) as error:
        raise NativeLibraryError(f"{path} cannot be used: {error}") from error
    return keeping


class Status:
    """A TF_Status for one call; leaving the block raises it as StatusError unless it is OK."""

    def __enter__(self) -> Any:
        self._pointer = library().TF_NewStatus()
        return self._pointer

    def __exit__(self, *_: object) -> None:
        api = library()
        code = api.TF_GetCode(self._pointer)
        message = api.TF_Message(self._pointer).decode(errors="replace") if code else ""
        api.TF_DeleteStatus(self._pointer)
        if code:
            raise StatusError(code, message)


def library_version() -> str:
    """The version of the C++ library.

    Raises:
        NativeLibraryError: it cannot be used.
    """
    return library().TF_Version().decode()


def registered_ops() -> bytes:
    """The serialized OpList of all ops that the C++ library knows."""
    return _take(library().TF_GetAllOpList())


def registered_kernels(op: str) -> bytes:
    """The serialized KernelList of what can compute `op`."""
    with Status() as status:
        buffer = library().TF_GetRegisteredKernelsForOp(op.encode(), status)
    return _take(buffer)


def _take(buffer: Any) -> bytes:
    content = ctypes.string_at(buffer.contents.data, buffer.contents.length)
    library().TF_DeleteBuffer(buffer)
    return content
