"""What happens between the steps of a training: it is shown and saved (`training_guards` looks after it)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from tqdm import tqdm

from mmoe_ranker.config import Config
from mmoe_ranker.errors import InputError
from mmoe_ranker.training_progress import Progress

# How often the progress bar and TensorBoard are given the metrics of the steps between.
REPORT_STEPS = 20


class SaveProgress(tf.keras.callbacks.Callback):
    """Counts steps and saves a checkpoint every so many, and at the end of each pass."""

    def __init__(self, progress: Progress, checkpoint_steps: int) -> None:
        super().__init__()
        self._progress = progress
        self._checkpoint_steps = checkpoint_steps
        # Keras hands over the metrics as they are on the device; this callback does not look at them.
        self._supports_tf_logs = True

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Lets metrics go on where a killed pass had come to."""
        self._progress.resume_metrics()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Counts the step, and saves where it is time."""
        self._progress.step.assign_add(1)
        step = int(self._progress.step)
        if step % self._checkpoint_steps == 0 and step < self._progress.steps_per_epoch:
            self._progress.save()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Saves the end of the pass as the start of the next.

        Raises:
          InputError: the pass had another number of batches than the statistics say.
        """
        if int(self._progress.step) != self._progress.steps_per_epoch:
            raise InputError(
                "The training split must have as many batches as its statistics say "
                f"({self._progress.steps_per_epoch}). Received: {int(self._progress.step)}."
            )
        self._progress.end_pass(flat_metrics(logs))


def flat_metrics(logs: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of Keras' logs as numbers, those of a metric with several among them."""
    flat: dict[str, float] = {}
    for name, value in logs.items():
        flat |= flat_metrics(value) if isinstance(value, Mapping) else {name: float(value)}
    return flat


class StepSummaries(tf.keras.callbacks.TensorBoard):
    """Writes metrics for TensorBoard every `REPORT_STEPS` steps.

    Keras asks of every metric at every step whether it is time, which takes longer than a small model's step.

    Args:
      folder: of the logs.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, update_freq=REPORT_STEPS, profile_batch=0)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Hands the metrics on where Keras would write them."""
        if self._train_step.numpy() % REPORT_STEPS == 0:
            super().on_train_batch_end(batch, logs)


class ProgressBar(tf.keras.callbacks.Callback):
    """A bar on a terminal, with losses, AUC and examples per second."""

    def __init__(self, config: Config, progress: Progress) -> None:
        super().__init__()
        self._training = config.training
        self._names = [f"{name}_{metric}" for name in config.objective_names for metric in ("auc", "loss")]
        self._progress = progress
        self._bar: tqdm | None = None
        self._supports_tf_logs = True

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Opens a bar for the pass."""
        self._bar = tqdm(
            total=self._progress.steps_per_epoch * self._training.batch_size,
            initial=int(self._progress.step) * self._training.batch_size,
            desc=f"train, pass {epoch + 1} of {self._training.epochs}",
            unit=" examples",
            unit_scale=True,
            disable=None,  # unless on a terminal
        )

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Moves the bar, and from time to time its metrics."""
        if self._bar is not None:
            if batch % REPORT_STEPS == 0:
                self._bar.set_postfix_str(self._metrics(logs), refresh=False)
            self._bar.update(self._training.batch_size)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Closes the bar with the metrics of the whole pass."""
        if self._bar is not None:
            self._bar.set_postfix_str(self._metrics(logs))
            self._bar.close()

    def _metrics(self, logs: Any) -> str:
        return " ".join(f"{name} {float(logs[name]):.4f}" for name in self._names if name in logs)
