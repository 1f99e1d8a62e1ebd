"""Early stopping: by the mean validation loss, the best pass is kept, and a kill changes nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mmoe_ranker.config import Config
from mmoe_ranker.config_loading import load_config
from mmoe_ranker.dataset import labelled_dataset
from mmoe_ranker.early_stopping import EarlyStopping, best_pass
from mmoe_ranker.errors import InputError
from mmoe_ranker.training import train
from mmoe_ranker.training_callbacks import SaveProgress
from mmoe_ranker.workdir import BEST, RESULT, Workdir
from tests.configs import TWO_OBJECTIVES
from tests.conftest import TinyWorld


def _eager_config(overrides: tuple[str, ...] = ()) -> Config:
    """Learns so fast that it overfits within a few passes."""
    return load_config(
        "watch_next",
        [
            *TWO_OBJECTIVES,
            "model.hidden=[32]",
            "model.sharing.units=[16]",
            "model.tower=[8]",
            "training.batch_size=256",
            "training.epochs=6",
            "training.optimizer.learning_rate=0.02",
            "training.early_stopping.patience=1",
            *overrides,
        ],
    )


class _Killed(Exception):
    pass


def test_the_best_pass_is_the_last_that_improved_enough() -> None:
    losses = [1.0, 0.9, 0.85, 0.91]
    assert best_pass(losses, 0.0) == 2
    assert best_pass(losses, 0.08) == 1
    assert best_pass(losses, 0.2) == 0
    assert best_pass([0.7, 0.7], 0.0) == 0


def test_without_validation_examples_it_says_so_before_it_trains(tiny_world: TinyWorld, tmp_path: Path) -> None:
    copy = tmp_path / "examples"
    shutil.copytree(tiny_world.examples, copy)
    summary = json.loads((copy / "summary.json").read_text())
    del summary["splits"]["validation"]
    (copy / "summary.json").write_text(json.dumps(summary))
    message = r"`training.early_stopping` needs examples in the validation split: .* Received: '.*' with none\.$"
    with pytest.raises(InputError, match=message):
        train(_eager_config(), copy, tmp_path / "workdir")
    assert not (tmp_path / "workdir").exists()


@pytest.mark.slow
def test_stops_keeps_the_best_pass_and_survives_kills(
    tiny_world: TinyWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, workdir = _eager_config(("training.checkpoint_steps=10",)), tmp_path / "workdir"
    result = train(config, tiny_world.examples, workdir)
    losses = [record["validation_loss"] for record in result["passes"]]
    kept = result["kept_pass"] - 1
    # Patience 1: it stopped after the first pass that was no better, and kept the one before.
    assert losses == sorted(losses[:-1], reverse=True) + losses[-1:]
    assert losses[-1] >= losses[-2]
    assert (kept, result["epochs"]) == (len(losses) - 2, len(losses))
    assert result["epochs"] < 6
    assert result["metrics"] == result["passes"][kept]["metrics"]
    assert not (workdir / BEST).exists()

    # The workdir ends with the weights whose validation loss was the least: by hand, impression by impression.
    ranker = Workdir.open(workdir).load_ranker()
    total, count = 0.0, 0
    for features, labels in labelled_dataset(tiny_world.examples, "validation", config, ranker.feature_rows):
        size = len(labels["click"])
        total, count = total + float(ranker.compute_loss((features, labels))) * size, count + size
    assert total / count == pytest.approx(losses[kept], rel=1e-4)

    # The same with kills: in the middle of a pass, before it is validated, and at the very end.
    killed = tmp_path / "killed"
    moments = [
        (SaveProgress, "on_train_batch_end", 14),
        (EarlyStopping, "_validation_loss", 0),
        (EarlyStopping, "_validation_loss", 1),
        (Workdir, "write_result", 0),
    ]
    for owner, name, calls in moments:
        with monkeypatch.context() as patch:
            original, left = getattr(owner, name), [calls]

            def dies(self: object, *args: object, original=original, left=left, **kwargs: object) -> object:
                left[0] -= 1
                if left[0] < 0:
                    raise _Killed
                return original(self, *args, **kwargs)

            patch.setattr(owner, name, dies)
            with pytest.raises(_Killed):
                train(config, tiny_world.examples, killed)
        assert not (killed / RESULT).exists()
    again = train(config, tiny_world.examples, killed)
    assert again["kept_pass"] == result["kept_pass"]
    for expected, received in zip(result["passes"], again["passes"], strict=True):
        assert received["validation_loss"] == pytest.approx(expected["validation_loss"], rel=1e-3)
        # Those of the whole pass, though the run that ended it saw a part.
        assert received["metrics"] == pytest.approx(expected["metrics"], rel=1e-2, abs=1e-3)
    unbroken, resumed = (Workdir.open(folder).load_ranker().variables for folder in (workdir, killed))
    for expected, received in zip(unbroken, resumed, strict=True):
        np.testing.assert_allclose(received, expected, rtol=1e-2, atol=1e-3, err_msg=expected.name)
