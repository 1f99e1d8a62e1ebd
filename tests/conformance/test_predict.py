"""Predict, as an unmodified stub of tensorflow-serving-api sees it: TF Serving's answers, codes and messages."""

from __future__ import annotations

import time

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import predict_pb2

from tests.serving.conftest import MODEL, predict_request

INVALID = grpc.StatusCode.INVALID_ARGUMENT
FAILED = grpc.StatusCode.FAILED_PRECONDITION
NOT_FOUND = grpc.StatusCode.NOT_FOUND


def failure(stubs, request, **kwargs) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        stubs.prediction.Predict(request, **kwargs)
    return caught.value.code(), caught.value.details()


def labelled(label: str, name: str = MODEL) -> predict_pb2.PredictRequest:
    request = predict_request(name=name, x=[2.0])
    request.model_spec.version_label = label
    return request


def versioned(version: int) -> predict_pb2.PredictRequest:
    request = predict_request(x=[2.0])
    request.model_spec.version.value = version
    return request


def test_exact_response(stubs):
    response = stubs.prediction.Predict(predict_request(x=[2.0, 3.0, 4.0]))
    expected = predict_pb2.PredictResponse()
    expected.model_spec.name = MODEL
    expected.model_spec.signature_name = "serving_default"
    expected.model_spec.version.value = 123
    expected.outputs["y"].dtype = tf.float32.as_datatype_enum
    expected.outputs["y"].tensor_shape.dim.add(size=3)
    expected.outputs["y"].float_val.extend([3.0, 3.5, 4.0])
    assert response == expected


def test_exact_response_to_a_scalar(stubs):
    response = stubs.prediction.Predict(predict_request(x=np.float32(2.0)))
    expected = predict_pb2.PredictResponse()
    expected.model_spec.name = MODEL
    expected.model_spec.signature_name = "serving_default"
    expected.model_spec.version.value = 123
    expected.outputs["y"].dtype = tf.float32.as_datatype_enum
    expected.outputs["y"].tensor_shape.SetInParent()
    expected.outputs["y"].float_val.append(3.0)
    assert response == expected


def test_one_row_of_one_column(stubs):
    answer = stubs.prediction.Predict(predict_request(x=[[2.0]])).outputs["y"]
    assert [dim.size for dim in answer.tensor_shape.dim] == [1, 1]
    assert answer.float_val == [3.0]


@pytest.mark.parametrize(("signature", "output"), [("regress_x_to_y", "outputs"), ("classify_x_to_y", "scores")])
def test_signatures_of_examples_can_be_predicted_with(stubs, signature, output):
    example = tf.train.Example()
    example.features.feature["x"].float_list.value.append(2.0)
    response = stubs.prediction.Predict(predict_request(signature, inputs=[example.SerializeToString()] * 2))
    assert response.model_spec.signature_name == signature
    assert response.outputs[output].float_val == [3.0, 3.0]


def test_scalar_output_has_an_empty_shape_that_is_present(stubs):
    answer = stubs.prediction.Predict(predict_request("constant")).outputs["answer"]
    assert answer.HasField("tensor_shape")
    assert list(answer.int_val) == [42]


def test_specific_version_is_served_and_version_0_is_not_unset(stubs):
    assert stubs.prediction.Predict(versioned(123)).outputs["y"].float_val == [3.0]
    assert failure(stubs, versioned(0)) == (NOT_FOUND, f"Servable not found for request: Specific({MODEL}, 0)")


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (predict_pb2.PredictRequest(), (INVALID, "Missing ModelSpec")),
        (predict_request(name="", x=[2.0]), (INVALID, "ModelSpec has no name specified.")),
        (labelled("stable"), (INVALID, "Unrecognized servable version label: stable")),
        (labelled("stable", name="other"), (INVALID, "Unrecognized servable version label: stable")),
        (predict_request(name="other"), (NOT_FOUND, "Servable not found for request: Latest(other)")),
        (versioned(7), (NOT_FOUND, f"Servable not found for request: Specific({MODEL}, 7)")),
    ],
)
def test_servable_lookup(stubs, request_, expected):
    assert failure(stubs, request_) == expected


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (predict_request("nope", z=[1.0]), (FAILED, 'Serving signature key "nope" not found.')),
        (
            predict_request(),
            (
                INVALID,
                "input size does not match signature: 0!=1 len({}) != len({x}). Sent extra: {}. "
                "Missing but required: {x}.",
            ),
        ),
        (
            predict_request("two", a=[1.0]),
            (
                INVALID,
                "input size does not match signature: 1!=2 len({a}) != len({x,z}). Sent extra: {a}. "
                "Missing but required: {x,z}.",
            ),
        ),
        (
            predict_request("two", z=[1.0], x=[1.0], unknown_key2=[1.0], unknown_key1=[1.0]),
            (
                INVALID,
                "input size does not match signature: 4!=2 len({unknown_key1,unknown_key2,x,z}) != len({x,z}). "
                "Sent extra: {unknown_key1,unknown_key2}. Missing but required: {}.",
            ),
        ),
        (
            predict_request(a=[1.0]),
            (
                INVALID,
                "Signature input alias: x(feed name: serving_default_x:0) not found in request and no default value "
                "provided. Inputs expected to be in the request {a}, or default input alias set: ",
            ),
        ),
        (
            predict_request("scaled", scale=2.0),
            (
                INVALID,
                "Signature input alias: x(feed name: scaled_x:0) not found in request and no default value "
                "provided. Inputs expected to be in the request {scale}, or default input alias set: scale",
            ),
        ),
        (
            predict_request("scaled", x=[2.0], scala=2.0),
            (INVALID, "Inputs contains invalid name. Used request inputs: x, request input: scala,x"),
        ),
    ],
)
def test_input_names(stubs, request_, expected):
    assert failure(stubs, request_) == expected


def test_omitted_input_takes_its_default_and_a_sent_one_wins(stubs):
    assert stubs.prediction.Predict(predict_request("scaled", x=[2.0])).outputs["y"].float_val == [6.0]
    assert stubs.prediction.Predict(predict_request("scaled", x=[2.0], scale=5.0)).outputs["y"].float_val == [10.0]


@pytest.mark.parametrize(
    "tensor",
    [
        tensor_pb2.TensorProto(),
        tensor_pb2.TensorProto(dtype=1, tensor_content=b"123", tensor_shape={"dim": [{"size": 1}]}),
        tensor_pb2.TensorProto(dtype=1, float_val=[1.0], tensor_shape={"dim": [{"size": -1}]}),
    ],
)
def test_tensor_that_cannot_be_parsed(stubs, tensor):
    assert failure(stubs, predict_request(x=tensor)) == (INVALID, "tensor parsing error: x")


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        (tensor_pb2.TensorProto(dtype=1, float_val=[2.0], tensor_shape={"dim": [{"size": 3}]}), [3.0, 3.0, 3.0]),
        (tensor_pb2.TensorProto(dtype=1, float_val=[2.0, 4.0], tensor_shape={"dim": [{"size": 3}]}), [3.0, 4.0, 4.0]),
        (tensor_pb2.TensorProto(dtype=1, tensor_shape={"dim": [{"size": 2}]}), [2.0, 2.0]),
        (tensor_pb2.TensorProto(dtype=1, float_val=[2.0, 4.0], tensor_shape={"dim": [{"size": 1}]}), [3.0]),
        (tensor_pb2.TensorProto(dtype=1, float_val=[2.0], tensor_shape={"unknown_rank": True}), [3.0]),
        (tf.make_tensor_proto(np.float32([2.0])), [3.0]),
        (tf.make_tensor_proto(np.zeros(0, np.float32)), []),
    ],
)
def test_lenient_tensor_encodings(stubs, tensor, expected):
    assert list(stubs.prediction.Predict(predict_request(x=tensor)).outputs["y"].float_val) == expected


@pytest.mark.parametrize(
    ("value", "name"), [(np.float64([2.0]), "double"), (np.array([True]), "bool"), ([b"a"], "string")]
)
def test_wrong_dtype_is_rejected_and_never_cast(stubs, value, name):
    assert failure(stubs, predict_request(x=value)) == (INVALID, f"Expects arg[0] to be float but {name} is provided")


def test_wrong_dtype_names_the_position_among_sorted_feeds(stubs):
    code, details = failure(stubs, predict_request("two", x=np.float32([1]), z=np.float64(1)))
    assert (code, details) == (INVALID, "Expects arg[1] to be float but double is provided")


def test_shapes_are_not_checked(stubs):
    matrix = stubs.prediction.Predict(predict_request(x=[[2.0, 4.0], [6.0, 8.0]])).outputs["y"]
    np.testing.assert_array_equal(tf.make_ndarray(matrix), [[3.0, 4.0], [5.0, 6.0]])


def test_output_filter(stubs):
    request = predict_request("two", x=[2.0], z=3.0)
    request.output_filter.append("product")
    response = stubs.prediction.Predict(request)
    assert list(response.outputs) == ["product"]
    assert response.outputs["product"].float_val == [6.0]
    request.output_filter.append("product")
    assert failure(stubs, request) == (INVALID, "duplicate output tensor alias: product")
    request.output_filter[1] = "nothing"
    assert failure(stubs, request) == (
        INVALID,
        "output tensor alias not found in signature: nothing Outputs expected to be in the set {product,total}.",
    )


def test_checks_come_in_upstream_order(stubs):
    # signature before inputs, inputs before output_filter, output_filter before dtype
    request = predict_request("nope", name="other", a=np.float64([1.0]))
    request.output_filter.append("nothing")
    assert failure(stubs, request)[0] is NOT_FOUND
    request.model_spec.name = MODEL
    assert failure(stubs, request)[0] is FAILED
    request.model_spec.signature_name = ""
    assert "Signature input alias: x" in failure(stubs, request)[1]
    request.inputs["x"].CopyFrom(request.inputs.pop("a"))
    assert "output tensor alias not found" in failure(stubs, request)[1]
    del request.output_filter[:]
    assert failure(stubs, request)[1] == "Expects arg[0] to be float but double is provided"


def test_signature_without_inputs_and_with_state(stubs):
    first = stubs.prediction.Predict(predict_request("count")).outputs["calls"].int64_val[0]
    assert stubs.prediction.Predict(predict_request("count")).outputs["calls"].int64_val[0] == first + 1


def test_strings(stubs):
    values = [b"a", b"", b"\xff\x00b", b"x" * 100]
    outputs = stubs.prediction.Predict(predict_request("spell", text=values)).outputs
    assert list(outputs["upper"].string_val) == [value.upper() for value in values]
    assert list(outputs["length"].int_val) == [1, 0, 3, 100]


def test_every_number_type_comes_back_in_its_typed_field(stubs):
    outputs = stubs.prediction.Predict(predict_request("types", x=np.int64([1, 0, 3]))).outputs
    for name, tensor in outputs.items():
        expected = tf.cast([1, 0, 3], name).numpy()
        field = tf.make_tensor_proto(expected[:1])  # a single element is always put into the typed field
        assert tensor.tensor_content == b""
        assert [f.name for f, _ in tensor.ListFields()] == [f.name for f, _ in field.ListFields()], name
        np.testing.assert_array_equal(tf.make_ndarray(tensor), expected)
        assert tf.make_ndarray(tensor).dtype == expected.dtype


def test_error_of_an_op_and_truncation_of_long_messages(stubs):
    code, details = failure(stubs, predict_request("positive", x=[-1.0]))
    assert code is INVALID
    assert "x must be positive" in details
    code, details = failure(stubs, predict_request("long_message", x=[-1.0]))
    assert code is INVALID
    assert details.endswith("m...TRUNCATED")
    assert len(details) == 1024 + len("...TRUNCATED")


def test_client_deadline_ends_the_run(stubs):
    request = predict_request("slow", steps=np.int64(10**12))
    began = time.perf_counter()
    assert failure(stubs, request, timeout=0.3)[0] is grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.perf_counter() - began < 5
    stubs.prediction.Predict(predict_request(x=[2.0]), timeout=5)


def test_requests_at_once_each_get_their_own_answer(stubs):
    numbers = [float(number) for number in range(64)]
    calls = [stubs.prediction.Predict.future(predict_request(x=[number])) for number in numbers]
    assert [call.result().outputs["y"].float_val[0] for call in calls] == [0.5 * number + 2 for number in numbers]


def test_messages_far_above_4_megabytes(stubs):
    values = np.arange(2_000_000, dtype=np.float32)
    answer = stubs.prediction.Predict(predict_request(x=values)).outputs["y"]
    np.testing.assert_array_equal(np.array(answer.float_val, np.float32), 0.5 * values + 2)
