"""What a search found: a table, every trial as CSV, the best config (or each that none beats), and plots."""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import optuna
from matplotlib.figure import Figure
from optuna.trial import FrozenTrial, TrialState

from mmoe_ranker import tuning_plots
from mmoe_ranker.config import Config
from mmoe_ranker.config_loading import dump_config, override_config
from mmoe_ranker.errors import InputError
from mmoe_ranker.tuning_search import REASON, ChoiceParameter, Search
from mmoe_ranker.whole_files import writing_whole_file

_STATES = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "given up", TrialState.FAIL: "failed"}


def write_report(study: optuna.Study, config: Config, search: Search, folder: Path) -> str:
    """Writes `trials.csv`, `best.yaml` (`best_<trial>.yaml` each where several are best) and `plots/` into a folder.

    Args:
      study: finished.
      config: that it varied.
      search: what it varied.
      folder: of the study.

    Returns:
      The table: best first, or the trials that no other beats in all directions.

    Raises:
      InputError: no trial has finished with a value.
    """
    rows = list(_rows(study, search))
    _write_csv(folder / "trials.csv", rows)
    best = best_trials(study)
    if not best:
        last = rows[-1]["reason"] if rows else "no trial"
        raise InputError(f"At least one trial of the search must finish with its metrics. Received: {last}")
    for stale in folder.glob("best*.yaml"):
        stale.unlink()
    for trial in best:
        name = "best.yaml" if len(search.directions) == 1 else f"best_{trial.number:04d}.yaml"
        with writing_whole_file(folder / name) as beside:
            beside.write_text(dump_config(override_config(config, overrides_of(trial, search))), encoding="utf-8")
    write_plots(study, search, folder / "plots")
    return _table(study, search, rows, best)


def best_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The best trial; with several directions those that no other beats in all of them, by the first direction."""
    if not study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        return []
    if len(study.directions) == 1:
        return [study.best_trial]
    return _best_first(study, study.best_trials)


def overrides_of(trial: FrozenTrial, search: Search) -> dict[str, Any]:
    """The values of a trial as the config takes them."""
    return {
        key: json.loads(value) if isinstance(search.parameters[key], ChoiceParameter) else value
        for key, value in trial.params.items()
    }


def write_plots(study: optuna.Study, search: Search, folder: Path) -> None:
    """Draws the history of each metric, the metric against each parameter, what it depends on, and fronts of two.

    Args:
      study: with finished trials.
      search: what it varied.
      folder: to draw into.
    """
    folder.mkdir(exist_ok=True)
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    numbers = [trial.number for trial in finished]
    parameters = {key: [trial.params[key] for trial in finished] for key in search.parameters}
    logs = {key for key, parameter in search.parameters.items() if getattr(parameter, "log", False)}
    for place, (path, direction) in enumerate(search.directions.items()):
        values = [trial.values[place] for trial in finished]
        figures = {
            "history": tuning_plots.history(numbers, values, path, direction == "maximize"),
            "slices": tuning_plots.slices(values, parameters, logs, path),
        }
        # One value of a metric says nothing of what it depends on.
        if len(set(values)) > 1:
            figures["importances"] = tuning_plots.importances(_importances(study, place), path)
        for name, figure in figures.items():
            _draw(folder / f"{name}_{path.replace('@', '_at_')}.png", figure)
    if len(search.directions) == 2:
        both = {trial.number: (trial.values[0], trial.values[1]) for trial in finished}
        first, second = search.directions
        front = [trial.number for trial in study.best_trials]
        _draw(folder / "pareto_front.png", tuning_plots.pareto_front(both, front, (first, second)))


def _importances(study: optuna.Study, place: int) -> dict[str, float]:
    """The share of each parameter in what makes the better trials of a metric."""
    # The evaluator takes low values for good ones.
    sign = -1.0 if study.directions[place] == optuna.study.StudyDirection.MAXIMIZE else 1.0
    with warnings.catch_warnings():
        # That it is experimental, and that it takes low values for good ones.
        warnings.simplefilter("ignore")
        return optuna.importance.get_param_importances(
            study,
            evaluator=optuna.importance.PedAnovaImportanceEvaluator(),
            target=lambda trial: sign * trial.values[place],
        )


def _draw(file: Path, figure: Figure) -> None:
    with writing_whole_file(file) as beside:
        figure.savefig(beside, dpi=120, format="png")
    plt.close(figure)


def _rows(study: optuna.Study, search: Search) -> Iterator[dict[str, Any]]:
    for trial in study.get_trials(deepcopy=False, states=tuple(_STATES)):
        values = (
            trial.values if trial.state == TrialState.COMPLETE and trial.values else [None] * len(search.directions)
        )
        yield {
            "trial": trial.number,
            "state": _STATES[trial.state],
            **dict(zip(search.directions, values, strict=True)),
            **{key: trial.params.get(key) for key in search.parameters},
            "passes_reported": len(trial.intermediate_values),
            "seconds": round(trial.duration.total_seconds(), 1) if trial.duration else None,
            "reason": trial.user_attrs.get(REASON, ""),
        }


def _write_csv(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    with writing_whole_file(file) as beside, beside.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, fieldnames=list(rows[0]) if rows else ["trial"])
        writer.writeheader()
        writer.writerows(rows)


def _best_first(study: optuna.Study, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    falling = study.directions[0] == optuna.study.StudyDirection.MAXIMIZE
    return sorted(trials, key=lambda trial: trial.values[0], reverse=falling)


def _table(study: optuna.Study, search: Search, rows: Sequence[dict[str, Any]], best: Sequence[FrozenTrial]) -> str:
    shown = best
    if len(search.directions) == 1:
        shown = _best_first(study, study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
    by_number = {row["trial"]: row for row in rows}
    columns = ["trial", *search.directions, *search.parameters]
    cells = [columns, *([_cell(by_number[trial.number][column]) for column in columns] for trial in shown)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(columns))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]
    counts = {state: sum(row["state"] == state for row in rows) for state in _STATES.values()}
    what = "best first" if len(search.directions) == 1 else "those that no other beats in all directions"
    lines += ["", f"{len(rows)} trials, {what}: " + ", ".join(f"{count} {state}" for state, count in counts.items())]
    lines += [f"trial {row['trial']} failed: {row['reason']}" for row in rows if row["state"] == "failed"]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)
