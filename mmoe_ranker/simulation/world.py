"""The world itself: what each user thinks of each video, and how far down a list users look.

Clickbait raises relevance and lowers every satisfaction, so that the objectives truly conflict. Formulas, with match,
quality and clickbait of unit variance and all of it unknown to the logs, and harm = conflict * clickbait:

  relevance            = sigmoid(-1.7 + match + 0.8 clickbait + 0.5 quality)          P(click | examined)
  satisfaction         = 0.6 match + quality - 1.2 harm
  like_probability     = sigmoid(-4.6 + satisfaction + generosity)                    P(like | click)
  completion           = sigmoid(0.5 satisfaction - 0.4 ln(duration / 240 s) + device)  E[watched share | click]
  dismiss_probability  = sigmoid(-3.9 - 0.7 match - 0.5 quality + 0.7 harm)           P(dismiss | examined, not liked)

The click follows the position-based model, P(click) = examination(device, position) * relevance(user, video):
Richardson et al., "Predicting Clicks" (WWW 2007), sec. 5.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from mmoe_ranker.errors import InputError
from mmoe_ranker.simulation import behaviour
from mmoe_ranker.simulation.population import Floats, Ints, draw_population
from mmoe_ranker.simulation.world_config import WorldConfig

_DEVICE_COMPLETION = np.array([-0.3, 0.0, 0.6])


@dataclasses.dataclass(frozen=True)
class Preferences:
    """What users think of videos, before chance: the module's formulas, each [B, P].

    Attributes:
      relevance: P(click | examined).
      satisfaction: about 0 on average, spread about 1.7.
      like_probability: P(like | click).
      completion: E[watched share | click].
      expected_watch: E[seconds watched | click].
      dismiss_probability: P(dismiss | examined, not liked).
    """

    relevance: Floats
    satisfaction: Floats
    like_probability: Floats
    completion: Floats
    expected_watch: Floats
    dismiss_probability: Floats


class World:
    """Users and videos drawn once from a seed; it answers for any list that any policy shows.

    Example:
      >>> world = World(WorldConfig(), seed=1)
      >>> responses = world.respond(np.array([7]), np.array([[3, 11]]), np.array([0]), np.random.default_rng(2))
      >>> responses.clicked.shape
      (1, 2)

    Args:
      config: the knobs.
      seed: the world's randomness; the same seed and config give the same world, and the logging ranker's knobs
        (`alignment`, `agenda`, `noise`, `random_share`) do not change it.
    """

    def __init__(self, config: WorldConfig, seed: int) -> None:
        self.config = config
        self.seed = seed
        rng = np.random.default_rng([seed, 0])
        self.users, self.videos = draw_population(config, rng)
        # Enough pairs for two digits, which is all that standardising needs.
        user_idx, video_idx = rng.integers(config.num_users, size=20000), rng.integers(config.num_videos, size=20000)
        raw = np.einsum("nf,nf->n", self.users.taste[user_idx], self.videos.factors[video_idx])
        self._match_mean, self._match_std = raw.mean(), raw.std()
        logit = self.relevance_logit(user_idx, video_idx)
        self._logit_mean, self._logit_std = logit.mean(), logit.std()
        self._examination = _examination_curves(config.positions)

    def relevance_logit(self, user_idx: npt.ArrayLike, video_idx: npt.ArrayLike) -> Floats:
        """Logit of `relevance`, same arguments and shape [N]."""
        _, video = _aligned(user_idx, video_idx)
        return self._relevance_logit(self._match(user_idx, video_idx), video)

    def relevance(self, user_idx: npt.ArrayLike, video_idx: npt.ArrayLike) -> Floats:
        """P(click | examined) of each user for each video.

        Args:
          user_idx: [B] (or any leading dimensions of `video_idx`) user indices.
          video_idx: [B, P] video indices.

        Returns:
          [B, P] probabilities.
        """
        return sigmoid(self.relevance_logit(user_idx, video_idx))

    def standardised_relevance(self, user_idx: npt.ArrayLike, video_idx: npt.ArrayLike) -> Floats:
        """The relevance logit less its mean, over its deviation, among random pairs: the logging ranker's z; [B, P]."""
        return (self.relevance_logit(user_idx, video_idx) - self._logit_mean) / self._logit_std

    def examination(self, device: npt.ArrayLike, position: npt.ArrayLike) -> Floats:
        """P(examined) of each position on each device, [N]; the arguments broadcast.

        Args:
          device: indices into DEVICES.
          position: positions from 1 to `config.positions`.

        Raises:
          InputError: a position that the world has no curve for.
        """
        position, device = np.asarray(position), np.asarray(device)
        if position.size and (position.min() < 1 or position.max() > self.config.positions):
            outside = position.min() if position.min() < 1 else position.max()
            raise InputError(
                f"`position` must be from 1 to {self.config.positions} in this world. Received: {outside}."
            )
        return self._examination[device, position - 1]

    def preferences(self, user_idx: npt.ArrayLike, video_idx: npt.ArrayLike, device: npt.ArrayLike) -> Preferences:
        """All preferences of users for videos.

        Args:
          user_idx: [B] user indices.
          video_idx: [B, P] video indices.
          device: [B] indices into DEVICES; it moves how much is watched.
        """
        user, video = _aligned(user_idx, video_idx)
        on_device, _ = _aligned(device, video_idx)
        match = self._match(user_idx, video_idx)
        quality, clickbait = self.videos.quality[video], self.videos.clickbait[video]
        duration = self.videos.duration[video]
        harm = self.config.conflict * clickbait
        satisfaction = 0.6 * match + quality - 1.2 * harm
        completion = sigmoid(0.5 * satisfaction - 0.4 * np.log(duration / 240.0) + _DEVICE_COMPLETION[on_device])
        return Preferences(
            relevance=sigmoid(self._relevance_logit(match, video)),
            satisfaction=satisfaction,
            like_probability=sigmoid(-4.6 + satisfaction + self.users.generosity[user]),
            completion=completion,
            expected_watch=completion * duration,
            dismiss_probability=sigmoid(-3.9 - 0.7 * match - 0.5 * quality + 0.7 * harm),
        )

    def respond(
        self, user_idx: npt.ArrayLike, video_idx: npt.ArrayLike, device: npt.ArrayLike, rng: np.random.Generator
    ) -> behaviour.Responses:
        """What users do with the lists that they are shown.

        Args:
          user_idx: [B] user indices.
          video_idx: [B, P] videos in the order shown, P at most `config.positions`.
          device: [B] indices into DEVICES.
          rng: chance; the same state gives two policies the same luck at each position.
        """
        video_idx, device = np.asarray(video_idx), np.asarray(device)
        examination = self.examination(device[:, None], np.arange(1, video_idx.shape[1] + 1))
        preferences = self.preferences(user_idx, video_idx, device)
        return behaviour.respond(preferences, examination, self.videos.duration[video_idx], rng)

    def _match(self, user_idx: npt.ArrayLike, video_idx: npt.ArrayLike) -> Floats:
        user, video = _aligned(user_idx, video_idx)
        raw = np.einsum("...f,...f->...", self.users.taste[user], self.videos.factors[video])
        return (raw - self._match_mean) / self._match_std

    def _relevance_logit(self, match: Floats, video: Ints) -> Floats:
        return -1.7 + match + 0.8 * self.videos.clickbait[video] + 0.5 * self.videos.quality[video]


def sigmoid(logit: Floats) -> Floats:
    """1 / (1 + exp(-logit)), element by element of logits [N] or of any shape."""
    return 1.0 / (1.0 + np.exp(-logit))


def _aligned(leading: npt.ArrayLike, full: npt.ArrayLike) -> tuple[Ints, Ints]:
    leading, full = np.asarray(leading), np.asarray(full)
    return leading.reshape(leading.shape + (1,) * (full.ndim - leading.ndim)), full


def _examination_curves(positions: int) -> Floats:
    """P(examined), [device, position]: each strictly falling, each from a screen of its own.

    A phone is scrolled: attention decays by a constant factor. The web shows a column: half a power law, so that the
    first few stand out. A TV shows rows of five: little is lost within a row, much from row to row.
    """
    index = np.arange(positions)
    phone = 0.97 * 0.87**index
    web = 0.99 * 0.95**index * (1.0 + index) ** -0.5
    tv = 0.95 * 0.94**index * 0.75 ** (index // 5)
    return np.stack([phone, web, tv])
