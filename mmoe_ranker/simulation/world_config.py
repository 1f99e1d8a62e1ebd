"""The knobs of the simulated world, checked, and the fixed names that its logs use."""

from __future__ import annotations

import dataclasses
import math

from mmoe_ranker.errors import InputError

DEVICES = ("phone", "web", "tv")
COUNTRIES = ("US", "IN", "BR", "JP", "DE", "GB", "FR", "MX")
TOPICS = ("music", "gaming", "news", "sports", "cooking", "tech", "travel", "comedy", "film", "howto", "beauty", "cars")
# 2022-04-27 00:00 UTC: logs start on a day's boundary, so that `hour` and the split by days are easy to read.
START_TIMESTAMP = 1651017600.0
MAX_POSITIONS = 100


@dataclasses.dataclass(frozen=True)
class WorldConfig:
    """What the world is made of, and how its logging ranker orders candidates.

    The logging ranker's score of a candidate is
    `alignment * z + agenda * boost + noise * N(0, 1)`,
    where z is the standardised logit of the true relevance and boost is 0 for most videos and 0.5 to 1.5 for a share
    `agenda_share` of them, chosen with no regard to what users like.

    Attributes:
      num_users: users.
      num_videos: videos, the ones uploaded during the log included.
      num_factors: width of the latent taste space.
      content_size: width of the logged content vectors, a noisy view of the latent space, quality and clickbait.
      content_noise: standard deviation of that noise, per entry, where the signal's is about 1.
      positions: impressions of a request, at positions 1 to `positions`.
      candidates: videos that the logging ranker orders for a request, of which it shows the first `positions`.
      history_length: most recent watches logged with a request.
      days: length of the log.
      conflict: how much clickbait, which draws clicks, takes from satisfaction; 0 is nothing.
      new_video_share: share of the videos uploaded during the log rather than before it.
      alignment: how far the logging ranker follows relevance; 0 is not at all.
      agenda: how far it follows its own agenda; 0 is not at all.
      noise: how far it follows nothing; position varies for one and the same video because of it.
      agenda_share: share of the videos that the agenda boosts.
      random_share: share of requests shown in random order, flagged in the log.
    """

    num_users: int = 2000
    num_videos: int = 2000
    num_factors: int = 8
    content_size: int = 16
    content_noise: float = 0.5
    positions: int = 20
    candidates: int = 100
    history_length: int = 30
    days: int = 14
    conflict: float = 1.0
    new_video_share: float = 0.05
    alignment: float = 0.6
    agenda: float = 2.0
    noise: float = 0.7
    agenda_share: float = 0.2
    random_share: float = 0.05

    def __post_init__(self) -> None:
        for name in ("num_users", "num_factors", "content_size", "history_length", "days"):
            self._require(name, "an integer of at least 1", _is_integer(getattr(self, name), 1))
        self._require(
            "positions", f"an integer from 2 to {MAX_POSITIONS}", _is_integer(self.positions, 2, MAX_POSITIONS)
        )
        least = 2 * self.positions
        self._require(
            "candidates",
            f"an integer of at least {least}, twice `positions`",
            _is_integer(self.candidates, least),
        )
        for name in ("alignment", "agenda", "noise", "content_noise", "conflict"):
            self._require(name, "a finite number of at least 0", _is_number(getattr(self, name), 0.0, math.inf))
        for name in ("agenda_share", "random_share"):
            self._require(name, "a number from 0 to 1", _is_number(getattr(self, name), 0.0, 1.0))
        self._require("new_video_share", "a number from 0 to 0.5", _is_number(self.new_video_share, 0.0, 0.5))
        # Videos uploaded before the first request must fill a request's candidates by themselves.
        least = math.ceil(self.candidates / (1.0 - self.new_video_share)) + 1
        self._require(
            "num_videos",
            f"an integer of at least {least} with `candidates` {self.candidates}"
            f" and `new_video_share` {self.new_video_share}",
            _is_integer(self.num_videos, least),
        )

    def _require(self, name: str, allowed: str, holds: bool) -> None:
        if not holds:
            raise InputError(f"`{name}` of the simulated world must be {allowed}. Received: {getattr(self, name)!r}.")


def _is_integer(value: object, least: int, most: int | None = None) -> bool:
    if not isinstance(value, int) or isinstance(value, bool):
        return False
    return value >= least and (most is None or value <= most)


def _is_number(value: object, least: float, most: float) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return math.isfinite(value) and least <= value <= most


DEFAULT_WORLD = WorldConfig()
