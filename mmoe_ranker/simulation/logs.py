"""One run of the world: requests, the lists shown, what users did, and the watch histories as of each request."""

from __future__ import annotations

import dataclasses

import numpy as np

from mmoe_ranker.errors import InputError
from mmoe_ranker.simulation.behaviour import EVENT_NAMES, Events
from mmoe_ranker.simulation.logging_ranker import rank_candidates
from mmoe_ranker.simulation.population import Bools, Floats, Ints
from mmoe_ranker.simulation.requests import draw_requests
from mmoe_ranker.simulation.world import Preferences, World
from mmoe_ranker.simulation.world_config import DEFAULT_WORLD, WorldConfig


@dataclasses.dataclass(frozen=True)
class Histories:
    """Watch histories of all requests, each a slice of one array: `videos[begin[b]:end[b]]`, oldest first.

    Attributes:
      videos: [watches] video indices, by user, then by the time that the watch ended.
      begin: [B] first index of the slice.
      end: [B] one past the last.
    """

    videos: Ints
    begin: Ints
    end: Ints


@dataclasses.dataclass(frozen=True)
class SimulatedLogs:
    """The logs and, beside them, the truth. B requests in order of time, P positions.

    Attributes:
      world: who and what took part.
      timestamp: [B] UTC seconds, to the millisecond, ascending.
      user: [B] user indices.
      device: [B] indices into DEVICES.
      random_order: [B] whether the list was shown in random order.
      shown: [B, P] video indices, the first at position 1.
      histories: what the user had watched before each request.
      events: the feedback.
      preferences: the truth of each impression, [B, P].
      examination: the truth, P(examined) of each impression, [B, P].
    """

    world: World
    timestamp: Floats
    user: Ints
    device: Ints
    random_order: Bools
    shown: Ints
    histories: Histories
    events: Events
    preferences: Preferences
    examination: Floats

    @property
    def request_ids(self) -> list[str]:
        """Request ids, of equal length, so that their order as text is the order of time."""
        width = max(7, len(str(len(self.user))))
        return [f"r{index:0{width}d}" for index in range(len(self.user))]


def simulate(num_requests: int = 20_000, seed: int = 1, world: WorldConfig = DEFAULT_WORLD) -> SimulatedLogs:
    """Draws a world and lets its users ask, look, click, watch, like, rate and dismiss.

    Deterministic in its arguments. World, requests, ranking and behaviour draw from streams of their own: changing a
    knob of the logging ranker leaves users, videos, requests and candidates as they are.

    Args:
      num_requests: B, at least 1; 20,000 make 400,000 impressions with the default world.
      seed: at least 0.
      world: the knobs.

    Raises:
      InputError: `num_requests` or `seed` is out of range.
    """
    for name, value, least in (("num_requests", num_requests, 1), ("seed", seed, 0)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise InputError(f"`{name}` must be an integer of at least {least}. Received: {value!r}.")
    drawn = World(world, seed)
    requests = draw_requests(drawn, num_requests, np.random.default_rng([seed, 1]))
    shown, random_order = rank_candidates(drawn, requests, np.random.default_rng([seed, 2]))
    responses = drawn.respond(requests.user, shown, requests.device, np.random.default_rng([seed, 3]))
    events = responses.events(requests.timestamp)
    return SimulatedLogs(
        world=drawn,
        timestamp=requests.timestamp,
        user=requests.user,
        device=requests.device,
        random_order=random_order,
        shown=shown,
        histories=watch_histories(requests.timestamp, requests.user, shown, events, world.history_length),
        events=events,
        preferences=drawn.preferences(requests.user, shown, requests.device),
        examination=drawn.examination(requests.device[:, None], np.arange(1, world.positions + 1)),
    )


def watch_histories(timestamp: Floats, user: Ints, shown: Ints, events: Events, max_length: int) -> Histories:
    """The videos whose watch was logged strictly before each request, the `max_length` most recent ones.

    Args:
      timestamp: [B] of the requests.
      user: [B] user indices.
      shown: [B, P] video indices.
      events: the feedback of these requests.
      max_length: longest history.
    """
    is_watch = events.kind == EVENT_NAMES.index("watch")
    request, slot, ended = events.request[is_watch], events.slot[is_watch], events.timestamp[is_watch]
    by_user = np.lexsort((ended, user[request]))
    videos, watcher = shown[request, slot][by_user], user[request][by_user]
    # One merge of watches and requests per user; at a tie the request comes first and does not see the watch.
    all_users = np.concatenate([user, user[request]])
    all_times = np.concatenate([timestamp, ended])
    watched = np.repeat([0, 1], [len(user), len(ended)])
    merged = np.lexsort((watched, all_times, all_users))
    watches_so_far = np.cumsum(watched[merged])
    end = np.empty(len(merged), dtype=np.int64)
    end[merged] = watches_so_far
    end = end[: len(user)]
    first = np.searchsorted(watcher, user, side="left")
    return Histories(videos, np.maximum(first, end - max_length), end)
