"""Asks a server without a pause while versions are swapped below it, broken ones among them.

The server is this package's own, in a process of its own, on copies of one version. Of every four copies the third has
a damaged graph and the fourth lacks the index of its variables: neither may ever be served, or be noticed by those who
ask. Requests and what to expect of them come from the version's warm-up file and from the server's first answers.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
from tensorflow_serving.apis import prediction_log_pb2

from serving.protos import PredictResponse
from serving.tensor_codec import decode
from serving.tfrecord import read_records
from serving.versions import State
from serving.warmup import WARMUP_FILE
from tests.benchmarks.model_server import ServerProcess

_CLIENTS = 4
_PAUSE_SECONDS = 0.01  # between two requests of a client: load, not a benchmark
_KEPT_VERSIONS = 3
_SETTLED_SECONDS = 60.0
# Another number of threads adds floats in another order.
_TOLERANCE = 1e-4
MOST_GROWTH = 1.1


@dataclass
class Report:
    """What came of a run.

    Attributes:
        latencies: seconds of each answered request.
        failures: requests that failed or whose answer differs, in words.
        swaps: versions that took over.
        refused: broken versions that the server reported.
        problems: swaps that did not end as they had to, in words.
        memory: resident bytes of the server by seconds since the start.
    """

    latencies: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    swaps: int = 0
    refused: int = 0
    problems: list[str] = field(default_factory=list)
    memory: list[tuple[float, int]] = field(default_factory=list)

    @property
    def growth(self) -> float:
        """Memory in the last third of the run over that in the second; the first may still fill pools."""
        sizes = [size for _, size in self.memory]
        third = max(1, len(sizes) // 3)
        return statistics.median(sizes[-third:]) / statistics.median(sizes[third : 2 * third] or sizes)

    def __str__(self) -> str:
        p50, p99 = np.percentile(self.latencies, [50, 99]) * 1e3
        shown = self.memory[:: max(1, len(self.memory) // 20)]
        return (
            f"{len(self.latencies):,} requests, {len(self.failures)} failed; {self.swaps} swaps, {self.refused} broken "
            f"versions refused, {len(self.problems)} otherwise than expected; p50 {p50:.1f} ms, p99 {p99:.1f} ms; "
            f"memory in the last third of the time {self.growth:.3f} of the middle third's\n"
            + ", ".join(f"{seconds:.0f} s {size / 2**20:.0f} MiB" for seconds, size in shown)
        )


def load(version: Path, seconds: float, swap_seconds: float) -> Report:
    """Runs the server for `seconds`, with a new version every `swap_seconds`.

    Args:
        version: folder of a SavedModel with a warm-up file.
        seconds: how long.
        swap_seconds: from one publishing to the next, or more where the server has not settled the one before.
    """
    report = Report()
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder)
        _publish(version, models, 1)
        with ServerProcess(models) as server:
            requests = [log.predict_log.request for log in _warm_up_logs(version)]
            messages = []
            for request in requests:
                request.model_spec.name = "ranker"
                messages.append(request.SerializeToString())
            expected = [server.predict()(message, timeout=30) for message in messages]
            end = threading.Event()
            clients = [
                threading.Thread(target=_ask, args=(server, messages, expected, end, report)) for _ in range(_CLIENTS)
            ]
            for client in clients:
                client.start()
            try:
                _swap(version, models, server, seconds, swap_seconds, report)
            finally:
                end.set()
                for client in clients:
                    client.join()
    return report


def _ask(
    server: ServerProcess, messages: list[bytes], expected: list[bytes], end: threading.Event, report: Report
) -> None:
    predict = server.predict()
    number = 0
    while not end.wait(_PAUSE_SECONDS):
        number = (number + 1) % len(messages)
        began = time.perf_counter()
        try:
            answer = predict(messages[number], timeout=10)
        except grpc.RpcError as error:
            report.failures.append(f"{error.code().name}: {error.details()}")
            continue
        report.latencies.append(time.perf_counter() - began)
        if not _same(answer, expected[number]):
            report.failures.append(f"request {number} was answered otherwise")


def _same(answer: bytes, expected: bytes) -> bool:
    ours, theirs = (PredictResponse.FromString(message).outputs for message in (answer, expected))
    if set(ours) != set(theirs):
        return False
    for alias in ours:
        values, others = decode(ours[alias]), decode(theirs[alias])
        floats = values.dtype.kind == "f"
        if not (np.allclose(values, others, _TOLERANCE, _TOLERANCE) if floats else np.array_equal(values, others)):
            return False
    return True


def _swap(
    version: Path, models: Path, server: ServerProcess, seconds: float, swap_seconds: float, report: Report
) -> None:
    began = time.monotonic()
    number, published = 1, 0.0
    settled = True
    while (now := time.monotonic() - began) < seconds:
        report.memory.append((now, server.memory_bytes()))
        if settled and now >= published + swap_seconds:
            number, published, settled = number + 1, now, False
            _publish(version, models, number)
        elif not settled and (outcome := _outcome(server, number, report)) is not None:
            report.problems += [outcome] if outcome else []
            settled = True
        elif not settled and now > published + _SETTLED_SECONDS:
            report.problems.append(f"version {number} was neither taken over nor refused in {_SETTLED_SECONDS:.0f} s")
            settled = True
        time.sleep(min(1.0, swap_seconds / 10))


def _broken(number: int) -> bool:
    return number % 4 in (3, 0)


def _outcome(server: ServerProcess, number: int, report: Report) -> str | None:
    """None while it is open, "" where the version went as it had to, else what went otherwise."""
    state = server.states().get(number)
    if state == State.AVAILABLE:
        report.swaps += 1
        return f"version {number} is broken and was taken over" if _broken(number) else ""
    if state == State.END:
        report.refused += 1
        return "" if _broken(number) else f"version {number} was refused"
    return None


def _publish(version: Path, models: Path, number: int) -> None:
    beside = models / f".copy-{number}"
    shutil.copytree(version, beside)
    if number % 4 == 3:
        content = (beside / "saved_model.pb").read_bytes()
        (beside / "saved_model.pb").write_bytes(content[: len(content) // 2])
    elif number % 4 == 0:
        (beside / "variables" / "variables.index").unlink()
    beside.rename(models / str(number))
    for old in range(1, number - _KEPT_VERSIONS):
        shutil.rmtree(models / str(old), ignore_errors=True)


def _warm_up_logs(version: Path) -> Iterator[prediction_log_pb2.PredictionLog]:
    for record in read_records(version / WARMUP_FILE):
        yield prediction_log_pb2.PredictionLog.FromString(record)
