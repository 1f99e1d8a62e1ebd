"""The search over config keys: what it refuses before any trial, what it writes, and that a kill changes nothing."""

from __future__ import annotations

import csv
import fcntl
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from mmoe_ranker import tuning
from mmoe_ranker.config import Config
from mmoe_ranker.config_loading import load_config, override_config, parse_config
from mmoe_ranker.errors import InputError
from mmoe_ranker.tuning import tune
from mmoe_ranker.tuning_report import best_trials, write_report
from mmoe_ranker.tuning_search import Search, load_search, metric_at
from tests.conftest import TinyWorld

_RATE = {"kind": "float", "low": 1e-4, "high": 1e-1, "log": True}
_SEARCH: dict[str, Any] = {
    "parameters": {"training.optimizer.learning_rate": _RATE, "model.hidden": {"kind": "choice", "values": [[4], [6]]}},
    "directions": {"click.auc": "maximize"},
}


def _search(**changes: Any) -> Search:
    return Search.model_validate(_SEARCH | changes)


def test_a_search_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "search.yaml"
    # 1e-4 is text to YAML, and a number to whoever writes it.
    text = "parameters: {training.optimizer.learning_rate: {kind: float, low: 1e-4, high: 1e-1, log: true}}\n"
    file.write_text(text + "directions: {click.auc: maximize}\n", encoding="utf-8")
    search = load_search(file)
    assert search == _search(parameters={"training.optimizer.learning_rate": _RATE})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"direction": {}}, r"`direction` is not a key here \(did you mean `directions`\?\); allowed: .* Received: "),
        ({"parameters": {}}, r"`parameters` must have at least 1 item.* Received: \{\}\."),
        ({"parameters": {"a": {"kind": "real"}}}, r"`parameters.a.kind` must be one of 'float', 'int', 'choice'. Rec"),
        ({"parameters": {"a": {"low": 1}}}, r"`parameters.a.kind` must be given. Received: nothing\."),
        ({"parameters": {"a": {"kind": "int", "low": 1, "hgih": 2}}}, r"`hgih`|`parameters.a.hgih` is not a key here"),
        ({"parameters": {"a": {"kind": "int", "low": 1.5, "high": 2}}}, r"`parameters.a.low` must be a valid integer"),
        ({"parameters": {"a": {"kind": "int", "low": 3, "high": 3}}}, r"`parameters.a` needs `low` below `high`. Rec"),
        (
            {"parameters": {"a": {"kind": "float", "low": 0, "high": 3, "log": True}}},
            r"`parameters.a` needs `low` above 0 where `log` is true. Received: 0.0\.",
        ),
        ({"parameters": {"a": {"kind": "choice", "values": [1]}}}, r"`parameters.a.values` must have at least 2 items"),
        ({"directions": {"click.auc": "max"}}, r"`directions.click.auc` must be 'maximize' or 'minimize'. Received: '"),
        (
            {"directions": {"click.auc": "maximize", "like.auc": "maximize"}, "pruning": {"kind": "median"}},
            r"`pruning.kind` must be none where `directions` has several.* Received: 'median'\.",
        ),
    ],
)
def test_search_files_with_a_mistake(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    file = tmp_path / "search.yaml"
    file.write_text(yaml.safe_dump(_SEARCH | changes), encoding="utf-8")
    with pytest.raises(InputError, match=rf"^The search `.*search.yaml` is not valid: .*{message}"):
        load_search(file)


def test_search_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must be a readable YAML file; No such file.* Received: '.*none.yaml'\."):
        load_search(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("[1]")
    with pytest.raises(InputError, match=r"The search `.*list.yaml` must be a YAML mapping. Received: list\."):
        load_search(tmp_path / "list.yaml")


def test_metrics_are_found_by_path() -> None:
    report = {
        "objectives": {"click": {"auc": 0.7, "mrr": {"value": 0.4, "groups_counted": 3}, "log_loss": None}},
        "notes": ["A sentence."],
        "combined_score": {"ndcg@10": {"click": {"value": 0.5}}},
        "split": "validation",
    }
    assert metric_at(report, "click.auc") == 0.7
    assert metric_at(report, "click.mrr") == 0.4
    assert metric_at(report, "combined_score.ndcg@10.click") == 0.5
    assert metric_at(report, "click.log_loss") is None
    allowed = r"allowed: click.auc, click.mrr, click.log_loss, combined_score.ndcg@10.click. Received: "
    for path in ("click.ucr", "clicks.auc", "click.auc.value"):
        with pytest.raises(InputError, match=rf"must name a metric of the report; {allowed}'{path}'\.$"):
            metric_at(report, path)
    with pytest.raises(InputError, match=r"must name one metric; allowed: click.auc, .* Received: 'click'\.$"):
        metric_at(report, "click")
    for path in ("split", "notes"):
        with pytest.raises(InputError, match=rf"must name one metric; allowed: a number. Received: '{path}'\.$"):
            metric_at(report, path)


@pytest.fixture(scope="module")
def tiny(tiny_world: TinyWorld) -> Config:
    """Two objectives and no experts: half of the graph to trace, in each of the trials."""
    raw = tiny_world.config.model_dump(mode="json", exclude_unset=True)
    raw["objectives"] = [objective for objective in raw["objectives"] if objective["name"] in ("click", "like")]
    raw["combined_score"]["terms"] = {name: raw["combined_score"]["terms"][name] for name in ("click", "like")}
    raw["model"] |= {"sharing": {"kind": "shared_bottom", "units": [4]}, "tower": [4], "bias": {"kind": "none"}}
    raw["training"] |= {"batch_size": 512, "epochs": 2}
    raw["evaluation"] = {"bootstrap": {"replicates": 0}}
    return parse_config(raw)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"parameters": {"features.duration.transform": {"kind": "choice", "values": ["log1p", "none"]}}},
            r"`features.duration.transform` must be 'log1p', as the examples in .* were built.* Received: 'none'\.",
        ),
        (
            {"parameters": {"features.uploader_id.min_count": {"kind": "int", "low": 2, "high": 9}}},
            r"`features.uploader_id.min_count` must be 2, as the examples.* Received: 9\.",
        ),
        ({"parameters": {"model.towr": {"kind": "int", "low": 1, "high": 2}}}, r"`model.towr` is not a key here"),
        ({"parameters": {"model.dropout": {"kind": "float", "low": 0.5, "high": 1}}}, r"`model.dropout` must be less"),
        ({"directions": {"clik.auc": "maximize"}}, r"must name a metric of the report; .* Received: 'clik.auc'\."),
    ],
)
def test_what_no_trial_could_do_is_said_before_any(
    tiny_world: TinyWorld, tiny: Config, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        tune(tiny, tiny_world.examples, tmp_path / "study", _search(**changes), trials=1, seed=1)
    assert list(tmp_path.iterdir()) == []


def test_folders_that_hold_no_study_or_a_running_one(tiny_world: TinyWorld, tiny: Config, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"The study must be a new or empty folder, or hold a study. Received: "):
        tune(tiny, tiny_world.examples, tiny_world.workdir, _search(), trials=1, seed=1)
    (tmp_path / tuning.STUDY).touch()
    with (tmp_path / f".{tuning.STUDY}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match=r"The study must not be running in another process: wait.* Received: "):
            tune(tiny, tiny_world.examples, tmp_path, _search(), trials=1, seed=1)


@pytest.mark.slow
def test_a_search_goes_on_where_it_was_stopped_as_if_it_had_not_been(
    tiny_world: TinyWorld, tiny: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = _search(pruning={"kind": "median", "startup_trials": 1})
    whole = tune(tiny, tiny_world.examples, tmp_path / "whole", search, trials=2, seed=5)

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tuning, "evaluate_workdir", stopped)
        with pytest.raises(KeyboardInterrupt):
            tune(tiny, tiny_world.examples, tmp_path / "stopped", search, trials=2, seed=5)
    again = tune(tiny, tiny_world.examples, tmp_path / "stopped", search, trials=2, seed=5)
    assert [trial.params for trial in again.trials] == [trial.params for trial in whole.trials]
    assert [trial.state for trial in again.trials] == [trial.state for trial in whole.trials]
    for one, other in zip(again.trials, whole.trials, strict=True):
        assert one.intermediate_values == pytest.approx(other.intermediate_values, rel=1e-4)
    assert sorted(path.name for path in (tmp_path / "stopped" / "trials").iterdir()) == ["0000", "0001"]
    # Enough trials: nothing more to do.
    assert len(tune(tiny, tiny_world.examples, tmp_path / "whole", search, trials=1, seed=5).trials) == 2
    with pytest.raises(InputError, match=r"with the very same seed, .* Received: '.*', of other seed\.$"):
        tune(tiny, tiny_world.examples, tmp_path / "whole", search, trials=2, seed=6)
    table = write_report(whole, tiny, search, tmp_path / "whole")
    best = whole.best_trial
    assert table.splitlines()[1].split()[0] == str(best.number)
    # The best config trains; its values are the best trial's.
    config = load_config(tmp_path / "whole" / "best.yaml")
    assert config.training.optimizer.learning_rate == best.params["training.optimizer.learning_rate"]
    assert list(config.model.hidden) == yaml.safe_load(best.params["model.hidden"])
    assert config == load_config(tmp_path / "whole" / "trials" / f"{best.number:04d}" / "config.yaml")


@pytest.mark.slow
def test_a_trial_that_fails_is_recorded_and_the_search_goes_on(
    tiny_world: TinyWorld, tiny: Config, tmp_path: Path
) -> None:
    sgd = override_config(tiny, {"training.optimizer.name": "sgd", "training.epochs": 1})
    rates = {"training.optimizer.learning_rate": {"kind": "choice", "values": [1e30, 2e30]}}
    search = _search(parameters=rates, directions={"click.auc": "maximize", "like.log_loss": "minimize"})
    study = tune(sgd, tiny_world.examples, tmp_path, search, trials=2, seed=1)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.FAIL]
    with pytest.raises(InputError, match=r"At least one trial of the search must finish.* Received: .*must stay fin"):
        write_report(study, sgd, search, tmp_path)
    with (tmp_path / "trials.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == ["failed", "failed"]
    assert all("loss must stay finite" in row["reason"] for row in rows)


def _study(directions: list[str], values: list[list[float]]) -> optuna.Study:
    """A study whose finished trials have these metrics."""
    study = optuna.create_study(directions=directions)
    distributions = {
        "training.optimizer.learning_rate": FloatDistribution(1e-4, 1e-1, log=True),
        "model.hidden": CategoricalDistribution(["[4]", "[6]"]),
    }
    for number, metrics in enumerate(values):
        params = {"training.optimizer.learning_rate": 1e-3 * (1 + number), "model.hidden": ["[4]", "[6]"][number % 2]}
        study.add_trial(create_trial(params=params, distributions=distributions, values=metrics))
    return study


def test_the_report_of_one_metric(config: Config, tmp_path: Path) -> None:
    study = _study(["minimize"], [[0.3], [0.1], [0.2]])
    failed = create_trial(state=TrialState.FAIL, user_attrs={"reason": "A sentence."})
    study.add_trial(failed)
    search = _search(directions={"click.log_loss": "minimize"})
    lines = write_report(study, config, search, tmp_path).splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["trial", "1", "2", "0"]
    assert lines[1].split() == ["1", "0.1", "0.002", "[6]"]
    assert lines[-2:] == [
        "4 trials, best first: 3 finished, 0 given up, 1 failed",
        "trial 3 failed: A sentence.",
    ]
    assert load_config(tmp_path / "best.yaml").model.hidden == (6,)
    plots = {path.name for path in (tmp_path / "plots").iterdir()}
    assert plots == {f"{name}_click.log_loss.png" for name in ("history", "slices", "importances")}
    with (tmp_path / "trials.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["click.log_loss"] for row in rows] == ["0.3", "0.1", "0.2", ""]


def test_the_report_of_two_metrics_is_the_front(config: Config, tmp_path: Path) -> None:
    # Trial 2 is beaten in both by trial 0, and no other by any.
    study = _study(["maximize", "minimize"], [[0.7, 0.2], [0.8, 0.3], [0.6, 0.25]])
    search = _search(directions={"click.auc": "maximize", "like.log_loss": "minimize"})
    (tmp_path / "best_0002.yaml").write_text("of an earlier report")
    assert [trial.number for trial in best_trials(study)] == [1, 0]
    lines = write_report(study, config, search, tmp_path).splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["trial", "1", "0"]
    assert sorted(path.name for path in tmp_path.glob("best*")) == ["best_0000.yaml", "best_0001.yaml"]
    assert load_config(tmp_path / "best_0001.yaml").model.hidden == (6,)
    plots = {path.name for path in (tmp_path / "plots").iterdir()}
    metrics = ("click.auc", "like.log_loss")
    assert plots == {"pareto_front.png"} | {
        f"{name}_{metric}.png" for name in ("history", "slices", "importances") for metric in metrics
    }
