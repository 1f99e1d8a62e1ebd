"""Metrics against the bare sorts that they need, and the bootstrap against the evaluation whose intervals it gives.

One click objective on lists of 20; every metric of `evaluate`, grouped by request and user, within and sliced by
position, and by device. The time of a sort depends on its keys, so both sides have the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mmoe_ranker import metrics
from mmoe_ranker.config import Config
from mmoe_ranker.config_loading import parse_config
from mmoe_ranker.evaluation_metrics import evaluate
from mmoe_ranker.predictions import Predictions
from tests.benchmarks.memory import PeakMemory
from tests.benchmarks.table import Measurement
from tests.benchmarks.timing import in_turn, medians
from tests.configs import small_config

_LIST = 20
_REPLICATES = 200


def metrics_vs_sorts(tiny: bool) -> list[Measurement]:
    """CPU seconds of an evaluation without intervals over those of the sorts of its keys, each key sorted once."""
    count, rounds = (20_000, 1) if tiny else (10_000_000, 3)
    peak = PeakMemory()
    predictions, config = _clicks(count), _config(replicates=0)
    evaluate(predictions, config)
    memory = peak.grown()
    sorts = _bare_sorts(predictions)
    sides: dict[str, Callable[[], float]] = {
        "evaluation": lambda: _cpu_seconds(lambda: evaluate(predictions, config)),
        "sorts": lambda: sum(_cpu_seconds(sort) for sort in sorts),
    }
    taken = medians(in_turn("metrics", rounds, sides))
    note = (
        f"{count:,} predictions, medians of {rounds}; the baseline is np.argsort of the prediction and of the combined "
        f"score, and np.sort of each as integers packed with request, user, position and device. The peak of memory "
        f"grew {memory} from before the predictions were made until after they were evaluated."
    )
    return [Measurement("metrics_vs_sorts", taken["evaluation"], taken["sorts"], "CPU s", note)]


def bootstrap_vs_evaluation(tiny: bool) -> list[Measurement]:
    """CPU seconds that 200 replicates add to an evaluation, over those of the evaluation without them."""
    count, rounds = (20_000, 1) if tiny else (1_000_000, 3)
    predictions = _clicks(count)
    configs = {"evaluation": _config(replicates=0), "with": _config(replicates=_REPLICATES)}
    sides: dict[str, Callable[[], float]] = {
        name: lambda config=config: _cpu_seconds(lambda: evaluate(predictions, config))
        for name, config in configs.items()
    }
    taken = medians(in_turn("bootstrap", rounds, sides))
    note = (
        f"{count:,} impressions in {count // _LIST:,} requests, which are what {_REPLICATES} replicates draw; every "
        f"metric of the report but XAUC and agreement; medians of {rounds}"
    )
    added = taken["with"] - taken["evaluation"]
    return [Measurement("bootstrap_vs_evaluation", added, taken["evaluation"], "CPU s", note)]


BENCHMARKS = (metrics_vs_sorts, bootstrap_vs_evaluation)


def _cpu_seconds(action: Callable[[], object]) -> float:
    """Seconds of the processor, of all threads: what else the machine does falls on them less than on the clock."""
    started = time.process_time()
    action()
    return time.process_time() - started


def _config(replicates: int) -> Config:
    document = small_config()
    document["objectives"] = document["objectives"][:1]
    document["combined_score"] = {"terms": {"click": {"weight": 1.0}}}
    document["evaluation"] = {"group_by": ["user_id"], "bootstrap": {"replicates": replicates}}
    return parse_config(document)


def _clicks(count: int) -> Predictions:
    """Calibrated predictions as a model gives them, in float32; ids are bytes, one object for each distinct one."""
    rng = np.random.default_rng(7)
    requests = count // _LIST
    predicted = rng.beta(1, 9, count).astype(np.float32).astype(np.float64)
    labels = (rng.random(count) < predicted).astype(np.float64)
    users = np.array([b"user %d" % index for index in range(max(1, requests // 5))], object)
    columns = {
        "request_id": np.array([b"request %d" % index for index in range(requests)], object).repeat(_LIST),
        "user_id": users[rng.integers(0, len(users), requests)].repeat(_LIST),
        "device": np.array([b"phone", b"tv", b"web"], object)[rng.integers(0, 3, requests)].repeat(_LIST),
        "position": np.tile(np.arange(1, _LIST + 1), requests),
    }
    return Predictions({"click": predicted}, {"click": labels}, columns)


def _bare_sorts(predictions: Predictions) -> list[Callable[[], NDArray[np.int64]]]:
    score = predictions.predictions["click"]
    place = np.argsort(np.argsort(score))
    bits = len(score).bit_length()
    packed = {}
    for name, column in predictions.columns.items():
        packed[name] = metrics.dense_codes(column).astype(np.int64) << bits | place
    scores = [lambda: np.argsort(score)] * 2
    # By request both the prediction's order and the combined score's.
    return [*scores, *(lambda keys=keys: np.sort(keys) for keys in (packed["request_id"], *packed.values()))]
