"""A log with nothing to find in it, to plant faults in; and `check` without Beam, for many small logs."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from mmoe_ranker.config import Config
from mmoe_ranker.config_loading import parse_config
from pipelines.checking.figures import figures_of
from pipelines.checking.findings import findings
from pipelines.checking.job import CheckReport
from pipelines.checking.measures import Measures
from pipelines.checking.measuring import measure_part
from pipelines.joining import join
from pipelines.log_tables import feedback, nested_impressions
from pipelines.splits import TimeHistogram, draws, hashed_split, plan_parts
from tests.configs import small_config

Record = dict[str, Any]

NUM_REQUESTS = 1500
POSITIONS = 5
DAYS = 5
START = 1_651_017_600
LATE = NUM_REQUESTS * 8 // 10
"""The first request of the validation split."""
EXAMINATION = (1.0, 0.8, 0.6, 0.5, 0.4)


class Log:
    """A config as a mapping, requests and events: a new copy each time, so that a test may plant what it likes."""

    def __init__(self) -> None:
        self.config, self.records, self.events = copy.deepcopy(_CONFIG), json.loads(_RECORDS), json.loads(_EVENTS)

    def feature(self, name: str) -> Record:
        return next(feature for feature in self.config["features"] if feature["name"] == name)

    def objective(self, name: str) -> Record:
        return next(objective for objective in self.config["objectives"] if objective["name"] == name)

    @property
    def items(self) -> list[Record]:
        return [impression["item"] for record in self.records for impression in record["impressions"]]

    def parsed(self) -> Config:
        return parse_config(self.config)

    def check(self) -> CheckReport:
        """What `pipelines.checking.job.run` reports, but for what is counted of records that are refused."""
        return check_tables(self.parsed(), pa.Table.from_pylist(self.records), pa.Table.from_pylist(self.events))


class Fault(NamedTuple):
    """What spoils a log; severity, code and subject of every finding then; words of one of them, with its figure."""

    plant: Callable[[Log], None]
    findings: list[tuple[str, str, str]]
    figure: str


def check_tables(config: Config, records: pa.Table, events: pa.Table) -> CheckReport:
    """Checks well-formed logs in this process: the same steps as the job's, one after the other."""
    batch, suspect = nested_impressions(config, records, np.arange(records.num_rows))
    table, suspect_events, ignored = feedback(config, events)
    assert not suspect.any()
    assert not suspect_events.any()
    counts: Counter[tuple[str, ...]] = Counter(
        {
            ("impressions", "records"): records.num_rows,
            ("impressions", "rows"): batch.impressions.num_rows,
            ("feedback", "records"): events.num_rows,
            **{("feedback", "ignored", name): many for name, many in ignored.items()},
        }
    )
    joined = join(config, [batch], [table])
    counts.update(joined.counts)
    plan = plan_parts(config, 6, TimeHistogram.of_batch(config, joined.batch))
    contexts = joined.batch.contexts
    of_context = plan.part_of(hashed_split(config, contexts), contexts["_time"].to_numpy(), draws(contexts))
    parts = of_context[joined.batch.impressions["_row"].to_numpy()]
    measured = [
        measure_part(config, plan.parts[place].split, joined.batch.take(np.flatnonzero(parts == place)))
        for place in np.unique(parts)
    ]
    seen = table.to_pandas().groupby("_event")["_time"].agg(["min", "max"])
    event_times = {name: (int(row["min"]), int(row["max"])) for name, row in seen.iterrows()}
    figures = figures_of(config, counts, Measures.merge(measured), event_times)
    return CheckReport(figures, findings(config, figures))


def clean_config() -> Record:
    """The small config, such that nothing is to be said about it."""
    config = small_config()
    for feature in config["features"]:
        if feature["name"] == "device":
            feature["dim"] = 2
    return config


def _clean_log() -> tuple[list[Record], list[Record]]:
    """Random lists of 40 videos of different appeal, at all hours of five days."""
    rng = np.random.default_rng(5)
    videos = [f"v{video}" for video in range(40)]
    appeal = rng.uniform(0.2, 0.6, len(videos))
    duration, content = rng.integers(20, 200, len(videos)), rng.normal(size=(len(videos), 6))
    records, events = [], []
    for number in range(NUM_REQUESTS):
        time = START + number * DAYS * 86_400 // NUM_REQUESTS
        shown = rng.choice(len(videos), size=POSITIONS, replace=False)
        context = {
            "user_id": f"u{rng.integers(20)}",
            "device": str(rng.choice(["phone", "tv"])),
            "watch_history": [videos[video] for video in rng.integers(len(videos), size=rng.integers(5))],
        }
        listed = []
        for place, video in enumerate(shown):
            item = {"video_id": videos[video], "duration": float(duration[video]), "content": content[video].tolist()}
            listed.append({"position": place + 1, "item": item})
            key = {"request_id": f"r{number}", "item_id": videos[video]}
            if rng.random() < appeal[video] * EXAMINATION[place]:
                events.append({**key, "event": "click", "value": None, "timestamp": time + 5})
                watched = float(np.exp(rng.normal(3.0, 1.0)))
                events.append({**key, "event": "watch", "value": watched, "timestamp": time + 60})
            for name, rate in (("like", 0.1), ("dismiss", 0.08)):
                if rng.random() < rate:
                    events.append({**key, "event": name, "value": None, "timestamp": time + 30})
        records.append({"request_id": f"r{number}", "timestamp": time, "context": context, "impressions": listed})
    return records, events


_CONFIG = clean_config()
_RECORDS, _EVENTS = (json.dumps(rows) for rows in _clean_log())
