"""The ranked-list log as a ranking client writes it: what was shown for which request, for tomorrow's training.

One record a request, JSON lines, as `mmoe-ranker examples` reads them:

    {"request_id": "5d41…", "timestamp": 1651017600.5, "context": {…},
     "impressions": [{"position": 1, "item": {…}}, …],
     "num_candidates": 300, "model_version": 7, "score_weights": {"click": 1.0}, "sampling_rate": 0.1}

The last line is for people and for warm-up; the pipeline passes over it. Whoever logs the feedback needs the request's
id, which `offer` returns. Ranking never waits for the log: records wait in a queue of bounded length for a thread that
writes them, and one that finds no place is dropped; a full disk loses records and nothing else. What was lost is
counted, and said in Python's log.
"""

from __future__ import annotations

import atexit
import collections
import dataclasses
import hashlib
import json
import logging
import math
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from mmoe_ranker.errors import InputError
from serving.request_columns import is_missing
from serving.rotating_files import RotatingFiles

_LOG = logging.getLogger(__name__)
_SECONDS_BETWEEN_REPORTS = 60.0
_SECONDS_TO_CLOSE = 30.0
_ITEMS_AT_ONCE = 16

# Features by name for each, or a column [N] a feature.
Candidates: TypeAlias = "Sequence[Mapping[str, Any]] | Mapping[str, Any]"


@dataclasses.dataclass
class LogCounts:
    """What became of the requests: `offered` is the sum of the others and of those that still wait.

    Attributes:
        offered: Requests that were ranked.
        not_sampled: Left out by `sampling_rate`.
        dropped: Found the queue full, or the log closed.
        failed: Could not be encoded or written.
        written: Are in files that have appeared.
    """

    offered: int = 0
    not_sampled: int = 0
    dropped: int = 0
    failed: int = 0
    written: int = 0


class RankedListLog:
    """Logs ranked lists into a folder; one object serves any number of threads of the process that made it.

    A process that is forked afterwards has no writer: it makes a log of its own, in the same folder if wanted.

    Example:
        with RankedListLog("logs", sampling_rate=0.1, positions=20) as log, RankingClient(target, log=log) as client:
            client.rank(request)

    Args:
        folder: Where files `ranked-lists-*.jsonl` appear, each complete.
        sampling_rate: Share of the requests that is logged, above 0 and at most 1; a hash of the id decides.
        positions: How many places of a list are shown, and so logged; None for all.
        max_waiting: Records that may wait to be written.
        max_file_bytes: A file appears when it has reached this size.
        max_file_seconds: ... or this age.

    Raises:
        InputError: An argument is out of range, or the folder cannot be made.
    """

    def __init__(
        self,
        folder: str | Path,
        sampling_rate: float = 1.0,
        positions: int | None = None,
        max_waiting: int = 256,
        max_file_bytes: int = 64 * 2**20,
        max_file_seconds: float = 300.0,
    ) -> None:
        if not 0.0 < sampling_rate <= 1.0:
            raise InputError(f"`sampling_rate` must be above 0 and at most 1. Received: {sampling_rate!r}.")
        for name, value in (("positions", positions), ("max_waiting", max_waiting), ("max_file_bytes", max_file_bytes)):
            if value is not None and value < 1:
                raise InputError(f"`{name}` must be at least 1. Received: {value!r}.")
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"The folder of the ranked-list log must be one that can be made ({error.strerror}). "
                f"Received: {str(folder)!r}."
            ) from None
        self._sampling_rate = sampling_rate
        self._positions = positions
        self._max_waiting = max_waiting
        self._files = RotatingFiles(Path(folder), "ranked-lists", max_file_bytes, max_file_seconds)
        self._waiting: collections.deque[dict[str, Any]] = collections.deque()
        self._changed = threading.Condition()
        self._counts = LogCounts()
        self._closing = False
        self._last_error = ""
        self._reported, self._reported_at = 0, -math.inf
        self._writer = threading.Thread(target=self._write, name="ranked-list-log", daemon=True)
        self._writer.start()
        # A daemon does not keep a program from ending; what still waits is written when it does.
        atexit.register(self.close)

    @property
    def counts(self) -> LogCounts:
        """What became of the requests so far."""
        with self._changed:
            return dataclasses.replace(self._counts)

    def samples(self, request_id: str) -> bool:
        """Whether a request is logged: the same for every process that logs at this rate."""
        digest = hashlib.blake2b(request_id.encode("utf-8", "surrogatepass"), digest_size=8, person=b"ranked list log")
        return int.from_bytes(digest.digest(), "big") < self._sampling_rate * 2.0**64

    def offer(
        self,
        context: Mapping[str, Any],
        candidates: Candidates,
        order: Sequence[int] | np.ndarray,
        model_version: int,
        score_weights: Mapping[str, float],
        request_id: str | None = None,
    ) -> str:
        """Hands over what was ranked; never waits for a disk, and never fails for it.

        Args:
            context: Features of the request.
            candidates: Features by name for each candidate, or columns [N] by feature; copied one level deep.
            order: Indices of the candidates, best first.
            model_version: The version that ranked them.
            score_weights: By objective, the weights that it ranked them with.
            request_id: By which feedback names the request; made up if not given.

        Returns:
            The request's id, logged or not.
        """
        request_id = uuid.uuid4().hex if request_id is None else str(request_id)
        record: dict[str, Any] | None = None
        if self.samples(request_id):
            order = list(order)
            record = {
                "request_id": request_id,
                "timestamp": round(time.time(), 6),
                "context": dict(context),
                "shown": _shown(candidates, order[: self._positions]),
                "num_candidates": len(order),
                "model_version": model_version,
                "score_weights": dict(score_weights),
            }
        with self._changed:
            self._counts.offered += 1
            if record is None:
                self._counts.not_sampled += 1
            elif self._closing or len(self._waiting) >= self._max_waiting:
                self._counts.dropped += 1
            else:
                self._waiting.append(record)
                self._changed.notify()
        return request_id

    def close(self) -> None:
        """Writes what waits and lets the last file appear; reports what was lost."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._writer.join(_SECONDS_TO_CLOSE)
        atexit.unregister(self.close)
        if self._writer.is_alive():
            _LOG.warning("The ranked-list log could not be written within %.0f s; it is given up.", _SECONDS_TO_CLOSE)

    def __enter__(self) -> RankedListLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self) -> None:
        while True:
            with self._changed:
                if not self._waiting and not self._closing:
                    self._changed.wait(self._files.seconds_left)
                record = self._waiting.popleft() if self._waiting else None
                ended = record is None and self._closing
            if record is not None:
                self._append(record)
            if ended or self._files.is_complete:
                self._publish()
            self._report(ended)
            if ended:
                return

    def _append(self, record: dict[str, Any]) -> None:
        try:
            self._files.append(_encode(record, self._sampling_rate))
        except Exception as error:  # whatever a caller's values do, it must not end the thread
            self._lose(1, error)

    def _publish(self) -> None:
        try:
            written = self._files.publish()
        except OSError as error:
            self._lose(self._files.discard(), error)
        else:
            with self._changed:
                self._counts.written += written

    def _lose(self, records: int, error: Exception) -> None:
        with self._changed:
            self._counts.failed += records
        self._last_error = f"; the last failure was {type(error).__name__}: {error}"

    def _report(self, ended: bool) -> None:
        counts, now = self.counts, time.monotonic()
        lost = counts.dropped + counts.failed
        if lost > self._reported and (ended or now - self._reported_at >= _SECONDS_BETWEEN_REPORTS):
            self._reported, self._reported_at = lost, now
            _LOG.warning(
                "The ranked-list log has lost %d of %d requests: %d found its queue full, %d could not be written%s.",
                lost,
                counts.offered - counts.not_sampled,
                counts.dropped,
                counts.failed,
                self._last_error,
            )


def _shown(candidates: Candidates, order: list[int]) -> list[dict[str, Any]] | dict[str, Any]:
    """Copies of the candidates shown, best first: their owner may change them before they are written."""
    if isinstance(candidates, Sequence):
        return [dict(candidates[row]) for row in order]
    return {
        name: [values[row] for row in order] if isinstance(values, Sequence) else np.asarray(values)[order]
        for name, values in candidates.items()
    }


def _encode(record: dict[str, Any], sampling_rate: float) -> bytes:
    shown = record.pop("shown")
    if isinstance(shown, dict):
        columns = [values.tolist() if isinstance(values, np.ndarray) else values for values in shown.values()]
        shown = [dict(zip(shown, row, strict=True)) for row in zip(*columns, strict=True)]
    impressions = []
    for position, item in enumerate(shown, start=1):
        impressions.append(f'{{"position":{position},"item":{_json(item)}}}')
        if position % _ITEMS_AT_ONCE == 0:
            time.sleep(0)  # a thread that ranks would wait for the interpreter five milliseconds, its switch interval
    head = _json({name: record.pop(name) for name in ("request_id", "timestamp", "context")})
    tail = _json({**record, "sampling_rate": sampling_rate})
    return f'{head[:-1]},"impressions":[{",".join(impressions)}],{tail[1:]}\n'.encode()


def _json(value: Any) -> str:
    try:
        return _ENCODER.encode(value)
    except ValueError:
        return _ENCODER.encode(_without_nan(value))


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if is_missing(value):
        return None
    raise TypeError(f"a value of type {type(value).__name__} has no JSON")


def _without_nan(value: Any) -> Any:
    """NaN, with which numpy says that a number is missing, as null, with which JSON does."""
    if isinstance(value, Mapping):
        return {name: _without_nan(inner) for name, inner in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _without_nan(value.tolist())
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return None if is_missing(value) else value


_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_plain)
