"""The config: what is read, from which files, and how it is overridden."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from mmoe_ranker.config import Config
from mmoe_ranker.config_loading import dump_config, load_config, parse_config, preset_names
from mmoe_ranker.config_model import MMoE, SharedBottom
from mmoe_ranker.errors import InputError
from tests.configs import small_config
from tests.refusals import refusal


def test_typed_frozen_and_defaulted(config: Config) -> None:
    assert config.model.sharing == MMoE(experts=4, units=(8,), gate_dropout=0.1)
    assert config.objective_names == ("click", "watch_time", "like", "dismiss")
    assert [feature.name for feature in config.served_features][-1] == "content"
    assert [feature.name for feature in config.side("bias")] == ["position"]
    with pytest.raises(ValidationError):
        config.training.epochs = 3  # type: ignore[misc]


def test_dump_is_read_back(config: Config) -> None:
    assert parse_config(yaml.safe_load(dump_config(config))) == config


@pytest.mark.parametrize("name", preset_names())
def test_presets_are_valid(name: str) -> None:
    assert load_config(name).name == name


def test_overrides_reach_sections_and_entries_by_name_or_index(config_file: Path) -> None:
    config = load_config(
        config_file,
        ["training.epochs=3", "features.video_id.dim=5", "features.0.dim=7", "evaluation.ndcg_k=4"],
    )
    assert (config.training.epochs, config.feature("video_id").dim, config.feature("user_id").dim) == (3, 5, 7)  # type: ignore[union-attr]
    assert config.evaluation.ndcg_k == 4
    sharing = load_config(config_file, ["model.sharing={kind: shared_bottom, units: [32]}"]).model.sharing
    assert sharing == SharedBottom(kind="shared_bottom", units=(32,))


@pytest.mark.parametrize(
    ("override", "rule", "received"),
    [
        ("training.epochs", "must read key.path=value", "'training.epochs'"),
        ("training.epochs.deep=1", "must lead into a mapping, but `training.epochs` is a value", "1"),
        ("features.foo.dim=3", "must name an entry of its list; allowed: user_id, device", "'foo'"),
        ("training.epochs=[1", "must be YAML", "'[1'"),
    ],
)
def test_overrides_that_lead_nowhere(config_file: Path, override: str, rule: str, received: str) -> None:
    message = refusal(config_file, override)
    assert rule in message
    assert message.endswith(f"Received: {received}.")


@pytest.mark.parametrize(
    ("text", "received"), [("- 1\n", "list"), ("a: [\n", "while parsing"), ("", "NoneType"), ("\tb", "while scanning")]
)
def test_file_must_be_a_yaml_mapping(tmp_path: Path, text: str, received: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="must be a YAML mapping") as error:
        load_config(path)
    assert f"Received: {received}" in str(error.value)


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("name: a\ntraining: {epochs: 1, epochs: 2}\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"key 'epochs' stands twice in one mapping.*line 2, column 23"):
        load_config(path)


def test_yaml_merges_and_odd_keys(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    text = yaml.safe_dump(small_config()) + "evaluation: {<<: {ndcg_k: 7}, slices: [device]}\n"
    path.write_text(text, encoding="utf-8")
    assert load_config(path).evaluation.ndcg_k == 7
    for odd in ("? [a, b]\n: 1\n", "? {a: 1}\n: 1\n", "[" * 3000):
        path.write_text(odd, encoding="utf-8")
        with pytest.raises(InputError, match="must be a YAML mapping"):
            load_config(path)


def test_missing_file_names_the_presets(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a preset \(.*watch_next") as error:
        load_config(tmp_path / "none.yaml")
    assert str(error.value).endswith("none.yaml'.")
