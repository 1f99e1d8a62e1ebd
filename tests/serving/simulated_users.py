"""Users of a simulated world in front of a ranking client: they ask, are shown lists, and react to what they see.

Shapes: B requests, C candidates, P positions shown.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from mmoe_ranker import metrics
from mmoe_ranker.simulation import EVENT_NAMES, Requests, World, context_columns, draw_requests, item_columns
from mmoe_ranker.simulation.logs import Histories
from serving.client import RankingClient

_THREADS = 4
# Not of a round, so that fresh requests are the same for every version.
_FRESH = 1_000_000


class SimulatedUsers:
    """The users of one world.

    Args:
        world: Who asks.
        context: The context features that requests have.
    """

    def __init__(self, world: World, context: list[str]) -> None:
        self._world = world
        self._context = context
        columns = item_columns(world.videos)
        self._items = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def use(self, client: RankingClient, number: int, round_number: int, feedback: Path) -> dict[str, list[str]]:
        """Asks for `number` lists, looks at the first places of each, and logs what was done to `feedback`.

        Returns:
            The items shown by request id, best first.
        """
        requests = self._draw(number, round_number)
        positions = self._world.config.positions

        def show(row: int) -> tuple[str, list[int], float]:
            answer = client.rank(self._request(requests, row), request_id=f"round {round_number} request {row}")
            shown = [int(candidate["video_id"].removeprefix("v")) for candidate in answer["ranking"][:positions]]
            return answer["request_id"], shown, time.time()

        with ThreadPoolExecutor(_THREADS) as threads:
            ids, shown, seen = zip(*threads.map(show, range(number)), strict=True)
        luck = np.random.default_rng([self._world.seed, 20, round_number])
        responses = self._world.respond(requests.user, np.array(shown), requests.device, luck)
        events = responses.events(np.array(seen))
        with feedback.open("w", encoding="utf-8") as file:
            for request, slot, kind, value, timestamp in zip(
                events.request, events.slot, events.kind, events.value, events.timestamp, strict=True
            ):
                event = {"request_id": ids[request], "item_id": f"v{shown[request][slot]}", "event": EVENT_NAMES[kind]}
                file.write(json.dumps(event | {"value": float(value), "timestamp": float(timestamp)}) + "\n")
        return {request_id: [f"v{video}" for video in videos] for request_id, videos in zip(ids, shown, strict=True)}

    def fresh_requests(self, number: int) -> list[dict[str, Any]]:
        """Requests that nobody was shown an answer to."""
        requests = self._draw(number, _FRESH)
        return [self._request(requests, row) for row in range(number)]

    def ndcg(self, client: RankingClient, number: int) -> float:
        """NDCG@10 of the served click prediction on fresh requests, against their users' true relevance."""
        requests = self._draw(number, _FRESH)
        with ThreadPoolExecutor(_THREADS) as threads:
            answers = list(threads.map(lambda row: client.rank(self._request(requests, row)), range(number)))
        relevance, clicks, lists = [], [], []
        for row, answer in enumerate(answers):
            videos = np.array([int(candidate["video_id"].removeprefix("v")) for candidate in answer["ranking"]])
            relevance.append(self._world.relevance(requests.user[row], videos))
            clicks.append([candidate["click"] for candidate in answer["ranking"]])
            lists.append(np.full(len(videos), row))
        return metrics.ndcg(np.concatenate(relevance), np.concatenate(clicks), np.concatenate(lists), k=10).value

    def _draw(self, number: int, stream: int) -> Requests:
        return draw_requests(self._world, number, np.random.default_rng([self._world.seed, 21, stream]))

    def _request(self, requests: Requests, row: int) -> dict[str, Any]:
        one = slice(row, row + 1)
        nothing = Histories(np.empty(0, np.int64), np.zeros(1, np.int64), np.zeros(1, np.int64))
        columns = context_columns(
            self._world, requests.timestamp[one], requests.user[one], requests.device[one], nothing
        )
        videos = requests.candidates[row][requests.eligible[row]]
        return {
            "context": {name: columns[name][0] for name in self._context},
            "candidates": [self._items[video] for video in videos],
        }
