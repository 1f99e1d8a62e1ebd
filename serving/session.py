"""A loaded SavedModel and what Predict does with it: TF Serving's checks, in its order, with its words.

Reference: tensorflow_serving/servables/tensorflow/predict_util.cc and tensorflow/cc/saved_model/util.cc.
"""

from __future__ import annotations

import logging
import pathlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import grpc

from serving.native_library import NativeLibraryError
from serving.native_session import NativeSession
from serving.protos import MetaGraphDef
from serving.python_session import PythonSession
from serving.status import StatusError

DEFAULT_SIGNATURE = "serving_default"
_VARIABLE_OPS = ("VarHandleOp", "VariableV2")
_LOG = logging.getLogger(__name__)


class Session(Protocol):
    """What an engine offers: `NativeSession` and `PythonSession`."""

    meta_graph: bytes

    def parse(self, serialized: bytes) -> Any:
        """Parses a serialized TensorProto into the engine's own tensor."""

    def run(self, feeds: Sequence[tuple[str, Any]], fetches: Sequence[str], timeout_ms: int | None = None) -> list[Any]:
        """Runs the graph and returns one TensorProto a fetch."""

    def cancel(self) -> None:
        """Ends the runs that are under way."""

    def close(self) -> None:
        """Frees the session."""


def open_session(folder: pathlib.Path) -> Session:
    """Loads a SavedModel into the C++ session, or into Python's where the C++ library cannot be used.

    Raises:
        StatusError: the SavedModel cannot be loaded.
    """
    try:
        return NativeSession(folder)
    except NativeLibraryError as error:
        _LOG.warning("Serving %s through tf.compat.v1, because %s.", folder, error)
        return PythonSession(folder)


@dataclass(frozen=True)
class _Ports:
    """A SignatureDef as a run wants it: alias to tensor name, in the order of the aliases, and serialized defaults."""

    inputs: dict[str, str]
    outputs: dict[str, str]
    defaults: dict[str, bytes]

    @classmethod
    def of(cls, signature: Any) -> _Ports:
        return cls(
            {alias: signature.inputs[alias].name for alias in sorted(signature.inputs)},
            {alias: signature.outputs[alias].name for alias in sorted(signature.outputs)},
            {alias: tensor.SerializeToString() for alias, tensor in signature.defaults.items()},
        )


class SavedModel:
    """One version of a model, ready to predict; runs may happen in any number of threads at once.

    Attributes:
        signatures: Every SignatureDef of the SavedModel by name, `__saved_model_init_op` included.
        observe_runtime: Is given the seconds of each run of the session that succeeds.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        # Copies, so that the message with the whole graph in it can be freed, and its bytes with it.
        self.signatures: dict[str, Any] = {
            name: type(signature).FromString(signature.SerializeToString())
            for name, signature in MetaGraphDef.FromString(session.meta_graph).signature_def.items()
        }
        session.meta_graph = b""
        # Reading a protobuf map for every request costs more than the request's own protobuf.
        self._ports = {name: _Ports.of(signature) for name, signature in self.signatures.items()}
        self.observe_runtime: Callable[[float], None] | None = None

    @classmethod
    def load(cls, folder: pathlib.Path) -> SavedModel:
        """Loads the SavedModel in `folder`; raises StatusError where that fails.

        TensorFlow's loader takes a missing variables index for a model without variables, which would then fail every
        request; here it is a failure to load.
        """
        session = open_session(folder)
        index = folder / "variables" / "variables.index"
        if not index.exists() and _has_variables(session.meta_graph):
            session.close()
            raise StatusError(grpc.StatusCode.NOT_FOUND, f"Could not find the variables of the SavedModel: {index}")
        return cls(session)

    def run(
        self,
        signature_name: str,
        inputs: Mapping[str, bytes],
        output_filter: Sequence[str] = (),
        timeout_ms: int | None = None,
    ) -> dict[str, Any]:
        """Runs one signature.

        Args:
            signature_name: Key of the signature.
            inputs: Alias to serialized TensorProto. An alias that is left out takes its value from
                `SignatureDef.defaults`. Shapes are not checked here, as TF Serving does not.
            output_filter: Aliases to return; empty for all.
            timeout_ms: Limit for the session's run; None for none.

        Returns:
            Alias to TensorProto, in the order of `output_filter` or by name.

        Raises:
            StatusError: with TF Serving's code and message for the first check that fails.
        """
        signature = self._ports.get(signature_name)
        if signature is None:
            raise StatusError(
                grpc.StatusCode.FAILED_PRECONDITION, f'Serving signature key "{signature_name}" not found.'
            )
        _check_input_count(signature, inputs)
        feeds = self._feeds(signature, inputs)
        outputs = _outputs(signature, output_filter)
        began = time.perf_counter()
        tensors = self._session.run(feeds, list(outputs.values()), timeout_ms)
        if self.observe_runtime is not None:
            self.observe_runtime(time.perf_counter() - began)
        return dict(zip(outputs, tensors, strict=True))

    def cancel(self) -> None:
        """Ends the runs that are under way with CANCELLED; none may follow."""
        self._session.cancel()

    def close(self) -> None:
        """Frees the session; no run may be under way or follow."""
        self._session.close()

    def _feeds(self, signature: _Ports, inputs: Mapping[str, bytes]) -> list[tuple[str, Any]]:
        feeds, used = [], []
        for alias, feed_name in signature.inputs.items():
            if alias in inputs:
                serialized = inputs[alias]
                used.append(alias)
            elif alias in signature.defaults:
                serialized = signature.defaults[alias]
            else:
                raise _invalid(
                    f"Signature input alias: {alias}(feed name: {feed_name}) not found in request and no default value "
                    f"provided. Inputs expected to be in the request {{{_joined(inputs)}}}, or default input alias "
                    f"set: {_joined(signature.defaults)}"
                )
            try:
                feeds.append((feed_name, self._session.parse(serialized)))
            except StatusError as error:
                raise _invalid(f"tensor parsing error: {alias}") from error
        if len(used) != len(inputs):
            raise _invalid(
                f"Inputs contains invalid name. Used request inputs: {_joined(used)}, request input: {_joined(inputs)}"
            )
        return feeds


def _has_variables(meta_graph: bytes) -> bool:
    return any(node.op in _VARIABLE_OPS for node in MetaGraphDef.FromString(meta_graph).graph_def.node)


def _check_input_count(signature: _Ports, inputs: Mapping[str, bytes]) -> None:
    sent, expected = inputs.keys(), signature.inputs.keys()
    if len(sent) > len(expected) or (len(sent) < len(expected) and not signature.defaults):
        raise _invalid(
            f"input size does not match signature: {len(sent)}!={len(expected)} len({{{_joined(sent)}}}) != "
            f"len({{{_joined(expected)}}}). Sent extra: {{{_joined(sent - expected)}}}. "
            f"Missing but required: {{{_joined(expected - sent)}}}."
        )


def _outputs(signature: _Ports, output_filter: Sequence[str]) -> dict[str, str]:
    """Alias to tensor name of what to fetch."""
    outputs: dict[str, str] = {}
    for alias in output_filter or signature.outputs:
        if alias not in signature.outputs:
            raise _invalid(
                f"output tensor alias not found in signature: {alias} Outputs expected to be in the set "
                f"{{{_joined(signature.outputs)}}}."
            )
        if alias in outputs:
            raise _invalid(f"duplicate output tensor alias: {alias}")
        outputs[alias] = signature.outputs[alias]
    return outputs


def _joined(names: Iterable[str]) -> str:
    return ",".join(sorted(names))


def _invalid(message: str) -> StatusError:
    return StatusError(grpc.StatusCode.INVALID_ARGUMENT, message)
