"""The examples that experiments share: simulated worlds and public data sets, each built once.

They lie in `build/evidence/examples`, by what they were made of.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import yaml

from mmoe_ranker.config import Config
from mmoe_ranker.config_loading import dump_config, load_config, parse_config
from mmoe_ranker.simulation import SimulatedLogs, WorldConfig, simulate, write_logs
from pipelines.datasets import detect
from pipelines.impressions import run as build_examples
from tests.evidence.runs import made_once

_RANDOM_ORDER = {"name": "random_order", "side": "bias", "kind": "categorical", "vocabulary": ["false", "true"]}


@dataclasses.dataclass(frozen=True)
class SimulatedSet:
    """One run of a simulated world.

    Attributes:
      world: knobs that differ from the default world's, and their values.
      seed: of the world.
      requests: logged.
    """

    world: tuple[tuple[str, float], ...]
    seed: int
    requests: int

    def logs(self) -> SimulatedLogs:
        """The logs and the truth; the same whenever they are asked for."""
        return simulate(self.requests, self.seed, WorldConfig(**dict(self.world)))  # type: ignore[arg-type]

    def folder(self, root: Path) -> Path:
        """A folder with `logs` and `examples`, the examples by `simulated_config`."""
        knobs = "".join(f"-{name}{value:g}" for name, value in self.world)
        return made_once(root / "examples" / f"simulated-{self.requests}-{self.seed}{knobs}", self._make)

    def _make(self, folder: Path) -> None:
        write_logs(self.logs(), folder / "logs")
        _build(simulated_config(), folder)


def simulated_config(seed: int = 1, epochs: int | None = None, **model: Any) -> Config:
    """Preset `watch_next`, with the flag of requests in random order among the bias features.

    Args:
      seed: of the training.
      epochs: passes, or None for the preset's.
      **model: keys of section `model` in place of the preset's.
    """
    raw = yaml.safe_load(dump_config(load_config("watch_next")))
    if all(feature["name"] != _RANDOM_ORDER["name"] for feature in raw["features"]):
        raw["features"].append(_RANDOM_ORDER)
    raw["model"] |= model
    raw["training"] |= {"seed": seed} | ({} if epochs is None else {"epochs": epochs})
    return parse_config(raw)


def public_set(root: Path, name: str) -> Path:
    """A folder with `logs` and `examples` of a public data set, by its preset."""

    def make(folder: Path) -> None:
        raw = data_folder() / name
        detect(raw).convert(raw, folder / "logs")
        _build(load_config(name), folder)

    return made_once(root / "examples" / name, make)


def data_folder() -> Path:
    """Where the public data sets lie: MMOE_RANKER_DATA, or beside the checkout."""
    return Path(os.environ.get("MMOE_RANKER_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


def _build(config: Config, folder: Path) -> dict[str, Any]:
    logs = folder / "logs"
    sources = (str(logs / f"{name}.parquet") for name in ("impressions", "feedback"))
    return build_examples(config, *sources, str(folder / "examples"), [])
