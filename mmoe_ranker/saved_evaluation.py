"""Evaluations that stay in their workdir, for those who look at them later: WORKDIR/evaluations/<split>/.

predictions.parquet   a row an impression (`Predictions.save`)
report.json           the report on them, as `mmoe-ranker evaluate --json` writes it
origin.json           written last: the folder of examples
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from mmoe_ranker.config import Config
from mmoe_ranker.config_loading import load_config
from mmoe_ranker.errors import InputError
from mmoe_ranker.predictions import Predictions

_FOLDER = "evaluations"
_PREDICTIONS = "predictions.parquet"
_REPORT = "report.json"
_ORIGIN = "origin.json"


@dataclasses.dataclass(frozen=True)
class SavedEvaluation:
    """An evaluation of a workdir on a split.

    Attributes:
      workdir: of the finished training.
      config: the config that trained.
      split: `train`, `validation` or `test`.
      examples: the folder of examples that the split belongs to.
      predictions: of the split's impressions.
      report: on them.
    """

    workdir: Path
    config: Config
    split: str
    examples: Path
    predictions: Predictions
    report: dict[str, Any]


def save_evaluation(workdir: Path, examples: Path, predictions: Predictions, report: dict[str, Any]) -> None:
    """Keeps predictions and the report on them in the workdir, in place of an earlier evaluation of the same split."""
    folder, split = workdir / _FOLDER, report["split"]
    folder.mkdir(exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{split}.", dir=folder))
    try:
        beside.chmod(0o755)
        predictions.save(beside / _PREDICTIONS)
        (beside / _REPORT).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        (beside / _ORIGIN).write_text(json.dumps({"examples": str(examples.resolve())}) + "\n", encoding="utf-8")
        shutil.rmtree(folder / split, ignore_errors=True)
        beside.replace(folder / split)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def load_evaluation(workdir: Path, split: str = "test", examples: Path | None = None) -> SavedEvaluation:
    """The evaluation of a workdir on a split; evaluates now where none was saved.

    Args:
      workdir: of a finished training.
      split: `train`, `validation` or `test`.
      examples: folder of examples; by default the one that was evaluated on, or else that trained.

    Raises:
      InputError: the workdir holds no finished training, the folder of examples is gone, or the split is empty.
    """
    folder = workdir / _FOLDER / split
    if not (folder / _ORIGIN).is_file():
        # Imported here: TensorFlow takes seconds, and reading what was saved needs none.
        from mmoe_ranker.evaluation import evaluate_workdir

        evaluate_workdir(workdir, examples or _trained_on(workdir), split)
    origin = json.loads((folder / _ORIGIN).read_text(encoding="utf-8"))
    report = json.loads((folder / _REPORT).read_text(encoding="utf-8"))
    predictions = Predictions.load(folder / _PREDICTIONS)
    config = load_config(workdir / "config.yaml")
    return SavedEvaluation(workdir, config, split, Path(origin["examples"]), predictions, report)


def _trained_on(workdir: Path) -> Path:
    file = workdir / "training.json"
    if not file.is_file():
        raise InputError(
            "The workdir must hold a finished training, as `mmoe-ranker train` leaves it, with training.json in it. "
            f"Received: {str(workdir)!r}."
        )
    return Path(json.loads(file.read_text(encoding="utf-8"))["examples"])
