"""What the README shows is read by the code that it speaks of."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from mmoe_ranker.cli import cli
from mmoe_ranker.config import Config
from mmoe_ranker.config_loading import parse_config

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_config_by_example_is_a_config() -> None:
    (text,) = _blocks("yaml")
    config = parse_config(yaml.safe_load(text))
    assert isinstance(config, Config)
    assert config.objective_names == ("click", "watch_time", "like", "dismiss")


def test_the_log_records_are_json() -> None:
    request, event = (json.loads(block) for block in _blocks("json"))
    assert request["impressions"][0]["item"]["video_id"] == event["item_id"]


def test_commands_and_their_options_exist() -> None:
    shown = [line.split("#")[0] for line in README.splitlines() if line.startswith("mmoe-ranker ") and "--" in line]
    assert {line.split()[1] for line in shown} == set(cli.commands)
    for line in shown:
        options = {option for parameter in cli.commands[line.split()[1]].params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", line)) <= options


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", README)) <= targets


@pytest.mark.parametrize("link", re.findall(r"\]\((?!http|#)([^)]+)\)", README))
def test_links_lead_to_files(link: str) -> None:
    assert (ROOT / link).exists()


def test_python_example_imports() -> None:
    (code,) = _blocks("python")
    for module, names in re.findall(r"^from (\S+) import (.+)$", code, re.MULTILINE):
        imported = __import__(module, fromlist=["_"])
        assert all(hasattr(imported, name.strip()) for name in names.split(","))
