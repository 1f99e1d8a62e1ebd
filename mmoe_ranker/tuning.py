"""Search over config keys with Optuna: each trial is a training and an evaluation in a workdir of its own.

study/
  study.db            what Optuna knows of the trials, written after each step of one
  trials/<number>/    the workdir of each trial, as `train` leaves it

Run again, a search goes on where it was stopped: a trial that was killed goes on from its checkpoint, and the values
that the search proposes are those that it would have proposed without the kill.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import tensorflow as tf
from optuna.trial import TrialState
from tqdm import tqdm

from mmoe_ranker.config import Config
from mmoe_ranker.config_loading import dump_config, load_config, override_config
from mmoe_ranker.config_matching import check_built_with
from mmoe_ranker.dataset import split_parts
from mmoe_ranker.errors import InputError
from mmoe_ranker.evaluation import evaluate_workdir, predict
from mmoe_ranker.evaluation_metrics import evaluate
from mmoe_ranker.examples import ITEM_ID, REQUEST_ID
from mmoe_ranker.predictions import Predictions
from mmoe_ranker.training import train
from mmoe_ranker.tuning_search import REASON, ChoiceParameter, FloatParameter, MedianPruning, Search, metric_at, probes
from mmoe_ranker.workdir import CONFIG, examples_digest

STUDY = "study.db"
TRIALS = "trials"

# Never the test split: what was chosen on it could no longer be judged by it.
_SPLIT = "validation"
_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def tune(config: Config, examples: Path, folder: Path, search: Search, trials: int, seed: int) -> optuna.Study:
    """Runs trials until `trials` of them have finished, earlier calls for the same folder included.

    Args:
      config: what all trials share.
      examples: folder that `mmoe-ranker examples` wrote, with a validation split.
      folder: of the study.
      search: what varies, and what is sought.
      trials: how many in total; those that failed or were given up count.
      seed: of what is proposed; a training has `training.seed`.

    Returns:
      The study, with every trial; why a trial failed is its user attribute `reason`.

    Raises:
      InputError: a value that the search may propose cannot be trained on these examples, a direction names no metric,
        or the folder holds another study or one that is running.
    """
    _check(config, examples, search)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / STUDY).is_file())):
        raise InputError(f"The study must be a new or empty folder, or hold a study. Received: {str(folder)!r}.")
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder / STUDY):
        study = _open_study(config, examples, folder, search, seed)
        done = len(study.get_trials(deepcopy=False, states=_FINISHED))
        for _ in tqdm(range(done, trials), desc="tune", unit=" trials", initial=done, total=trials, disable=None):
            _run_trial(study, _next_trial(study, seed), config, examples, folder, search)
    return study


def check_directions(config: Config, search: Search) -> None:
    """Checks that each direction names a metric of this config's evaluation report.

    Raises:
      InputError: one does not.
    """
    report = evaluate(_nothing_predicted(config), _without_intervals(config))
    for path in search.directions:
        metric_at(report, path)


def _check(config: Config, examples: Path, search: Search) -> None:
    for split in ("train", _SPLIT):
        split_parts(examples, split)
    built_with = load_config(examples / CONFIG)
    for overrides in [{}, *probes(search)]:
        check_built_with(override_config(config, overrides), built_with, examples)
    check_directions(config, search)


def _nothing_predicted(config: Config) -> Predictions:
    """Four impressions of one request: enough for a report with every metric's name in it."""
    count = 4
    labels = np.array([0.0, 1.0, 0.0, 1.0])
    columns: dict[str, Any] = {name: np.array([b"x"] * count) for name in (REQUEST_ID, ITEM_ID)}
    for feature in config.features:
        strings = feature.kind == "categorical" and not feature.is_integer
        columns[feature.name] = np.array([b"x"] * count) if strings else np.zeros(count, np.int64)
    names = config.objective_names
    return Predictions({name: np.full(count, 0.5) for name in names}, dict.fromkeys(names, labels), columns)


def _without_intervals(config: Config) -> Config:
    """A trial is chosen by the metric alone, and its intervals would cost as much as many evaluations."""
    bootstrap = config.evaluation.bootstrap.model_copy(update={"replicates": 0})
    return config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"bootstrap": bootstrap})})


@contextlib.contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Holds a study's file for one process, until that ends in whatever way."""
    with file.with_name(f".{file.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"The study must not be running in another process: wait for it. Received: {str(file.parent)!r}."
            ) from None
        yield


def _open_study(config: Config, examples: Path, folder: Path, search: Search, seed: int) -> optuna.Study:
    pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
    if isinstance(search.pruning, MedianPruning):
        pruner = optuna.pruners.MedianPruner(search.pruning.startup_trials, search.pruning.warmup_passes)
    study = optuna.create_study(
        storage=f"sqlite:///{(folder / STUDY).resolve()}",
        study_name="tune",
        directions=list(search.directions.values()),
        pruner=pruner,
        load_if_exists=True,
    )
    begun_with = {
        "config": dump_config(config),
        "search": search.model_dump_json(),
        "examples": examples_digest(examples),
        "seed": seed,
    }
    for what, value in begun_with.items():
        if study.user_attrs.get(what, value) != value:
            raise InputError(
                f"The study must be new, or hold a search with the very same {what}, which would go on: choose "
                f"another folder, or remove this one. Received: {str(folder)!r}, of other {what}."
            )
        study.set_user_attr(what, value)
    return study


def _next_trial(study: optuna.Study, seed: int) -> optuna.trial.Trial:
    """The trial that was running when the study was stopped, or a new one."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    number = running[0].number if running else len(study.get_trials(deepcopy=False))
    # A generator a trial, so that what it proposes does not depend on how often the study was stopped before.
    study.sampler = optuna.samplers.TPESampler(seed=(seed + number) % 2**32)
    return optuna.trial.Trial(study, running[0]._trial_id) if running else study.ask()


def _run_trial(
    study: optuna.Study, trial: optuna.trial.Trial, config: Config, examples: Path, folder: Path, search: Search
) -> None:
    workdir = folder / TRIALS / f"{trial.number:04d}"
    try:
        varied = override_config(config, proposed(trial, search))
        callbacks = [_ReportPass(study, trial, varied, examples, search)] if search.pruning.kind != "none" else []
        train(varied, examples, workdir, callbacks=callbacks)
        report = evaluate_workdir(workdir, examples, _SPLIT)
        values = [_defined(report, path) for path in search.directions]
    except optuna.TrialPruned:
        study.tell(trial, state=TrialState.PRUNED)
    except InputError as error:
        # Such as a loss that is not finite: what the search is there to find out.
        trial.set_user_attr(REASON, str(error))
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, values)
    finally:
        tf.keras.backend.clear_session()


def proposed(trial: optuna.trial.BaseTrial, search: Search) -> dict[str, Any]:
    """The config overrides of a trial; asks the study's sampler for those that it has not been given yet."""
    overrides: dict[str, Any] = {}
    for key, parameter in search.parameters.items():
        if isinstance(parameter, ChoiceParameter):
            # As text, because Optuna keeps no lists.
            overrides[key] = json.loads(trial.suggest_categorical(key, [json.dumps(v) for v in parameter.values]))
        elif isinstance(parameter, FloatParameter):
            overrides[key] = trial.suggest_float(key, parameter.low, parameter.high, log=parameter.log)
        else:
            overrides[key] = trial.suggest_int(key, parameter.low, parameter.high, log=parameter.log)
    return overrides


def _defined(report: Mapping[str, Any], path: str) -> float:
    value = metric_at(report, path)
    if value is None:
        raise InputError(f"`{path}` must be defined on the {_SPLIT} split. Received: nothing.")
    return value


class _ReportPass(tf.keras.callbacks.Callback):
    """Tells the study the metric after each pass, and gives the trial up where its pruner says so."""

    def __init__(
        self, study: optuna.Study, trial: optuna.trial.Trial, config: Config, examples: Path, search: Search
    ) -> None:
        super().__init__()
        self._study, self._trial, self._config, self._examples = study, trial, config, examples
        (self._path,) = search.directions

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """After the pass has been saved."""
        predictions = predict(self.model, self._examples, _SPLIT, self._config)
        report = evaluate(predictions, _without_intervals(self._config))
        # A pass that a kill repeats was told already.
        if epoch not in self._study.trials[self._trial.number].intermediate_values:
            self._trial.report(_defined(report, self._path), epoch)
        if epoch + 1 < self._config.training.epochs and self._trial.should_prune():
            raise optuna.TrialPruned
