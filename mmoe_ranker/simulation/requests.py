"""Who asks, when, on which device, and with which candidates: everything of a request before its list is ordered."""

from __future__ import annotations

import dataclasses

import numpy as np

from mmoe_ranker.simulation.population import SECONDS_A_DAY, Bools, Floats, Ints
from mmoe_ranker.simulation.world import World
from mmoe_ranker.simulation.world_config import DEVICES, START_TIMESTAMP, TOPICS

_HOURS = np.arange(24)


@dataclasses.dataclass(frozen=True)
class Requests:
    """Requests in order of time.

    Attributes:
      timestamp: [B] UTC seconds, to the millisecond, ascending.
      user: [B] user indices.
      device: [B] indices into DEVICES.
      candidates: [B, C] video indices.
      eligible: [B, C] False for a candidate that stands further left already, or is not uploaded yet.
    """

    timestamp: Floats
    user: Ints
    device: Ints
    candidates: Ints
    eligible: Bools


def draw_requests(
    world: World, num_requests: int, rng: np.random.Generator, start_timestamp: float = START_TIMESTAMP
) -> Requests:
    """Draws requests over `config.days` days, busier in the evening, with more TV in it.

    Half of the candidates follow the user's taste for topics; half are drawn at random from all the videos there are.

    Args:
      world: the world that asks.
      num_requests: B.
      rng: chance.
      start_timestamp: UTC seconds of the first day's start.
    """
    config = world.config
    traffic = 1.0 + 0.6 * np.cos(2 * np.pi * (_HOURS - 20) / 24)
    hour = rng.choice(24, size=num_requests, p=traffic / traffic.sum())
    day = rng.integers(config.days, size=num_requests)
    second = day * SECONDS_A_DAY + hour * 3600.0 + rng.random(num_requests) * 3600.0
    timestamp = start_timestamp + np.sort(np.floor(second * 1000.0) / 1000.0)
    timestamp = np.round(timestamp, 3)
    user = rng.choice(config.num_users, size=num_requests, p=world.users.activity)
    device = _draw_devices(hour_of(timestamp), rng)
    candidates = _draw_candidates(world, user, timestamp, rng)
    num_uploaded = np.searchsorted(world.videos.upload_timestamp, timestamp, side="right")
    eligible = (candidates < num_uploaded[:, None]) & ~_repeated(candidates)
    return Requests(timestamp, user, device, candidates, eligible)


def hour_of(timestamp: Floats) -> Ints:
    """Hour of the UTC day, 0 to 23, of each time [B]."""
    return (timestamp % SECONDS_A_DAY // 3600.0).astype(np.int64)


def _draw_devices(hour: Ints, rng: np.random.Generator) -> Ints:
    evening = np.cos(2 * np.pi * (_HOURS - 20) / 24)[:, None]  # [24, 1]
    shares = np.array([0.5, 0.3, 0.2]) * (1.0 + np.array([-0.1, -0.3, 0.7]) * evening)
    cumulative = np.cumsum(shares / shares.sum(axis=1, keepdims=True), axis=1)
    draw = rng.random(len(hour))[:, None] > cumulative[hour]
    return np.minimum(draw.sum(axis=1), len(DEVICES) - 1)


def _draw_candidates(world: World, user: Ints, timestamp: Floats, rng: np.random.Generator) -> Ints:
    config, videos = world.config, world.videos
    num_requests, num_random = len(user), config.candidates // 2
    num_by_taste = config.candidates - num_random
    # A step that is a prime above the number of videos visits each of them once: distinct by construction, and as cheap
    # for a million videos as for a thousand. Video indices carry no meaning but the time of upload.
    steps = _primes_above(config.num_videos, 512)
    num_uploaded = np.searchsorted(videos.upload_timestamp, timestamp, side="right")[:, None]
    start = np.floor(rng.random((num_requests, 1)) * num_uploaded).astype(np.int64)
    step = rng.choice(steps, size=(num_requests, 1))
    at_random = (start + step * np.arange(num_random)) % num_uploaded

    by_topic = np.argsort(videos.topic, kind="stable")
    topic_size = np.bincount(videos.topic, minlength=len(TOPICS))
    topic_start = np.cumsum(topic_size) - topic_size
    cumulative = np.cumsum(np.where(topic_size > 0, world.users.topic_affinity, 0.0), axis=1)  # [U, topics]
    draw = rng.random((num_requests, num_by_taste)) * cumulative[user, -1:]
    topic = np.zeros(draw.shape, dtype=np.int64)
    for edge in range(len(TOPICS) - 1):
        topic += draw >= cumulative[user, edge][:, None]
    place = (rng.random(draw.shape) * topic_size[topic]).astype(np.int64)
    return np.concatenate([at_random, by_topic[topic_start[topic] + place]], axis=1)


def _repeated(rows: Ints) -> Bools:
    """[B, C] True where the same value stands further left in its row."""
    order = np.argsort(rows, axis=1, kind="stable")
    ordered = np.take_along_axis(rows, order, axis=1)
    repeated_in_order = np.zeros(rows.shape, dtype=bool)
    repeated_in_order[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    repeated = np.empty_like(repeated_in_order)
    np.put_along_axis(repeated, order, repeated_in_order, axis=1)
    return repeated


def _primes_above(least: int, count: int) -> Ints:
    # Primes near x lie ln(x) apart on average; four times that leaves room for the gaps.
    limit = least + int(4 * count * np.log(least + 10 * count))
    sieve = np.ones(limit + 1, dtype=bool)
    sieve[:2] = False
    for factor in range(2, int(limit**0.5) + 1):
        if sieve[factor]:
            sieve[factor * factor :: factor] = False
    primes = np.flatnonzero(sieve)
    return primes[primes > least][:count]
