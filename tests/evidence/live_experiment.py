"""A simulated live experiment: rankers order fresh requests of a world, and its users do what they do.

The requests come after the end of the log, with all their candidates; a request is known by what the log would say of
it when it comes, watches during the log among it. Every ranker orders the same requests by its combined score and
shows the same number of places. Users look, click, watch, like, rate and dismiss as the world has it, each ranker's
users with the same luck at each place, so that a difference between two rankers is the rankers'.

Shapes: B requests, C candidates, P places shown.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from mmoe_ranker import metrics
from mmoe_ranker.combined_score import CombinedScore
from mmoe_ranker.config import Config
from mmoe_ranker.examples import canonical_category, feature_field
from mmoe_ranker.model import Ranker
from mmoe_ranker.simulation import (
    START_TIMESTAMP,
    Histories,
    SimulatedLogs,
    context_columns,
    draw_requests,
    item_columns,
    watch_histories,
)

# What is read of an experiment, by family; a dismissal is bad, the rest is good.
READINGS = {
    "clicks": "engagement",
    "watch_seconds": "engagement",
    "likes": "satisfaction",
    "rating": "satisfaction",
    "dismissals": "satisfaction",
}
_SECONDS_A_DAY = 86400.0
# How often each list is answered: luck averages out, as it would over many more requests.
_ANSWERS = 20
_REQUESTS_A_BATCH = 50


class LiveExperiment:
    """Fresh requests of a world, for any ranker that trained on its logs.

    Args:
      logs: of the world up to now.
      num_requests: B.
    """

    def __init__(self, logs: SimulatedLogs, num_requests: int) -> None:
        self.world = world = logs.world
        rng = np.random.default_rng([world.seed, 10])
        start = START_TIMESTAMP + world.config.days * _SECONDS_A_DAY
        self.requests = draw_requests(world, num_requests, rng, start)
        timestamp, user = self.requests.timestamp, self.requests.user
        histories = watch_histories(
            np.concatenate([logs.timestamp, timestamp]),
            np.concatenate([logs.user, user]),
            logs.shown,
            logs.events,
            world.config.history_length,
        )
        fresh = slice(len(logs.user), None)
        self.histories = Histories(histories.videos, histories.begin[fresh], histories.end[fresh])
        self._contexts = context_columns(world, timestamp, user, self.requests.device, self.histories)
        self._items = item_columns(world.videos)
        # Lists in random order, for the reading that has no luck in it.
        luck = np.where(self.requests.eligible, rng.random(self.requests.eligible.shape), np.inf)
        self._random_lists = np.argsort(luck, axis=1)[:, : world.config.positions]

    def measure(self, ranker: Ranker, config: Config) -> dict[str, float]:
        """What users make of a ranker.

        Returns:
          `READINGS` a request (`rating`: the mean of those given), and `ndcg`: NDCG@10 of the predicted click against
          true relevance, on lists of P candidates drawn at random.
        """
        predictions = self.predict(ranker, config)
        terms = config.combined_score
        score = CombinedScore.from_terms(config.objective_names, terms.form, terms.terms)
        flat = {name: values.ravel() for name, values in predictions.items()}
        order = self.order(score.score(flat).reshape(predictions["click"].shape))
        return self.answers(order) | {"ndcg": self._ndcg(predictions["click"])}

    def order(self, scores: NDArray[np.float64]) -> NDArray[np.int64]:
        """The P eligible candidates of highest score [B, C], best first: video indices [B, P]."""
        best = np.argsort(np.where(self.requests.eligible, -scores, np.inf), axis=1, kind="stable")
        return np.take_along_axis(self.requests.candidates, best[:, : self.world.config.positions], axis=1)

    def answers(self, shown: NDArray[np.int64]) -> dict[str, float]:
        """`READINGS` of lists [B, P], mean over many answers."""
        totals = dict.fromkeys(READINGS, 0.0)
        ratings = 0
        for draw in range(_ANSWERS):
            luck = np.random.default_rng([self.world.seed, 11, draw])
            responses = self.world.respond(self.requests.user, shown, self.requests.device, luck)
            totals["clicks"] += responses.clicked.sum()
            totals["watch_seconds"] += responses.watch_seconds.sum()
            totals["likes"] += responses.liked.sum()
            totals["dismissals"] += responses.dismissed.sum()
            totals["rating"] += responses.rating.sum()
            ratings += int((responses.rating > 0).sum())
        of_requests = len(shown) * _ANSWERS
        return {name: float(total) / (ratings if name == "rating" else of_requests) for name, total in totals.items()}

    def predict(self, ranker: Ranker, config: Config) -> dict[str, NDArray[np.float64]]:
        """Every objective's prediction for every candidate, [B, C]."""
        rows = {}
        for side, columns in (("context", self._contexts), ("candidate", self._items)):
            rows[side] = ranker.feature_rows(
                {feature.name: _tensor(config, feature, columns[feature.name]) for feature in config.side(side)}
            )

        @tf.function(reduce_retracing=True)
        def forward(request: tf.Tensor, video: tf.Tensor) -> dict[str, tf.Tensor]:
            features = {name: tf.gather(values, request) for name, values in rows["context"].items()}
            features |= {name: tf.gather(values, video) for name, values in rows["candidate"].items()}
            outputs = ranker(features, training=False)
            return {name: outputs[name] for name in config.objective_names}

        candidates = self.requests.candidates
        batches = []
        for begin in range(0, len(candidates), _REQUESTS_A_BATCH):
            videos = candidates[begin : begin + _REQUESTS_A_BATCH]
            request = np.repeat(np.arange(begin, begin + len(videos)), videos.shape[1])
            outputs = forward(tf.constant(request), tf.constant(videos.ravel()))
            batches.append({name: values.numpy().reshape(videos.shape) for name, values in outputs.items()})
        return {name: np.concatenate([batch[name] for batch in batches]).astype(float) for name in batches[0]}

    def _ndcg(self, click: NDArray[np.float64]) -> float:
        videos = np.take_along_axis(self.requests.candidates, self._random_lists, axis=1)
        relevance = self.world.relevance(self.requests.user, videos)
        score = np.take_along_axis(click, self._random_lists, axis=1)
        lists = np.repeat(np.arange(len(videos)), videos.shape[1])
        return metrics.ndcg(relevance.ravel(), score.ravel(), lists, k=10).value


def _tensor(config: Config, feature: Any, values: list[Any]) -> tf.Tensor:
    """A column as the logs have it, in the form that examples are parsed to."""
    if feature_field(config, feature).wire == "float":
        return tf.constant(values, tf.float32)
    if feature.kind == "sequence":
        return tf.ragged.constant(values, dtype=tf.string).to_tensor("")
    return tf.constant([canonical_category(value) for value in values])
