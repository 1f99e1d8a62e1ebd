"""docs/running_the_server.md: what can be run of it is run, what can be parsed is parsed, what it names is there."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from google.protobuf import text_format

from mmoe_ranker.cli import cli
from serving.metrics import ServerMetrics
from serving.versions import ModelVersions, State
from tests.serving.ranker_requests import CANDIDATES, CONTEXT, serving
from tests.serving.tensorflow_serving_files import FLAGS, MESSAGES
from tests.serving.test_kubernetes import BY_KIND, CONTAINER

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "running_the_server.md").read_text(encoding="utf-8")


def blocks(language: str, section: str = "") -> list[str]:
    """The fenced blocks of a language, in the section of that heading or all."""
    text = TEXT.split(f"\n## {section}\n")[1].split("\n## ")[0] if section else TEXT
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def bash(script: str, folder: Path, **environment: str) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin:/usr/local/bin", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_commands_and_their_options_exist():
    lines = "\n".join(blocks("bash")).replace("\\\n", " ").splitlines()
    commands = [line.split() for line in lines if line.startswith("mmoe-ranker ")]
    commands += [code.split() for code in re.findall(r"`(mmoe-ranker \w+ --[^`]*)`", " ".join(TEXT.split()))]
    assert {words[1] for words in commands} == {"export", "rank", "serve", "examples"}
    for words in commands:
        options = {option for parameter in cli.commands[words[1]].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options


def test_flags_are_tf_servings():
    ours = {option for command in cli.commands.values() for parameter in command.params for option in parameter.opts}
    kubectls = {"--dry-run", "--from-file", "--replicas"}
    named = set(re.findall(r"--[a-z_-]{4,}", TEXT)) - ours - kubectls
    assert named
    assert {flag.removeprefix("--") for flag in named} <= FLAGS


@pytest.mark.parametrize("block", blocks("protobuf ModelServerConfig"))
def test_model_configs_parse_and_keep_tf_servings_rules(block: str):
    (config,) = text_format.Parse(block, MESSAGES["ModelServerConfig"]()).model_config_list.config
    versions = set(config.model_version_policy.specific.versions)
    assert versions
    assert set(config.version_labels.values()) <= versions


@pytest.mark.parametrize("link", re.findall(r"\]\((?!http)([^)#]*)(#[^)]+)?\)", TEXT), ids="".join)
def test_links_lead_to_files_and_headings(link: tuple[str, str]):
    file, heading = link
    assert (ROOT / "docs" / file).exists()
    headings = {"#" + title.lower().replace(" ", "-") for title in re.findall(r"^## (.*)$", TEXT, re.MULTILINE)}
    assert not heading or heading in headings


def test_metrics_are_those_that_are_shown():
    shown = set(re.findall(r"^# TYPE (\S+)", ServerMetrics("ranker").exposition().decode(), re.MULTILINE))
    named = set(re.findall(r"`(:[\w:]+)`", TEXT))
    assert len(named) >= 7
    assert named <= shown


def served_version(versions: ModelVersions) -> int:
    return max(status.version for status in versions.statuses() if status.state is State.AVAILABLE)


@pytest.fixture
def versions(exports: Path, tmp_path: Path) -> Iterator[ModelVersions]:
    """Versions 1 and 2 of a model, of which a server has 2."""
    for number in (1, 2):
        shutil.copytree(exports / "two", tmp_path / "models" / str(number))
    running = ModelVersions("m", tmp_path / "models", poll_seconds=0.05)
    running.start()
    assert served_version(running) == 2
    yield running
    running.stop()


def until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 30
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def test_publishing_by_hand(versions: ModelVersions, exports: Path, tmp_path: Path):
    (script,) = (block for block in blocks("bash", "Publish") if "mv " in block)
    shutil.copytree(exports / "three", tmp_path / "exported")
    bash(script, tmp_path, VERSION="7")
    assert until(lambda: served_version(versions) == 7)


def test_taking_a_bad_version_away_brings_the_one_before_back(versions: ModelVersions, tmp_path: Path):
    bash(blocks("bash", "Roll back")[0], tmp_path, BAD="2")
    assert until(lambda: served_version(versions) == 1)
    assert sorted(entry.name for entry in (tmp_path / "models").iterdir()) == [".bad-2", "1"]


def test_publishing_a_good_version_again(versions: ModelVersions, tmp_path: Path):
    before = int(time.time())
    bash(blocks("bash", "Roll back")[1], tmp_path, GOOD="1")
    assert until(lambda: served_version(versions) >= before)
    assert {entry.name for entry in (tmp_path / "models").iterdir()} == {"1", "2", str(served_version(versions))}


def canary(tmp_path: Path) -> dict[str, Any]:
    """The canary's Deployment, as the command of the page makes it of the stable one."""
    script = blocks("bash", "Canary")[0].split("kubectl")[0]
    bash(script.replace("> canary.yaml", f"> {tmp_path}/canary.yaml"), ROOT)
    return yaml.safe_load((tmp_path / "canary.yaml").read_text(encoding="utf-8"))


def test_canary_is_the_stable_deployment_under_other_names(tmp_path: Path):
    made, stable = canary(tmp_path), BY_KIND["Deployment"]
    kubernetes_validate.validate(made, "1.30.0", strict=True)
    assert made["metadata"]["name"] == "ranker-canary"
    selector, labels = made["spec"]["selector"]["matchLabels"], made["spec"]["template"]["metadata"]["labels"]
    assert selector == labels == {"app": "ranker", "track": "canary"}
    assert BY_KIND["Service"]["spec"]["selector"].items() <= labels.items()
    assert not stable["spec"]["selector"]["matchLabels"].items() <= labels.items()
    (config,) = (volume for volume in made["spec"]["template"]["spec"]["volumes"] if "configMap" in volume)
    assert f"create configmap {config['configMap']['name']} " in blocks("bash", "Canary")[0]
    # But for these names nothing differs.
    text = yaml.safe_dump(made).replace("ranker-canary-config", "ranker-config").replace("canary", "stable")
    assert yaml.safe_load(text) == stable


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is absent")
@pytest.mark.parametrize("section", ["Start", "Canary"])
def test_config_maps_hold_what_the_server_reads(section: str, tmp_path: Path):
    shutil.copytree(ROOT / "serving", tmp_path / "serving", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    (tmp_path / "canary.config").write_text(blocks("protobuf ModelServerConfig", "Roll back")[0], encoding="utf-8")
    (script,) = (block for block in blocks("bash", section) if "create configmap" in block)
    (command,) = re.findall(r"(kubectl create configmap .*?) \| kubectl apply -f -", script, re.DOTALL)
    made = yaml.safe_load(bash(command, tmp_path))
    kubernetes_validate.validate(made, "1.30.0")
    text_format.Parse(made["data"]["models.config"], MESSAGES["ModelServerConfig"]())
    text_format.Parse(made["data"]["monitoring.config"], MESSAGES["MonitoringConfig"]())
    assert set(made["data"]) == {"models.config", "monitoring.config"}


def test_ssl_config_holds_the_files(tmp_path: Path):
    pem = "-----BEGIN X-----\nMIIB+/=\nabc\n-----END X-----\n"
    (tmp_path / "server.key").write_text(pem)
    (tmp_path / "server.crt").write_text(pem.replace("X", "CERTIFICATE"))
    bash(blocks("bash", "Encrypt")[0], tmp_path)
    config = text_format.Parse((tmp_path / "ssl.config").read_text(), MESSAGES["SSLConfig"]())
    assert (config.server_key, config.server_cert) == (pem, pem.replace("X", "CERTIFICATE"))
    assert not config.client_verify


def test_logging_as_written(exports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(exports / "ranker", tmp_path / "models" / "1")
    shown: list[Any] = []
    with serving(tmp_path / "models") as client:
        client.rank({"context": CONTEXT, "candidates": CANDIDATES})
        code = blocks("python", "Log what was ranked")[0].replace("ranker:8500", client._connection.target)
        code = code.replace("sampling_rate=0.1", "sampling_rate=1.0")
        names = {"request": {"context": CONTEXT, "candidates": CANDIDATES}, "show": lambda *seen: shown.append(seen)}
        exec(code, names)
    ((ranking, request_id),) = shown
    assert [row["video_id"] for row in ranking] != []
    (file,) = (tmp_path / "lists").glob("ranked-lists-*.jsonl")
    assert request_id in file.read_text()


def test_the_formula_gives_what_the_page_says():
    (code,) = blocks("python", "Size")
    names: dict[str, Any] = {}
    exec(code, names)
    cores, utilisation, _ = names["pods"].__defaults__
    assert str(cores) == CONTAINER["resources"]["requests"]["cpu"]
    (metric,) = BY_KIND["HorizontalPodAutoscaler"]["spec"]["metrics"]
    assert 100 * utilisation == metric["resource"]["target"]["averageUtilization"]
    examples = re.findall(r"^pods\((.*)\)  # (\d+)$", code, re.MULTILINE)
    assert len(examples) == 2
    for arguments, said in examples:
        requests, milliseconds = map(float, arguments.split(", "))
        # By hand: processors that are busy at the peak, so many that 60 % are busy, four to a pod, one to spare.
        assert names["pods"](requests, milliseconds) == -(-requests * milliseconds / 1000 / 0.6 // 4) + 1 == int(said)
