"""Serving: 300 candidates, 10 context and 20 candidate features, half of each categorical; server in its own process.

Where a benchmark is run on two models, the ratio is that of the model with the worse one; the note has both.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mmoe_ranker.config import Config
from serving.client import RankingClient
from serving.protos import PredictRequest, PredictResponse
from serving.signature import COMBINED_SCORE
from serving.tensor_codec import Array, decode
from serving.versions import State
from tests.benchmarks.bare_session import BareSession
from tests.benchmarks.echo_server import echo_call
from tests.benchmarks.model_server import (
    MODELS,
    SIGNATURES,
    ServerProcess,
    build_examples,
    draw_request,
    examples_message,
    messages,
    publish,
)
from tests.benchmarks.table import Measurement
from tests.benchmarks.timing import cpu_seconds, in_turn, medians, seconds

_CANDIDATES = 300
_THREADS = 4


@functools.cache
def _published(model: str) -> tuple[Config, Path, tempfile.TemporaryDirectory[str]]:
    """Config, folder of versions, and the owner of that folder, which removes it when the process ends."""
    owner = tempfile.TemporaryDirectory()
    return *publish(Path(owner.name), MODELS[model]), owner


def _models(tiny: bool) -> list[str]:
    return list(MODELS)[: 1 if tiny else None]


def rank_vs_examples(tiny: bool) -> list[Measurement]:
    """Requests a second that the server answers, by signature, with all else the same."""
    sizes = {}

    def sides(config: Config, server: ServerProcess) -> dict[str, Callable[[], object]]:
        sent = messages(config, draw_request(config, _CANDIDATES))
        bytes_sent = {name: sent[name].SerializeToString() for name in ("rank", "serving_examples")}
        sizes.update({name: len(message) for name, message in bytes_sent.items()})
        return {name: functools.partial(server.predict(), message) for name, message in bytes_sent.items()}

    measurement = _compare_rates("rank_vs_examples", tiny, _THREADS, sides)
    note = (
        f"{measurement.note}; {sizes['rank']:,} bytes a request against {sizes['serving_examples']:,}, "
        f"names of 8 to 11 characters; {_THREADS} clients that send messages made beforehand"
    )
    return [dataclasses.replace(measurement, note=note)]


def caller_vs_examples(tiny: bool) -> list[Measurement]:
    """Requests a second of one caller that has a request's values and wants the ranking, by signature."""
    with contextlib.ExitStack() as clients:

        def sides(config: Config, server: ServerProcess) -> dict[str, Callable[[], object]]:
            client = clients.enter_context(RankingClient(server.target))
            predict = server.predict(PredictRequest.SerializeToString, PredictResponse.FromString)
            request = draw_request(config, _CANDIDATES)

            def by_examples() -> Array:
                outputs = predict(examples_message(build_examples(config, request))).outputs
                answered = {alias: decode(tensor) for alias, tensor in outputs.items()}
                return np.argsort(-answered[COMBINED_SCORE], kind="stable")

            assert (client.rank_arrays(request).order == by_examples()).all()
            return {"rank": lambda: client.rank_arrays(request), "examples": by_examples}

        measurement = _compare_rates("caller_vs_examples", tiny, 1, sides)
    note = (
        f"{measurement.note}; `RankingClient.rank_arrays` against building {_CANDIDATES} tf.Examples, calling "
        f"`serving_examples` and sorting, one request after another, from plain values to numpy arrays"
    )
    return [dataclasses.replace(measurement, note=note)]


def _compare_rates(
    name: str, tiny: bool, callers: int, sides: Callable[[Config, ServerProcess], dict[str, Callable[[], object]]]
) -> Measurement:
    """Of two ways to ask, on each model: requests a second by so many callers, each of which asks one by one."""
    duration, rounds = (0.1, 1) if tiny else (1.5, 5)
    found, notes = [], []
    for model in _models(tiny):
        config, models, _ = _published(model)
        with ServerProcess(models) as server:
            rates = {
                side: functools.partial(_requests_a_second, request, duration, callers)
                for side, request in sides(config, server).items()
            }
            found.append(tuple(medians(in_turn(name, rounds, rates)).values()))
            notes.append(f"{model} {found[-1][0]:.0f} against {found[-1][1]:.0f}")
    ours, theirs = min(found, key=lambda pair: pair[0] / pair[1])
    note = f"{'; '.join(notes)}; medians of {rounds} rounds of {duration} s in turn"
    return Measurement(name, ours, theirs, "requests/s", note)


def _requests_a_second(request: Callable[[], object], duration: float, callers: int) -> float:
    answered = itertools.count()
    started = time.perf_counter()

    def ask() -> None:
        while time.perf_counter() - started < duration:
            request()
            next(answered)

    threads = [threading.Thread(target=ask) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return next(answered) / (time.perf_counter() - started)


def client_vs_examples(tiny: bool) -> list[Measurement]:
    """What the client computes for a request, from plain values to the ranking, against building tf.Examples."""
    repeats, rounds = (2, 1) if tiny else (20, 15)
    config, models, _ = _published(next(iter(MODELS)))
    with ServerProcess(models) as server:
        request = draw_request(config, _CANDIDATES)
        answer = server.predict()(messages(config, request)["rank"].SerializeToString())
        with RankingClient(server.target) as client:
            expected = client.rank(request)

            def answer_at_once(message: Any, timeout: float) -> Any:
                message.SerializeToString()
                return PredictResponse.FromString(answer)

            client._connection._predict = answer_at_once
            assert client.rank(request) == expected

            def milliseconds(action: Callable[[], object]) -> float:
                def repeat() -> None:
                    for _ in range(repeats):
                        action()

                return 1e3 * cpu_seconds(repeat) / repeats

            sides = {
                "client": lambda: milliseconds(lambda: client.rank(request)),
                "examples": lambda: milliseconds(lambda: build_examples(config, request)),
            }
            # What others do on the machine only adds, to 1 ms by far more than to 20.
            cost = {name: min(found) for name, found in in_turn("client_vs_examples", rounds, sides).items()}
    note = (
        f"`RankingClient.rank` from dicts to the ranking as dicts, checks included, with an answer that is there at "
        f"once, against building and serializing {_CANDIDATES} tf.Examples from the same dicts, nothing decoded; "
        f"processor time, the least of {rounds} rounds of {repeats} in turn"
    )
    return [Measurement("client_vs_examples", cost["client"], cost["examples"], "ms a request", note)]


def overhead(tiny: bool) -> list[Measurement]:
    """Latency of `rank` over gRPC, one request at a time, against the session run inside it; and that of gRPC alone."""
    count = 10 if tiny else 1000
    percentiles: dict[str, dict[int, tuple[float, ...]]] = {}
    for model in _models(tiny):
        config, models, _ = _published(model)
        with ServerProcess(models) as server:
            message = messages(config, draw_request(config, _CANDIDATES))["rank"]
            predict = server.predict(PredictRequest.SerializeToString, PredictResponse.FromString)
            session = BareSession(next(models.iterdir()), message)
            with echo_call(predict(message).ByteSize()) as echo:
                actions = {
                    "rank": functools.partial(predict, message),
                    "session": session.run,
                    "echo": functools.partial(echo, message.SerializeToString()),
                }
                for _ in range(3 if tiny else 50):
                    for action in actions.values():
                        action()
                sides = {name: functools.partial(seconds, action) for name, action in actions.items()}
                taken = in_turn("overhead", count, sides)
            session.close()
        of = np.percentile(np.multiply(1e3, [taken[name] for name in sides]), [50, 99], axis=1)
        percentiles[model] = {50: tuple(of[0]), 99: tuple(of[1])}
    measured = []
    for percentile in (50, 99):
        both = {model: figures[percentile] for model, figures in percentiles.items()}
        ours, bare, _ = max(both.values(), key=lambda three: three[0] / three[1])
        parts = "; ".join(
            f"{model} {rank:.2f} against {run:.2f}, messages of that size sent to and fro and not read {echo:.2f}"
            for model, (rank, run, echo) in both.items()
        )
        note = (
            f"{parts}; from message to parsed answer over gRPC against TF_SessionRun in this process on tensors parsed "
            f"beforehand, one at a time; p{percentile} of {count} of each in turn"
        )
        measured.append(Measurement(f"overhead_p{percentile}", ours, bare, "ms", note))
    return measured


def first_request(tiny: bool) -> list[Measurement]:
    """The first request to a new server, and to a version that was swapped in, against those that follow."""
    starts, follow = (1, 10) if tiny else (3, 200)
    found: dict[str, tuple[float, float]] = {}
    for model in _models(tiny):
        config, models, _ = _published(model)
        sent = messages(config, draw_request(config, _CANDIDATES))
        for name in SIGNATURES[: 1 if tiny else None]:
            rounds = tqdm(range(starts), desc=f"first_request {name}", unit=" starts", leave=False, disable=None)
            figures = [_first_requests(next(models.iterdir()), sent[name], follow) for _ in rounds]
            start, swap, steady = (1e3 * statistics.median(column) for column in zip(*figures, strict=True))
            found |= {
                f"{name} of {model} after a {event}": (value, steady)
                for event, value in {"start": start, "swap": swap}.items()
            }
    value, base = max(found.values(), key=lambda pair: pair[0] / pair[1])
    parts = "; ".join(f"{name} {once:.1f} against {after:.1f}" for name, (once, after) in found.items())
    note = (
        f"{parts}; the worst of them; a new server process a start and signature, connected before; the p50 of the "
        f"{follow} requests that follow; medians of {starts} starts"
    )
    return [Measurement("first_request", value, base, "ms", note)]


def _first_requests(version: Path, message: Any, follow: int) -> tuple[float, float, float]:
    """Seconds of the first request after a start, of the first after a swap, and of the median between them."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(version, Path(folder, "1"))
        with ServerProcess(Path(folder)) as server:
            ask = functools.partial(
                server.predict(PredictRequest.SerializeToString, PredictResponse.FromString), message
            )
            start = seconds(ask)
            steady = statistics.median(seconds(ask) for _ in range(follow))
            shutil.copytree(version, Path(folder, "beside"))
            Path(folder, "beside").rename(Path(folder, "2"))
            while server.states().get(2) != State.AVAILABLE:
                time.sleep(0.05)
            return start, seconds(ask), steady


BENCHMARKS = (rank_vs_examples, caller_vs_examples, client_vs_examples, overhead, first_request)
