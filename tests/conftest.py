"""Fixtures that many tests share: the config of the documentation, and one small world taken through every step."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

import mmoe_ranker  # noqa: F401  (the Keras guard, before anything imports TensorFlow)
from mmoe_ranker.config import Config
from mmoe_ranker.config_loading import load_config, parse_config
from mmoe_ranker.statistics import LabelStatistics, NumericStatistics, Statistics
from tests.configs import small_config


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts files of fast tests alone first: most mistakes are known in the first minutes."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path in slow)


@pytest.fixture
def config() -> Config:
    """A small config with every kind of feature and both kinds of objective."""
    return parse_config(small_config())


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    """The same config in a file."""
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(small_config()), encoding="utf-8")
    return path


@pytest.fixture
def statistics(config: Config) -> Statistics:
    """Statistics that fit `config`."""
    return Statistics(
        num_examples=1000,
        numeric={
            "duration": NumericStatistics(
                count=990, missing=10, mean=4.0, std=0.5, min=1.0, max=6.0, quantiles=(20.0, 60.0)
            )
        },
        labels={
            "click": LabelStatistics(count=1000, mean=0.2, std=0.4),
            "watch_time": LabelStatistics(count=200, mean=3.0, std=1.5),
            "like": LabelStatistics(count=1000, mean=0.01, std=0.1),
            "dismiss": LabelStatistics(count=1000, mean=0.02, std=0.14),
        },
        vocabularies={"device": ("phone", "tv", "web"), "video_id": tuple(f"v{index}" for index in range(20))},
    )


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of public data sets; tests that need it are skipped where it is absent."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("MMOE_RANKER_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no public data sets: set MMOE_RANKER_DATA (looked in {folder})")
    return folder


class TinyWorld:
    """Logs, examples, a trained workdir and a published model of a few hundred simulated requests."""

    def __init__(self, folder: Path) -> None:
        from mmoe_ranker.export import export
        from mmoe_ranker.simulation import simulate, write_logs
        from mmoe_ranker.training import train
        from pipelines.impressions import run
        from serving.verifying.verification import gate

        self.logs, self.examples = folder / "logs", folder / "examples"
        self.workdir, self.models = folder / "workdir", folder / "models"
        self.config = load_config(
            "watch_next",
            ["model.hidden=[32]", "model.sharing.units=[16]", "model.tower=[8]", "training.batch_size=256"],
        )
        write_logs(simulate(400, seed=3), self.logs)
        self.summary = run(
            self.config,
            str(self.logs / "impressions.jsonl"),
            str(self.logs / "feedback.jsonl"),
            str(self.examples),
            [],
        )
        self.result = train(self.config, self.examples, self.workdir)
        self.version = export(self.workdir, self.models, gate)


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    """One small world, taken through every step once for all tests."""
    return TinyWorld(tmp_path_factory.mktemp("tiny_world"))
