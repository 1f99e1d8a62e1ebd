"""A simulated world with known truth: users, videos, a biased logging ranker, and the logs that they leave behind.

Real logs never say what users would have clicked at another position. This world does, so that a model's learned
position bias and its ranking can be held against the truth.

  world_config     the knobs;                       population  users and videos
  world            preferences and examination
  requests         who asks, when, with what candidates
  logging_ranker   the order that was shown;        behaviour   what users did with it
  logs             one run of the world, columnar;  log_files   the same as JSON lines and Parquet, the truth apart

Shapes: B requests, C candidates a request, P positions shown, N events.
"""

from mmoe_ranker.simulation.behaviour import EVENT_NAMES, Events, Responses
from mmoe_ranker.simulation.log_files import context_columns, item_columns, write_logs
from mmoe_ranker.simulation.logs import Histories, SimulatedLogs, simulate, watch_histories
from mmoe_ranker.simulation.population import Users, Videos
from mmoe_ranker.simulation.requests import Requests, draw_requests
from mmoe_ranker.simulation.world import Preferences, World
from mmoe_ranker.simulation.world_config import DEVICES, START_TIMESTAMP, WorldConfig

__all__ = [
    "DEVICES",
    "EVENT_NAMES",
    "START_TIMESTAMP",
    "Events",
    "Histories",
    "Preferences",
    "Requests",
    "Responses",
    "SimulatedLogs",
    "Users",
    "Videos",
    "World",
    "WorldConfig",
    "context_columns",
    "draw_requests",
    "item_columns",
    "simulate",
    "watch_histories",
    "write_logs",
]
