"""What a loaded version answers: every signature run, beside the training model's answers, and its warm-up records.

Requests come from the records that the export left beside the version, and are cut or repeated to several numbers of
rows; a signature without a record is asked with values made of its types.
"""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from serving.protos import DT_STRING, PredictionLog
from serving.session import DEFAULT_SIGNATURE, SavedModel
from serving.status import StatusError
from serving.tensor_codec import NUMBERS, Array, TensorFormatError, decode, encode_numbers, encode_strings
from serving.tfrecord import read_records
from serving.verifying.finding import Finding, found
from serving.warmup import WARMUP_FILE, warm_up

REFERENCE_FILE = pathlib.PurePath("assets.extra", "training_model_answers")
TOLERANCE = 1e-5
# Predictions that differ by no more than they may change a factor of 0.05 by 2e-4 of itself, and its powers by more.
_SCORE_TOLERANCE = 1e-3
# Scores may be as small as they like, and are held against themselves; but the summands of a sum may cancel, and a
# factor of a product may be next to 0, and their roundings stay. So never against less than a share of the request's
# largest score: this of a product, all of a sum.
_PRODUCT_SHARE = 1e-3
# Below it a float32 has fewer digits, and processors may make it 0.
_LEAST_SCORE = 1e-30
SIZES = (0, 1, 2, 65, 300)
# As in serving.signature, which cannot be imported here: it reaches the model's package.
_RANKING, _COMBINED_SCORE = "ranking", "combined_score"
_TIMEOUT_MS = 60_000
_FAILURES = (StatusError, TensorFormatError)


def check_signatures(model: SavedModel, version: pathlib.Path) -> Iterator[Finding]:
    """Runs every signature with several numbers of rows; a finding a signature."""
    recorded = _recorded_inputs(version)
    for name, signature in _public(model).items():
        inputs = recorded.get(name)
        open_ended = any(_rows_are_open(info) for info in signature.inputs.values())
        sizes = SIZES if open_ended else (1,)
        made = "recorded beside it" if inputs else "made of its types"
        problems = []
        for rows in sizes:
            try:
                request = _request(signature, inputs or {}, rows)
                outputs = {alias: decode(value) for alias, value in _run(model, name, request).items()}
            except _FAILURES as error:
                problems.append(f"`{name}` fails for {rows} rows of values {made}: {_brief(error)}")
                break
            problems += _wrong_outputs(signature, outputs, rows if open_ended else None, bool(inputs))
        counts = f"of {', '.join(map(str, sizes))} rows" if open_ended else "of fixed size"
        good = f"`{name}` answers requests {counts}, {made}." if signature.inputs else f"`{name}` answers."
        yield found("signature", list(dict.fromkeys(problems)), good, name)


def check_reference(model: SavedModel, version: pathlib.Path, form: str | None) -> Iterator[Finding]:
    """Holds the answers against those that the training model gave to the same requests; a finding a signature.

    Args:
        model: Loaded from `version`.
        version: Folder of the SavedModel.
        form: of the combined score, as the contract says it; None where there is no contract.
    """
    check = "training_answers"
    if not (version / REFERENCE_FILE).exists():
        sentence = f"There is nothing to compare with: {REFERENCE_FILE}, which `export` writes, is not there."
        yield Finding(check, "", "skipped", sentence)
        return
    try:
        logs = _logs(version / REFERENCE_FILE)
    except (StatusError, DecodeError) as error:
        yield Finding(check, "", "failed", f"{REFERENCE_FILE} cannot be read: {_brief(error)}.")
        return
    if not logs:
        yield Finding(check, "", "failed", f"{REFERENCE_FILE} holds no answer to compare with.")
    share = _PRODUCT_SHARE if form == "weighted_product" else 1.0
    for log in logs:
        name = log.request.model_spec.signature_name or DEFAULT_SIGNATURE
        largest, problems = 0.0, []
        try:
            request = {alias: tensor.SerializeToString() for alias, tensor in log.request.inputs.items()}
            # All outputs, though `ranking` is not compared: for each set of outputs TensorFlow makes an executor anew.
            answers = _run(model, name, request)
            for alias, tensor in sorted(log.response.outputs.items()):
                if alias not in answers:
                    problems.append(f"`{name}` does not answer `{alias}`, which the training model did")
                    continue
                is_score = alias == _COMBINED_SCORE
                tolerance, relative = (_SCORE_TOLERANCE, "relative") if is_score else (TOLERANCE, "relative above 1")
                difference = _difference(decode(answers[alias]), decode(tensor), share if is_score else None)
                largest = max(largest, difference / tolerance)
                if not difference <= tolerance:
                    problems.append(
                        f"`{alias}` of `{name}` differs from the training model's by {difference:.2g}, and may by "
                        f"{tolerance:g} ({relative})"
                    )
        except _FAILURES as error:
            problems.append(f"`{name}` cannot answer what the training model answered: {_brief(error)}")
        good = (
            f"`{name}` answers as the training model, to {TOLERANCE:g} (relative above 1; the combined score to "
            f"{_SCORE_TOLERANCE:g} of itself); the largest difference is {largest:.2g} of what it may be."
        )
        yield found(check, problems, good, name)


def check_warm_up(model: SavedModel, version: pathlib.Path) -> Finding:
    """Runs the warm-up records as a server does before it offers the version."""
    try:
        count = warm_up(model, version)
    except StatusError as error:
        return Finding("warm_up", "", "failed", f"A server would not load the version: {_brief(error)}.")
    if count == 0:
        return Finding("warm_up", "", "skipped", "There are no warm-up records, so the first requests will be slow.")
    warmed = {log.request.model_spec.signature_name or DEFAULT_SIGNATURE for log in _logs(version / WARMUP_FILE)}
    cold = sorted(set(_public(model)) - warmed)
    rest = f", and none of them warms {', '.join(cold)}" if cold else ""
    return Finding("warm_up", "", "ok", f"All {count} warm-up records run{rest}.")


def _public(model: SavedModel) -> dict[str, Any]:
    return {n: signature for n, signature in sorted(model.signatures.items()) if not n.startswith("__saved_model_")}


def _run(model: SavedModel, name: str, request: dict[str, bytes]) -> dict[str, Any]:
    return model.run(name, request, timeout_ms=_TIMEOUT_MS)


def _logs(path: pathlib.Path) -> list[Any]:
    logs = [PredictionLog.FromString(record) for record in read_records(path)] if path.exists() else []
    return [log.predict_log for log in logs if log.HasField("predict_log")]


def _recorded_inputs(version: pathlib.Path) -> dict[str, dict[str, Array]]:
    """The request of most rows of each signature; records that cannot be read have findings of their own."""
    largest: dict[str, dict[str, Array]] = {}
    for file in (WARMUP_FILE, REFERENCE_FILE):
        with contextlib.suppress(StatusError, DecodeError, TensorFormatError):
            for log in _logs(version / file):
                name = log.request.model_spec.signature_name or DEFAULT_SIGNATURE
                inputs = {alias: decode(tensor) for alias, tensor in log.request.inputs.items()}
                if _elements(inputs) > _elements(largest.get(name, {})):
                    largest[name] = inputs
    return largest


def _elements(inputs: dict[str, Array]) -> int:
    return sum(values.size for values in inputs.values())


def _rows_are_open(info: Any) -> bool:
    return len(info.tensor_shape.dim) > 0 and info.tensor_shape.dim[0].size == -1


def _request(signature: Any, recorded: dict[str, Array], rows: int) -> dict[str, bytes]:
    request = {}
    for alias, info in signature.inputs.items():
        if alias in signature.defaults and alias not in recorded:
            continue
        shape = [dim.size for dim in info.tensor_shape.dim]
        if alias not in recorded or recorded[alias].size == 0:
            values = _made(info.dtype, [1 if size == -1 else size for size in shape])
        else:
            values = recorded[alias]
        if _rows_are_open(info):
            values = values[np.arange(rows) % len(values)]
        is_text = values.dtype == object
        tensor = encode_strings(values.reshape(-1).tolist(), values.shape) if is_text else encode_numbers(values)
        request[alias] = tensor.SerializeToString()
    return request


def _made(dtype: int, shape: list[int]) -> Array:
    """Empty strings, whole numbers 0, which every vocabulary knows, and others 1, which has a logarithm."""
    if dtype == DT_STRING:
        return np.full(shape, b"", object)
    if dtype not in NUMBERS:
        raise TensorFormatError(f"values of DataType {dtype} cannot be sent")
    number = NUMBERS[dtype].dtype
    return np.full(shape, 0 if number.kind in "iu" else 1, number)


def _wrong_outputs(signature: Any, outputs: dict[str, Array], rows: int | None, real: bool) -> Iterator[str]:
    for alias, values in outputs.items():
        info = signature.outputs[alias]
        wanted = [dim.size for dim in info.tensor_shape.dim]
        expected = (
            DT_STRING if values.dtype == object else next(n for n, t in NUMBERS.items() if t.dtype == values.dtype)
        )
        if info.dtype != expected:
            yield f"The output `{alias}` is of another type than the signature says"
        if info.tensor_shape.unknown_rank:
            continue
        if rows is not None and wanted and wanted[0] == -1:
            wanted[0] = rows
        if len(wanted) != values.ndim or any(size not in (-1, n) for size, n in zip(wanted, values.shape, strict=True)):
            about = "" if rows is None else f" for {rows} rows"
            yield f"The output `{alias}` has the shape {list(values.shape)} instead of {wanted}{about}"
        elif real and values.dtype.kind == "f" and not np.isfinite(values).all():
            yield f"The output `{alias}` is not finite on recorded values"
    if _RANKING in outputs and _COMBINED_SCORE in outputs:
        order, scores = outputs[_RANKING], outputs[_COMBINED_SCORE]
        if order.dtype.kind not in "iu" or sorted(order.reshape(-1).tolist()) != list(range(scores.size)):
            yield f"`{_RANKING}` does not name each candidate once"
        elif _rises(scores[order]):
            yield f"`{_RANKING}` does not order the candidates by `{_COMBINED_SCORE}`, best first"


def _rises(scores: Array) -> bool:
    # The order comes from the score's logarithm or from the score itself, so that only roundings can be out of order.
    return bool((scores[1:] > scores[:-1] + np.maximum(TOLERANCE * np.abs(scores[1:]), _LEAST_SCORE)).any())


def _difference(received: Array, expected: Array, share: float | None) -> float:
    """The largest difference in parts of the value, or of 1 where that is more; infinite where they cannot be compared.

    With `share`, of that share of the request's largest value instead of 1.
    """
    if received.shape != expected.shape or received.dtype != expected.dtype:
        return float("inf")
    if expected.dtype.kind != "f":
        return 0.0 if (received == expected).all() else float("inf")
    sizes = np.abs(expected)
    least = 1.0 if share is None else max(share * np.max(sizes, initial=0.0), _LEAST_SCORE)
    return float(np.max(np.abs(received - expected) / np.maximum(sizes, least), initial=0.0))


def _brief(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else f"{text[:300]} ..."
