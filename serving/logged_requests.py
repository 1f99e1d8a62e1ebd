"""Warm-up requests out of the ranked-list log: of the sizes that really come, with values that really came.

A log holds the candidates that were shown, and how many there were (`num_candidates`): those shown are repeated up to
that number. They are encoded as the client would, for the signature of the version that they are to warm up; a feature
that the log does not have yet is missing.
"""

from __future__ import annotations

import glob
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmoe_ranker.errors import InputError
from serving.protos import PredictionLog, RankRequest
from serving.request_columns import request_columns
from serving.request_encoding import encode_request
from serving.signature import RANK, RankSignature
from serving.tfrecord import append_record
from serving.verifying.graph import Graph
from serving.warmup import WARMUP_FILE

_NEWEST_RECORDS = 2000
_MOST_SIZES = 32


def add_warm_up(version: Path, log: str) -> int:
    """Adds requests of a log to the warm-up records of a version that is not yet published.

    Args:
        version: Folder of the SavedModel.
        log: Glob of ranked-list logs, JSON lines; of files of one name but for a time, the newest comes last.

    Returns:
        How many were added: one of each size that is among the newest requests, at most 32 from the smallest to the
        largest.

    Raises:
        InputError: there is no such file, or a line is no record of a ranked list.
    """
    signature = RankSignature.from_signature_def(Graph.read(version).signatures[RANK], 0)
    by_size: dict[int, tuple[str, dict[str, Any]]] = {}
    for place, record in itertools.islice(_newest_first(log), _NEWEST_RECORDS):
        by_size.setdefault(_size(place, record), (place, record))
    sizes = sorted(by_size)
    chosen = np.unique(np.linspace(0, len(sizes) - 1, min(len(sizes), _MOST_SIZES)).round().astype(int))
    with (version / WARMUP_FILE).open("ab") as file:
        for size in (sizes[number] for number in chosen):
            append_record(file, _prediction_log(*by_size[size], size, signature))
    return len(chosen)


def _newest_first(log: str) -> Iterator[tuple[str, dict[str, Any]]]:
    files = sorted(glob.glob(log), reverse=True)
    if not files:
        raise InputError(f"`--warmup-log` must be a file, or a glob of files, that are there. Received: {log!r}.")
    for file in files:
        lines = Path(file).read_bytes().splitlines()
        for number in reversed(range(len(lines))):
            if lines[number].strip():
                place = f"line {number + 1} of {os.path.relpath(file)}"
                yield place, _record(place, lines[number])


def _record(place: str, line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
        context, items = record["context"], [impression["item"] for impression in record["impressions"]]
        if not items or not all(isinstance(part, dict) for part in [context, *items]):
            raise ValueError("no candidates")
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"A ranked-list log must be JSON lines with `context` and `impressions`, each of which has an `item` "
            f"({place}: {type(error).__name__}). Received: {line[:80].decode(errors='replace')}."
        ) from None
    return record


def _size(place: str, record: dict[str, Any]) -> int:
    shown = len(record["impressions"])
    size = record.get("num_candidates", shown)
    if isinstance(size, bool) or not isinstance(size, int) or size < shown:
        raise InputError(
            f"`num_candidates` must be an integer, at least the number of impressions ({place}). Received: {size!r}."
        )
    return size


def _prediction_log(place: str, record: dict[str, Any], size: int, signature: RankSignature) -> bytes:
    items = [impression["item"] for impression in record["impressions"]]
    rows: Sequence[dict[str, Any]] = list(itertools.islice(itertools.cycle(items), size))
    request = {
        "context": {feature.name: record["context"].get(feature.name) for feature in signature.context},
        "candidates": {feature.name: [row.get(feature.name) for row in rows] for feature in signature.candidates},
    }
    message = RankRequest()
    message.model_spec.signature_name = RANK
    try:
        encode_request(request_columns(request, signature), signature).write(message.inputs, 0, size)
    except InputError as error:
        raise InputError(f"A logged request must fit the version that it is to warm up ({place}). {error}") from None
    prediction_log = PredictionLog()
    prediction_log.predict_log.request.MergeFromString(message.SerializeToString())
    return prediction_log.SerializeToString()
