"""The C++ session alone: what a run of a signature costs where nobody has to ask for it over the network."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

from serving import native_library
from serving.native_session import NativeSession, NativeTensor
from serving.protos import MetaGraphDef


class BareSession:
    """A published version in the C++ session of the tensorflow wheel, with the tensors of one request parsed already.

    Args:
      version: folder of the SavedModel.
      message: PredictRequest whose tensors are fed.
    """

    def __init__(self, version: Path, message: Any) -> None:
        self._session = NativeSession(version)
        signature = MetaGraphDef.FromString(self._session.meta_graph).signature_def[message.model_spec.signature_name]
        feeds = dict(signature.defaults) | dict(message.inputs)
        self._tensors = [NativeTensor.from_proto(feeds[alias].SerializeToString()) for alias in signature.inputs]
        # What `NativeSession.run` prepares anew for each run, and here stays as it is.
        outputs = type(self._session._output(next(iter(signature.outputs.values())).name))
        self._inputs = (outputs * len(self._tensors))(
            *(self._session._output(info.name) for info in signature.inputs.values())
        )
        self._values = (ctypes.c_void_p * len(self._tensors))(*(tensor.pointer for tensor in self._tensors))
        self._outputs = (outputs * len(signature.outputs))(
            *(self._session._output(info.name) for info in signature.outputs.values())
        )
        self._results = (ctypes.c_void_p * len(signature.outputs))()

    def run(self) -> None:
        """Runs once; the outputs are freed unread."""
        library = native_library.library()
        with native_library.Status() as status:
            library.TF_SessionRun(
                *(self._session._session, None, self._inputs, self._values, len(self._inputs)),
                *(self._outputs, self._results, len(self._outputs), None, 0, None, status),
            )
        for pointer in self._results:
            library.TF_DeleteTensor(pointer)

    def close(self) -> None:
        """Frees the session."""
        self._session.close()
