"""Who lives in the simulated world: users with tastes, videos with topics, quality, clickbait and an agenda's boost."""

from __future__ import annotations

import dataclasses
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mmoe_ranker.simulation.world_config import COUNTRIES, START_TIMESTAMP, TOPICS, WorldConfig

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]

SECONDS_A_DAY = 86400.0
_COUNTRY_SHARES = np.array([0.28, 0.2, 0.13, 0.11, 0.09, 0.08, 0.06, 0.05])


@dataclasses.dataclass(frozen=True)
class Users:
    """Users by index. Country and tenure are logged; the rest is the truth.

    Attributes:
      taste: [U, F] latent taste.
      topic_affinity: [U, topics] share of the candidates drawn by taste, sums to 1.
      generosity: [U] added to the logit of a like.
      activity: [U] share of the requests, sums to 1.
      country: [U] index into COUNTRIES.
      tenure_days: [U] age of the account at the start of the log, whole days.
    """

    taste: Floats
    topic_affinity: Floats
    generosity: Floats
    activity: Floats
    country: Ints
    tenure_days: Floats


@dataclasses.dataclass(frozen=True)
class Videos:
    """Videos by index, in order of upload. Factors, quality, clickbait and boost are the truth; the rest is logged.

    Attributes:
      factors: [V, F] latent topics.
      quality: [V] unit variance.
      clickbait: [V] unit variance.
      boost: [V] the logging ranker's agenda: 0 for most, 0.5 to 1.5 for some.
      upload_timestamp: [V] UTC seconds, ascending; START_TIMESTAMP at the latest for those that were there before.
      topic: [V] index into TOPICS.
      uploader: [V] index; an uploader's videos share part of their quality and clickbait.
      duration: [V] seconds, whole.
      content: [V, content_size] noisy projection of factors, quality and clickbait, three decimals.
    """

    factors: Floats
    quality: Floats
    clickbait: Floats
    boost: Floats
    upload_timestamp: Floats
    topic: Ints
    uploader: Ints
    duration: Floats
    content: Floats


def draw_population(config: WorldConfig, rng: np.random.Generator) -> tuple[Users, Videos]:
    """Draws users and videos around the same topic centres of the latent space."""
    centres = rng.normal(size=(len(TOPICS), config.num_factors))
    return _draw_users(config, centres, rng), _draw_videos(config, centres, rng)


def _draw_users(config: WorldConfig, centres: Floats, rng: np.random.Generator) -> Users:
    num, width = config.num_users, config.num_factors
    country = rng.choice(len(COUNTRIES), size=num, p=_COUNTRY_SHARES)
    mixture = rng.dirichlet(np.full(len(TOPICS), 0.3), size=num)
    taste = 1.3 * mixture @ centres + 0.4 * rng.normal(size=(len(COUNTRIES), width))[country]
    taste += 0.4 * rng.normal(size=(num, width))
    activity = rng.gamma(1.5, size=num) + 0.1
    log_tenure = rng.normal(5.5, 1.2, size=num)
    affinity = np.exp(1.2 * (taste @ centres.T) / np.sqrt(width))
    return Users(
        taste=taste,
        topic_affinity=affinity / affinity.sum(axis=1, keepdims=True),
        generosity=0.2 * (log_tenure - 5.5) + 0.4 * rng.normal(size=num),
        activity=activity / activity.sum(),
        country=country,
        tenure_days=np.floor(np.exp(log_tenure)),
    )


def _draw_videos(config: WorldConfig, centres: Floats, rng: np.random.Generator) -> Videos:
    num, width = config.num_videos, config.num_factors
    topic = rng.integers(len(TOPICS), size=num)
    num_uploaders = max(1, num // 10)
    uploader = rng.integers(num_uploaders, size=num)
    factors = centres[topic] + 0.5 * rng.normal(size=(num, width))
    quality = 0.6 * rng.normal(size=num_uploaders)[uploader] + 0.8 * rng.normal(size=num)
    clickbait = 0.6 * rng.normal(size=num_uploaders)[uploader] + 0.8 * rng.normal(size=num)
    pace = rng.normal(size=len(TOPICS))[topic]
    duration = np.clip(np.rint(240.0 * np.exp(0.5 * pace + 0.7 * rng.normal(size=num))), 10.0, 7200.0)
    truth = np.column_stack([factors, quality, clickbait])  # [V, F + 2]
    projection = rng.normal(size=(width + 2, config.content_size)) / np.sqrt(width + 2)
    content = truth @ projection + config.content_noise * rng.normal(size=(num, config.content_size))
    boost = np.where(rng.random(num) < config.agenda_share, rng.uniform(0.5, 1.5, size=num), 0.0)
    num_new = round(config.new_video_share * num)
    uploads = START_TIMESTAMP + config.days * SECONDS_A_DAY * np.sort(rng.random(num_new))
    before = START_TIMESTAMP - 365.0 * SECONDS_A_DAY * np.sort(rng.random(num - num_new))[::-1]
    return Videos(
        factors=factors,
        quality=quality,
        clickbait=clickbait,
        boost=boost,
        upload_timestamp=np.concatenate([before, uploads]),
        topic=topic,
        uploader=uploader,
        duration=duration,
        content=np.round(content, 3) + 0.0,  # + 0.0 turns -0.0, which JSON and Parquet print differently, into 0.0
    )
