"""Evaluations that stay in their workdir, for those who look at them later: WORKDIR/evaluations/<split>/.

predictions.parquet   a row an impression (`Predictions.save`)
report.json           the report on them, as `mmoe-ranker evaluate --json` writes it
origin.json           what was evaluated: format, training, folder of examples

What was saved is used for as long as it is of the training and of the examples that are there. Where the training has
changed since, or the examples have, it is made again, with a sentence on why.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmoe_ranker.config import Config
from mmoe_ranker.config_loading import load_config
from mmoe_ranker.errors import InputError
from mmoe_ranker.predictions import Predictions
from mmoe_ranker.tensorflow_loading import load_tensorflow
from mmoe_ranker.whole_files import writing_whole

_FORMAT = "mmoe_ranker evaluation 2"
_FOLDER = "evaluations"
_PREDICTIONS = "predictions.parquet"
_REPORT = "report.json"
_ORIGIN = "origin.json"

# Of the workdir and of the folder of examples, whose own modules need TensorFlow.
CONFIG = "config.yaml"
RESULT = "training.json"
_CHECKPOINTS = "checkpoints"
SUMMARY = "summary.json"

_LOGGER = logging.getLogger(__name__)


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
    """Keeps predictions and the report on them in the workdir, in place of an earlier evaluation of the same split.

    Args:
      workdir: of the training.
      examples: folder that the split is of.
      predictions: of its impressions.
      report: on them, with `split`.
    """
    split = report["split"]
    origin = {
        "format": _FORMAT,
        "training": _training_digest(workdir),
        "examples": str(examples.resolve()),
        "examples_digest": _examples_digest(examples, split),
    }
    with writing_whole(workdir / _FOLDER / split) as folder:
        predictions.save(folder / _PREDICTIONS)
        for name, document in ((_REPORT, report), (_ORIGIN, origin)):
            (folder / name).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def load_evaluation(workdir: Path, split: str = "test", examples: Path | None = None) -> SavedEvaluation:
    """The evaluation of a workdir on a split; evaluates now where none was saved, or what was saved holds no more.

    Args:
      workdir: of a finished training.
      split: `train`, `validation` or `test`.
      examples: folder of examples; by default the one that was evaluated on, or else that trained.

    Raises:
      InputError: the workdir holds no finished training, the folder of examples is gone, or the split is empty.
    """
    if not (workdir / RESULT).is_file():
        raise InputError(
            "The workdir must hold a finished training, as `mmoe-ranker train` leaves it, with training.json in it. "
            f"Received: {str(workdir)!r}."
        )
    saved, reason = _read(workdir, split, examples)
    if saved is None:
        examples = examples or _known_examples(workdir, split)
        _LOGGER.info("Evaluating %s on the %s split of %s: %s.", workdir, split, examples, reason)
        # Imported here: TensorFlow takes seconds, and reading what was saved needs none.
        load_tensorflow()
        from mmoe_ranker.evaluation import evaluate_workdir

        evaluate_workdir(workdir, examples, split)
        saved, reason = _read(workdir, split, examples)
        assert saved is not None, reason
    return saved


def _read(workdir: Path, split: str, examples: Path | None) -> tuple[SavedEvaluation | None, str]:
    """What was saved, or why it does not hold."""
    folder = workdir / _FOLDER / split
    if not (folder / _ORIGIN).is_file():
        return None, "no evaluation was saved"
    try:
        origin = _json(folder / _ORIGIN)
        if origin.get("format") != _FORMAT:
            return None, "what was saved has another format"
        if origin["training"] != _training_digest(workdir):
            return None, "the saved evaluation is of an earlier training"
        evaluated = Path(origin["examples"])
        # Examples that have gone since take nothing from the evaluation on them.
        now = _examples_digest(examples or evaluated, split) if examples or evaluated.is_dir() else None
        if now not in (None, origin["examples_digest"]):
            return None, "the saved evaluation is of other examples"
        predictions = Predictions.load(folder / _PREDICTIONS)
        report = _json(folder / _REPORT)
    except (OSError, ValueError, KeyError) as error:
        return None, f"the saved evaluation is damaged ({' '.join(str(error).split())[:200]})"
    return SavedEvaluation(workdir, load_config(workdir / CONFIG), split, evaluated, predictions, report), ""


def _known_examples(workdir: Path, split: str) -> Path:
    for file in (workdir / _FOLDER / split / _ORIGIN, workdir / RESULT):
        with contextlib.suppress(OSError, ValueError, KeyError):
            return Path(_json(file)["examples"])
    raise InputError(
        "The folder of examples must be given (--examples): the training in the workdir did not write it down. "
        f"Received: {str(workdir)!r} alone."
    )


def _json(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8"))


def _training_digest(workdir: Path) -> str:
    """Tells one training from another: its config, its result, and the checksums of its checkpoints."""
    files = [workdir / CONFIG, workdir / RESULT, *sorted((workdir / _CHECKPOINTS).glob("*.index"))]
    return _digest(file.read_bytes() for file in files if file.is_file())


def _examples_digest(examples: Path, split: str) -> str:
    """Tells one folder's split from another: its summary, and names and sizes of the split's parts."""
    parts = sorted((path.name, path.stat().st_size) for path in (examples / split).glob("part-*"))
    summary = examples / SUMMARY
    return _digest([summary.read_bytes() if summary.is_file() else b"", repr(parts).encode()])


def _digest(contents: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for content in contents:
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()
