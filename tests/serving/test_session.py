"""Both engines: TensorFlow's C++ session and the fallback on tf.compat.v1 give the same answers and errors."""

from __future__ import annotations

import subprocess
import sys
import threading

import grpc
import numpy as np
import pytest
import tensorflow as tf

from serving import native_library, session
from serving.native_library import NativeLibraryError
from serving.native_session import NativeSession
from serving.protos import RunOptions
from serving.python_session import PythonSession
from serving.session import SavedModel, open_session
from serving.status import StatusError

INPUTS = {
    "serving_default": {"x": np.float32([2, 3])},
    "two": {"x": np.float32([2, 3]), "z": np.float32(4)},
    "scaled": {"x": np.float32([2])},
    "constant": {},
    "spell": {"text": np.array([[b"a", b"\x00"], [b"", b"x" * 50]], dtype=object)},
    "types": {"x": np.int64([1, 0, 3])},
}
FAILURES = {
    "unknown signature": ("nope", {}),
    "no output to fetch": ("__saved_model_init_op", {}),
    "double for float": ("two", {"x": np.float32([1]), "z": np.float64(4)}),
    "string for float": ("serving_default", {"x": np.array([b"a"], dtype=object)}),
    "missing input": ("two", {"x": np.float32([1])}),
}


def serialized(inputs: dict[str, np.ndarray]) -> dict[str, bytes]:
    return {alias: tf.make_tensor_proto(value).SerializeToString() for alias, value in inputs.items()}


@pytest.fixture(scope="module")
def engines(exports):
    models = [SavedModel(NativeSession(exports / "two")), SavedModel(PythonSession(exports / "two"))]
    yield models
    for model in models:
        model.close()


@pytest.mark.parametrize("signature", INPUTS)
def test_engines_agree(engines, signature):
    native, python = (model.run(signature, serialized(INPUTS[signature])) for model in engines)
    assert native == python
    assert list(native) == sorted(native)


def test_engines_have_the_same_signatures(engines):
    native, python = engines
    assert native.signatures == python.signatures
    assert "__saved_model_init_op" in native.signatures


@pytest.mark.parametrize("case", FAILURES)
def test_engines_fail_alike(engines, case):
    signature, inputs = FAILURES[case]
    raised = []
    for model in engines:
        with pytest.raises(StatusError) as caught:
            model.run(signature, serialized(inputs))
        raised.append((caught.value.code, caught.value.message))
    assert raised[0] == raised[1]


@pytest.mark.parametrize("index", [0, 1])
def test_engine_reports_errors_of_ops_and_of_tensors(engines, index):
    with pytest.raises(StatusError, match="x must be positive") as caught:
        engines[index].run("positive", serialized({"x": np.float32([-1])}))
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(StatusError, match=r"tensor parsing error: x$"):
        engines[index].run("positive", {"x": b""})


@pytest.mark.parametrize("index", [0, 1])
def test_engine_ends_a_run_at_its_timeout(engines, index):
    with pytest.raises(StatusError) as caught:
        engines[index].run("slow", serialized({"steps": np.int64(10**12)}), timeout_ms=100)
    assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("engine", [NativeSession, PythonSession])
def test_engine_reports_a_folder_without_a_saved_model(engine, tmp_path):
    with pytest.raises(StatusError) as caught:
        engine(tmp_path)
    assert caught.value.code is grpc.StatusCode.NOT_FOUND


def test_native_session_needs_no_python_tensorflow(exports):
    program = (
        "import pathlib, sys\n"
        "from serving.session import SavedModel\n"
        f"model = SavedModel.load(pathlib.Path({str(exports / 'two')!r}))\n"
        "print(model.run('constant', {})['answer'].int_val[0])\n"
        "assert not {'tensorflow', 'keras', 'tf_keras', 'tensorflow_serving'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "42\n"), done.stderr


@pytest.mark.parametrize(
    ("export", "signature", "beside"), [("ranker_with_contract", "contract", -1), ("two", "constant", 0)]
)
def test_runs_side_by_side_keep_to_their_threads_but_for_loops(exports, monkeypatch, export, signature, beside):
    model = SavedModel(NativeSession(exports / export))
    pools = []
    library = native_library.library()
    run = library.TF_SessionRun

    def run_with_another_beside(session, options, *arguments):
        pools.append(RunOptions.FromString(options.data).inter_op_thread_pool)
        if len(pools) == 1:
            other = threading.Thread(target=model.run, args=(signature, {}))
            other.start()
            other.join()
        run(session, options, *arguments)

    monkeypatch.setattr(library, "TF_SessionRun", run_with_another_beside)
    model.run(signature, {})
    model.run(signature, {})
    assert pools == [0, beside, 0]
    monkeypatch.undo()
    model.close()


def test_fallback_where_the_library_cannot_be_used(exports, monkeypatch):
    monkeypatch.setattr(native_library, "_LIBRARY_NAMES", ("libmissing.so",))
    native_library.library.cache_clear()
    try:
        with pytest.raises(NativeLibraryError, match=r"none of libmissing\.so lies in"):
            NativeSession(exports / "two")
        opened = open_session(exports / "two")
        assert isinstance(opened, session.PythonSession)
        opened.close()
    finally:
        native_library.library.cache_clear()
