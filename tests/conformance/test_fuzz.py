"""A server takes what it cannot take with the right code, and goes on as before."""

from __future__ import annotations

from tests.conformance.fuzz import fuzz
from tests.conformance.malformed import build
from tests.conformance.oracle import INVALID, OK, expected
from tests.serving.conftest import predict_request


def test_malformed_requests_get_the_right_codes_and_leave_no_trace(target):
    report = fuzz(target, 2000)
    assert not report.wrong, report.wrong[:5]
    # Every way to be refused was taken often, and not everything was refused.
    assert set(report.codes) == {"OK", "INVALID_ARGUMENT", "FAILED_PRECONDITION", "NOT_FOUND", "INTERNAL"}
    assert min(report.codes.values()) > 50
    assert report.unfit < 100
    # A wide margin: other programs share the machine. A server that lost its threads or its memory is far above it.
    assert report.after[0] < 3 * report.before[0] + 2


def test_requests_are_a_function_of_seed_and_number():
    assert build(1, 7) == build(1, 7)
    assert len({build(1, number) for number in range(100)}) > 90
    assert build(1, 7) != build(2, 7)


def test_oracle_on_requests_whose_answers_are_known():
    method = "/tensorflow.serving.PredictionService/Predict"
    code, answer = expected(method, predict_request(x=[2.0, 4.0]).SerializeToString())
    assert (code, answer.tolist()) == (OK, [3.0, 4.0])
    assert expected(method, predict_request(x=[b"2"]).SerializeToString())[0] is INVALID
    assert expected(method, predict_request("positive", x=[-2.0]).SerializeToString())[0] is INVALID
