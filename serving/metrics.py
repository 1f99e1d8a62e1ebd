"""Prometheus metrics under TF Serving's names, and a histogram of the scores that were answered.

Names, labels, units (microseconds) and buckets are those of tensorflow_serving/servables/tensorflow/{util,
saved_model_warmup_util}.cc and tensorflow/cc/saved_model/loader.cc, with `/` written as `:` as TF Serving's exporter
does, so that the same dashboard and the same alerts read either server. Under a name of ours:

| metric | labels | |
|---|---|---|
| `:mmoe_ranker:serving:score` | model_name, objective | every prediction and combined score that was answered |
| `:mmoe_ranker:serving:not_finite_score_count` | model_name, objective | those that were NaN or infinite |

Reference: tensorflow_serving/util/prometheus_exporter.cc.
"""

from __future__ import annotations

import json
import logging
import pathlib
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import grpc
import numpy as np
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from serving.session import SavedModel
from serving.signature import COMBINED_SCORE
from serving.status import StatusError
from serving.tensor_codec import Array, decode

_LOG = logging.getLogger(__name__)
_CONTRACT = "contract"
_LATENCY_BUCKETS = [10 * 1.8**power for power in range(33)]
# One ladder for probabilities and for predictions in seconds or stars.
_SCORE_BUCKETS = np.array([step * 10.0**power for power in range(-4, 5) for step in (1, 2, 5)])

# The client library shows counters as `NAME_total`, and adds the time of creation; TF Serving does neither.
_TOTAL = re.compile(rb"^((?:# (?:HELP|TYPE) )?:[^\s{]+)_total(?=[ {])", re.MULTILINE)
_CREATED = re.compile(rb"^(?:# (?:HELP|TYPE) )?:[^\s{]+_created[ {].*\n", re.MULTILINE)


class ServerMetrics:
    """What one server counts about one model; methods may be called from any number of threads."""

    def __init__(self, model_name: str) -> None:
        self._model_name = model_name
        registry = self._registry = CollectorRegistry()
        self._requests = Counter(
            ":tensorflow:serving:request_count",
            "The total number of requests.",
            ["model_name", "status"],
            registry=registry,
        )
        self._request_latency = Histogram(
            ":tensorflow:serving:request_latency",
            "Distribution of wall time (in microseconds) for Tensorflow Serving request.",
            ["model_name", "API", "entrypoint"],
            buckets=_LATENCY_BUCKETS,
            registry=registry,
        ).labels(model_name, "Predict", "GRPC")
        self._runtime_latency = Histogram(
            ":tensorflow:serving:runtime_latency",
            "Distribution of wall time (in microseconds) for Tensorflow runtime.",
            ["model_name", "API", "runtime"],
            buckets=_LATENCY_BUCKETS,
            registry=registry,
        ).labels(model_name, "Predict", "TF1")
        self._load_attempts = Counter(
            ":tensorflow:cc:saved_model:load_attempt_count",
            "The number of times a SavedModel was requested to be loaded.",
            ["model_path", "status"],
            registry=registry,
        )
        self._load_latency = Counter(
            ":tensorflow:cc:saved_model:load_latency",
            "Latency in microseconds for SavedModels that were successfully loaded.",
            ["model_path"],
            registry=registry,
        )
        self._warm_up_latency = Histogram(
            ":tensorflow:serving:model_warmup_latency",
            "Distribution of wall time (in microseconds) for warming up the model.",
            ["model_path", "status"],
            buckets=_LATENCY_BUCKETS,
            registry=registry,
        )
        self._warm_up_records = Counter(
            ":tensorflow:serving:model_warmup_records_read",
            "Total number of warmup records read during model warmup.",
            ["model_path", "status"],
            registry=registry,
        )
        self._scores = _ScoreHistogram(model_name)
        registry.register(self._scores)
        self._not_finite = Counter(
            ":mmoe_ranker:serving:not_finite_score_count",
            "Answered scores that are NaN or infinite.",
            ["model_name", "objective"],
            registry=registry,
        )

    def count_request(self, model_name: str, code: grpc.StatusCode) -> None:
        """Counts a request by its outcome; any name but the served one is counted as "".

        TF Serving keeps a series for each name that anyone ever asked for; here names out of requests take no memory.
        """
        served = model_name if model_name == self._model_name else ""
        self._requests.labels(served, code.name).inc()

    def observe_request(self, seconds: float) -> None:
        """Records how long a Predict that succeeded took, from request to response message."""
        self._request_latency.observe(seconds * 1e6)

    def observe_runtime(self, seconds: float) -> None:
        """Records how long the session's run in a Predict took."""
        self._runtime_latency.observe(seconds * 1e6)

    def count_load(self, folder: pathlib.Path, seconds: float | None) -> None:
        """Counts an attempt to load a SavedModel; None where it failed."""
        self._load_attempts.labels(str(folder), "fail" if seconds is None else "success").inc()
        if seconds is not None:
            self._load_latency.labels(str(folder)).inc(seconds * 1e6)

    def observe_warm_up(self, folder: pathlib.Path, seconds: float, records: int) -> None:
        """Records a warm-up that went through."""
        self._warm_up_latency.labels(str(folder), "OK").observe(seconds * 1e6)
        self._warm_up_records.labels(str(folder), "OK").inc(records)

    def observe_scores(self, outputs: Mapping[str, Any], objectives: Iterable[str]) -> None:
        """Records the scores of one answer.

        Args:
            outputs: Output name to TensorProto.
            objectives: Which outputs are scores; those that were not asked for are passed over.
        """
        scores = {objective: decode(outputs[objective]).reshape(-1) for objective in objectives if objective in outputs}
        for name, values in scores.items():
            finite = np.isfinite(values)
            if not finite.all():
                self._not_finite.labels(self._model_name, name).inc(int((~finite).sum()))
                scores[name] = values[finite]
        self._scores.observe(scores)

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return _TOTAL.sub(rb"\1", _CREATED.sub(b"", generate_latest(self._registry)))


class _ScoreHistogram(Collector):
    """Counts whole arrays at once, which the library's Histogram cannot."""

    def __init__(self, model_name: str) -> None:
        self._model_name = model_name
        self._lock = threading.Lock()
        self._at_most: dict[str, Array] = {}  # by bound, and in the last place by none
        self._sums: dict[str, float] = {}

    def observe(self, scores: Mapping[str, Array]) -> None:
        """Counts finite values, [V] by objective."""
        for name, values in scores.items():
            # The few bounds are looked for among the sorted values, as Prometheus' `le` says: at most the bound.
            at_most = np.append(np.sort(values).searchsorted(_SCORE_BUCKETS, side="right"), len(values))
            total = values.sum(dtype=np.float64)
            with self._lock:
                self._at_most[name] = self._at_most.get(name, 0) + at_most
                self._sums[name] = self._sums.get(name, 0.0) + total

    def collect(self) -> Iterable[Metric]:
        """Gives the histogram to the registry."""
        family = HistogramMetricFamily(
            ":mmoe_ranker:serving:score",
            "Predictions and combined scores that were answered.",
            labels=["model_name", "objective"],
        )
        with self._lock:
            for objective, at_most in self._at_most.items():
                bounds = [*(f"{bound:g}" for bound in _SCORE_BUCKETS), "+Inf"]
                buckets = list(zip(bounds, at_most.tolist(), strict=True))
                family.add_metric([self._model_name, objective], buckets, self._sums[objective])
        yield family


def scores_of(model: SavedModel) -> Sequence[str]:
    """Names of the outputs that are scores, as the model's `contract` signature tells; none without one."""
    if _CONTRACT not in model.signatures:
        return ()
    try:
        contract = json.loads(decode(model.run(_CONTRACT, {})[_CONTRACT]).item())
        return (*(objective["name"] for objective in contract["objectives"]), COMBINED_SCORE)
    except (StatusError, ValueError, KeyError, TypeError) as error:
        _LOG.warning("No histogram of scores: the model's signature `%s` is not a ranker's (%s).", _CONTRACT, error)
        return ()
