"""What users do with a list: examine, click, watch, like, rate, dismiss; and the events that this leaves behind.

Only what is examined can be clicked or dismissed; only what is clicked is watched, liked or rated; what is liked is not
dismissed.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mmoe_ranker.simulation.population import Bools, Floats, Ints
    from mmoe_ranker.simulation.world import Preferences

EVENT_NAMES = ("click", "watch", "like", "rating", "dismiss")
RATED_SHARE = 0.1  # of clicks

# Beta(completion * k, (1 - completion) * k): at 3, few watch to the end and few leave at once, as one would expect.
_COMPLETION_CONCENTRATION = 3.0


@dataclasses.dataclass(frozen=True)
class Events:
    """Feedback events in order of time.

    Attributes:
      request: [N] request indices.
      slot: [N] 0-based places in the request's list.
      kind: [N] indices into EVENT_NAMES.
      value: [N] seconds for a watch, 1 to 5 for a rating, else 1.
      timestamp: [N] UTC seconds, to the millisecond, ascending.
    """

    request: Ints
    slot: Ints
    kind: Ints
    value: Floats
    timestamp: Floats


@dataclasses.dataclass(frozen=True)
class Responses:
    """What happened to each impression, [B, P]; delays are seconds after the request.

    Attributes:
      examined: whether it was looked at.
      clicked: whether it was clicked.
      watch_seconds: seconds watched, a tenth at least where clicked, 0 elsewhere.
      liked: whether it was liked.
      rating: 1 to 5, or 0 where not rated.
      dismissed: whether it was dismissed.
      delays: [5, B, P] delay of each of EVENT_NAMES, meaningful where that happened; a watch is logged when it ends.
    """

    examined: Bools
    clicked: Bools
    watch_seconds: Floats
    liked: Bools
    rating: Ints
    dismissed: Bools
    delays: Floats

    def events(self, timestamp: Floats) -> Events:
        """The feedback events, given the requests' timestamps [B]."""
        happened = (self.clicked, self.watch_seconds > 0, self.liked, self.rating > 0, self.dismissed)
        one = np.ones_like(self.watch_seconds)
        values = (one, self.watch_seconds, one, self.rating.astype(np.float64), one)
        places = [np.nonzero(mask) for mask in happened]
        request = np.concatenate([place[0] for place in places])
        slot = np.concatenate([place[1] for place in places])
        kind = np.repeat(np.arange(len(EVENT_NAMES)), [len(place[0]) for place in places])
        value = np.concatenate([of_kind[place] for of_kind, place in zip(values, places, strict=True)])
        delay = np.concatenate([of_kind[place] for of_kind, place in zip(self.delays, places, strict=True)])
        when = np.round(timestamp[request] + delay, 3)
        order = np.lexsort((kind, slot, request, when))
        return Events(request[order], slot[order], kind[order], value[order], when[order])


def respond(preferences: Preferences, examination: Floats, duration: Floats, rng: np.random.Generator) -> Responses:
    """Draws what users do.

    P(click) = examination * relevance; given a click, the watched share is Beta distributed with the mean
    `completion`, and the rating is 3.5 + 0.7 satisfaction + N(0, 0.8), rounded and cut to 1..5, for one click in ten.

    Args:
      preferences: of each impression, [B, P].
      examination: P(examined), [B, P].
      duration: the videos' seconds, [B, P].
      rng: chance; a draw for each impression, whatever happens, so that two policies share their luck.
    """
    shape = examination.shape
    examine, click, like, dismiss, rate = (rng.random(shape) for _ in range(5))
    hurry = rng.exponential(size=shape)
    examined = examine < examination
    clicked = examined & (click < preferences.relevance)
    liked = clicked & (like < preferences.like_probability)
    dismissed = examined & ~liked & (dismiss < preferences.dismiss_probability)

    where = np.nonzero(clicked)
    mean = preferences.completion[where]
    watched = rng.beta(_COMPLETION_CONCENTRATION * mean, _COMPLETION_CONCENTRATION * (1.0 - mean))
    watch_seconds = np.zeros(shape)
    watch_seconds[where] = np.maximum(0.1, np.round(watched * duration[where], 1))
    opinion = 3.5 + 0.7 * preferences.satisfaction[where] + 0.8 * rng.normal(size=len(mean))
    rating = np.zeros(shape, dtype=np.int64)
    rating[where] = np.where(rate[where] < RATED_SHARE, np.clip(np.rint(opinion), 1, 5), 0).astype(np.int64)

    # Further down is seen later; one event follows from the other, so their delays add up.
    delays = np.zeros((len(EVENT_NAMES), *shape))
    seen = 1.0 + 1.5 * np.arange(shape[1]) + 6.0 * hurry
    delays[0] = seen
    delays[1] = seen + watch_seconds
    delays[2][where] = seen[where] + rng.random(len(mean)) * watch_seconds[where]
    delays[3][where] = delays[1][where] + rng.lognormal(np.log(600.0), 1.0, size=len(mean))
    # A click that is dismissed as well is dismissed by who came back from it.
    delays[4] = delays[1] + 2.0 + 4.0 * hurry
    return Responses(examined, clicked, watch_seconds, liked, rating, dismissed, delays)
